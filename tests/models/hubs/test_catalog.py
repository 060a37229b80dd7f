"""The indices of the hubs are read as they are documented; odd entries hide no others, and what was read is kept."""

from __future__ import annotations

import datetime
import json
import time
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.errors import Cancelled, DownloadError, ModelNotFoundError
from napari_tileseg.models.hubs import bioimageio, monai
from napari_tileseg.models.hubs.catalog import HUBS, catalog, dated, find_entry
from napari_tileseg.models.hubs.entry import Entry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HOST = "https://api.ngc.nvidia.com/v2/models/nvidia/monaihosting"
ZOO: dict[str, Any] = {
    f"{name}_v{version}": {"checksum": digits, "source": f"{HOST}/{name}/versions/{version}/files/{name}_v{version}.zip"}
    for name, version, digits in [
        ("spleen_ct_segmentation", "0.5.3", "a" * 40),
        ("spleen_ct_segmentation", "0.10.0", "B" * 40),
        ("spleen_ct_segmentation", "0.9.1", "c" * 40),
        ("brats_mri_segmentation", "0.4.8", ""),
        ("breast_density_classification", "0.1.6", "d" * 40),
        ("pathology_nuclei_segmentation_classification", "0.2.5", "e" * 64),
        ("vista3d", "0.5.7", "f" * 40),
    ]
}
"""As models/model_info.json of the MONAI Model Zoo."""

COLLECTION: list[dict[str, Any]] = [
    {
        "id": "bioimage-io/affable-shark",
        "alias": "affable-shark",
        "type": "model",
        "manifest": {
            "name": "NucleiSegmentationBoundaryModel",
            "description": "Nucleus segmentation\nfor fluorescence microscopy",
            "license": "CC-BY-4.0",
            "tags": ["fluorescence-light-microscopy", "nuclei", "instance-segmentation", "2d"],
            "type": "model",
        },
        "versions": [{"version": "v0", "created_at": 1}, {"version": "1.1", "created_at": 2}],
    },
    {"id": "bioimage-io/cells", "alias": "cells", "type": "dataset", "manifest": {"name": "Cells"}},
    {"id": "bioimage-io/emotional-cricket", "type": "model", "manifest": {"name": "3D UNet", "tags": ["3d", "semantic-segmentation"]}},
]
"""As the collection's server lists it."""

ODD: list[Any] = [None, 3, "x", [], {}, [[]], {"type": "model"}, {"type": "model", "id": "../../etc"}, {"type": "model", "id": ""}]


@pytest.fixture(autouse=True)
def _through_mirrors(server: Any, setting: Any) -> None:
    hosts = ("https://raw.githubusercontent.com", "https://hypha.aicell.io", "https://bioimage-io.github.io")
    setting(mirror=" ".join(f"{host}={server.address}/{host[8:]}" for host in hosts), retries=0)


@pytest.fixture
def offer(server: Any) -> Callable[..., None]:
    """Return a function that offers the index of a hub."""
    paths = {
        "monai": ["raw.githubusercontent.com/Project-MONAI/model-zoo/dev/models/model_info.json"],
        "bioimageio": [
            "hypha.aicell.io/bioimage-io/artifacts/bioimage.io/children",
            "bioimage-io.github.io/collection/index.json",
        ],
    }

    def put(hub: str, document: Any, *, where: int = 0, **how: Any) -> None:
        server.put(paths[hub][where], document if isinstance(document, bytes) else json.dumps(document).encode(), **how)

    return put


def age(folder: Path, hub: str, seconds: float) -> None:
    """Make an index that was kept older."""
    file = folder / "cache" / "hubs" / f"{hub}.json"
    document = json.loads(file.read_text())
    document["fetched"] -= seconds
    file.write_text(json.dumps(document))


def test_model_zoo(offer: Any) -> None:
    offer("monai", ZOO)
    found = {entry.name: entry for entry in catalog("monai")}
    assert sorted(found) == ["brats_mri_segmentation", "pathology_nuclei_segmentation_classification", "spleen_ct_segmentation", "vista3d"]
    spleen = found["spleen_ct_segmentation"]
    assert (spleen.ref, spleen.title, spleen.version) == ("hub:monai/spleen_ct_segmentation", "Spleen CT segmentation", "0.10.0")
    assert (spleen.sha1, spleen.sha256) == ("b" * 40, "")
    assert spleen.url.endswith("/spleen_ct_segmentation_v0.10.0.zip")
    assert found["pathology_nuclei_segmentation_classification"].sha256 == "e" * 64


