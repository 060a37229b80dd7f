"""Descriptions in which any value is replaced by any other give a card or a sentence, never another error."""

from __future__ import annotations

import copy
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import ModelError
from napari_tileseg.models.loaders.bioimageio import loader as bioimageio
from napari_tileseg.models.loaders.monai_bundle import loader as monai

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent / "bioimageio"

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**70, 10**9, 0.5, float("nan"), float("inf"), -1.0, 1e300]),
    st.sampled_from(
        ["", "x", "bcyx", "byx", "../../etc/passwd", "/etc/passwd", "https://example.org/a", "\x1b[31m<b>", "0.5.3", "%a", "@a", "$a"]
    ),
    st.sampled_from(["$[0] * 10**9", "$@network_def", "%network_def", "UNet", "os.system", "sigmoid", "softmax"]),
    st.lists(st.integers(-1, 3), max_size=3),
    st.dictionaries(st.sampled_from(["min", "step", "size", "_target_", "a"]), st.integers(-1, 3), max_size=2),
)


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield before
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*before, key))


def replaced(value: Any, place: tuple[Any, ...], junk: Any) -> Any:
    if not place:
        return junk
    changed = copy.deepcopy(value)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = junk
    return changed


def description(name: str) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(HERE / f"{name}.zip") as archive:
        files = {member: archive.read(member) for member in archive.namelist()}
    return yaml.safe_load(files.pop("rdf.yaml")), files


@pytest.mark.parametrize("name", ["source-2d-v4", "onnx-2d-v5", "source-3d-v5"])
def test_any_description(name: str, tmp_path: Path) -> None:
    whole, files = description(name)
    for member, content in files.items():
        (tmp_path / member).write_bytes(content)
    known = list(places(whole))

    @settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(known), JUNK)
    def look(place: tuple[Any, ...], junk: Any) -> None:
        (tmp_path / "rdf.yaml").write_text(yaml.safe_dump(replaced(whole, place, junk)))
        try:
            bioimageio.read_spec(tmp_path)
        except ModelError as error:
            assert str(error).isprintable()

    look()


CONFIG = {
    "network_def": {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]},
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network": "$@network_def.to(@device)",
    "image_key": "image",
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "LoadImaged", "keys": "@image_key"},
            {"_target_": "Orientationd", "keys": ["image"], "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": ["image"], "pixdim": [1.5, 1.5, 2.0], "mode": ["bilinear"]},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1, "clip": True},
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True},
            {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [16, 16, 16]},
        ],
    },
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 16], "overlap": 0.5, "mode": "gaussian"},
    "postprocessing": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "softmax": True},
            {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "nearest_interp": False},
            {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        ],
    },
}

METADATA = {
    "name": "Tiny",
    "version": "0.1.0",
    "description": "Nothing",
    "references": ["None"],
    "network_data_format": {
        "inputs": {"image": {"num_channels": 1, "spatial_shape": ["8*n", "8*n", "8*n"], "channel_def": {"0": "image"}}},
        "outputs": {"pred": {"num_channels": 2, "channel_def": {"0": "background", "1": "spleen"}}},
    },
}


@pytest.mark.parametrize("which", ["inference", "metadata"])
def test_any_bundle(which: str, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    documents = {"inference": CONFIG, "metadata": METADATA}
    for name, document in documents.items():
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(document))
    whole = documents[which]
    assert monai.read_spec(tmp_path).classes == ["background", "spleen"]
    known = list(places(whole))

    @settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
    @given(st.sampled_from(known), JUNK)
    def look(place: tuple[Any, ...], junk: Any) -> None:
        (tmp_path / "configs" / f"{which}.json").write_text(json.dumps(replaced(whole, place, junk)))
        try:
            monai.read_spec(tmp_path)
        except ModelError as error:
            assert str(error).isprintable()

    look()