def test_collection(offer: Any) -> None:
    offer("bioimageio", COLLECTION)
    shark, cricket = catalog("bioimageio")
    assert shark == Entry(
        "bioimageio",
        "affable-shark",
        "NucleiSegmentationBoundaryModel",
        description="Nucleus segmentation for fluorescence microscopy",
        version="1.1",
        url="https://hypha.aicell.io/bioimage-io/artifacts/affable-shark/create-zip-file",
        licence="CC-BY-4.0",
        task="instances",
        dimensions="2D",
        tags=("fluorescence-light-microscopy", "nuclei", "instance-segmentation", "2d"),
    )
    assert (cricket.name, cricket.dimensions, cricket.task) == ("emotional-cricket", "3D", "semantic")


@pytest.mark.parametrize(
    "document",
    [
        {"items": COLLECTION, "total": 3},
        {"items": [{"id": "bioimage-io/affable-shark", "type": "model", "versions": [{"version": "1.1", "source": "https://x/rdf.yaml"}]}]},
        {"collection": [{"id": "10.5281/zenodo.1", "nickname": "affable-shark", "type": "model", "name": "N", "versions": ["1.1"]}]},
    ],
    ids=["pages", "index.json", "collection.json"],
)
def test_other_layouts_of_the_collection(document: Any) -> None:
    shark = bioimageio.entries(document)[0]
    assert (shark.name, shark.version, shark.url.endswith("/affable-shark/create-zip-file")) == ("affable-shark", "1.1", True)


def test_second_address_counts_where_the_first_one_fails(offer: Any) -> None:
    offer("bioimageio", b"<html>", where=0)
    offer("bioimageio", {"items": COLLECTION}, where=1)
    assert len(catalog("bioimageio")) == 2


def test_odd_entries_hide_no_others(offer: Any) -> None:
    zoo = {"odd": 1, "no_version": {}, "": None, "a_v1": {"source": 3}, "../../x_v0.1": {"source": "https://x"}, "<b>_v1": {"source": "y"}}
    offer("monai", {**zoo, **ZOO})
    offer("bioimageio", ODD + COLLECTION + ODD)
    assert len(catalog("monai")) == 4
    assert len(catalog("bioimageio")) == 2
    assert len(catalog()) == 6


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["id", "type", "manifest", "alias", "items", "tags", "versions", "a_v1", "source", "checksum"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(anything)
def test_no_index_raises(document: Any) -> None:
    for reader in (monai, bioimageio):
        for entry in [*reader.entries(document), *reader.entries([document]), *reader.entries({"items": [document], "x_v1": document})]:
            assert entry.name
            assert all(letter.isprintable() for letter in entry.title + entry.description + entry.version)


def test_texts_of_strangers_are_one_plain_line() -> None:
    manifest = {"name": "<script>x</script>\x1b[2J\n\u202eevil", "description": "a\0b" * 10_000, "tags": ["t" * 999, 3, None] * 99}
    (entry,) = bioimageio.entries([{"type": "model", "alias": "a", "manifest": manifest}])
    assert entry.title == "<script>x</script> [2J evil"
    assert len(entry.description) <= 500
    assert entry.tags == ("t" * 57 + "...",)


def test_index_is_fetched_once_a_day(offer: Any, server: Any, places: Path) -> None:
    offer("monai", ZOO)
    assert dated("monai") is None
    first = catalog("monai")
    assert catalog("monai") == first
    assert len(server.log) == 1
    date = dated("monai")
    assert date is not None
    assert abs((datetime.datetime.now(datetime.UTC) - date).total_seconds()) < 60
    catalog("monai", refresh=True)
    assert len(server.log) == 2
    age(places, "monai", 25 * 3600)
    catalog("monai")
    assert len(server.log) == 3


def test_older_index_counts_where_no_newer_one_can_be_had(offer: Any, server: Any, places: Path) -> None:
    offer("monai", ZOO)
    first = catalog("monai")
    age(places, "monai", 100 * 3600)
    server.files.clear()
    assert catalog("monai") == first
    with pytest.raises(DownloadError, match=r"The models of MONAI Model Zoo are not known: .* 404"):
        catalog("monai", refresh=True)
    assert catalog("monai") == first


def test_offline_mode(offer: Any, server: Any, setting: Any) -> None:
    offer("monai", ZOO)
    first = catalog("monai")
    setting(offline=True)
    server.log.clear()
    assert catalog("monai") == first == catalog()
    with pytest.raises(DownloadError, match=r"BioImage\.IO are not known, because offline mode is on"):
        catalog("bioimageio")
    with pytest.raises(ModelNotFoundError, match="has no model"):
        find_entry("hub:monai/nothing_like_it")
    assert server.log == []


def test_one_hub_out_of_reach_hides_no_other(offer: Any, server: Any) -> None:
    offer("monai", ZOO)
    assert {entry.hub for entry in catalog()} == {"monai"}
    assert set(HUBS) == {"monai", "bioimageio"}
    server.files.clear()
    with pytest.raises(DownloadError):
        catalog("bioimageio")


@pytest.mark.parametrize(
    "kept", [b"", b"{", b"[]", b'{"layout": 1}', b'{"layout": 1, "fetched": 1e300, "entries": []}', b"[" * 10_000],
    ids=["empty", "cut", "a list", "no entries", "no date", "deep"],
)  # fmt: skip
def test_damaged_index_is_fetched_again(offer: Any, places: Path, kept: bytes) -> None:
    offer("monai", ZOO)
    file = places / "cache" / "hubs" / "monai.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(kept)
    assert len(catalog("monai")) == 4


def test_kept_index_with_values_of_other_types_is_fetched_again(offer: Any, places: Path) -> None:
    offer("monai", ZOO)
    first = catalog("monai")
    file = places / "cache" / "hubs" / "monai.json"
    document = json.loads(file.read_text())
    document["entries"][0]["url"] = {"a": 1}
    file.write_text(json.dumps(document))
    assert catalog("monai") == first


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * 10_000, "nested too deeply"),
        (b"{}", "its index lists none"),
        (b"\xff\xfe\0", "damaged"),
        (b'{"a": ' + b"9" * 5000 + b"}", "damaged"),
    ],
    ids=["deep", "empty", "no text", "long number"],
)
def test_hostile_index_gets_a_sentence(offer: Any, body: bytes, words: str) -> None:
    offer("monai", body)
    with pytest.raises(DownloadError, match=words):
        catalog("monai")


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "not announced"])
def test_huge_index_takes_no_huge_memory(offer: Any, chunked: bool) -> None:
    offer("monai", b"{}, " * (50 * 2**20), chunked=chunked)  # 200 MB
    tracemalloc.start()
    try:
        with pytest.raises(DownloadError, match=r"has more than 33\.6 MB"):
            catalog("monai")
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    finally:
        tracemalloc.stop()


def test_cancelled(offer: Any) -> None:
    offer("monai", ZOO, pace=0.5)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        catalog("monai", cancel=lambda: time.monotonic() - began > 0.3)
    assert time.monotonic() - began < 5, "the whole answer takes ten seconds"


def test_reference(offer: Any) -> None:
    offer("monai", ZOO)
    assert find_entry("hub:monai/Spleen_CT_segmentation").name == "spleen_ct_segmentation"
    with pytest.raises(ModelNotFoundError, match="Did you mean hub:monai/vista3d"):
        find_entry("hub:monai/vista33d")
    with pytest.raises(ModelNotFoundError, match='There is no hub "nowhere"'):
        find_entry("hub:nowhere/x")
    with pytest.raises(ModelNotFoundError, match="There is no hub"):
        catalog("nowhere")


def test_reference_to_a_model_that_is_newer_than_the_index(offer: Any, places: Path) -> None:
    offer("monai", ZOO)
    catalog("monai")
    age(places, "monai", 3600)
    offer("monai", {**ZOO, "liver_segmentation_v0.1.0": {"source": "https://x/y.zip", "checksum": ""}})
    assert find_entry("hub:monai/liver_segmentation").version == "0.1.0"
