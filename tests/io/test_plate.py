"""Plates: their fields are listed; labels go into the image's own store, whoever else writes there."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io import check_writable, count_series, read_volume, write_labels
from napari_tileseg.io.beside import scores_path, uncertainty_path
from napari_tileseg.io.plate import read_plate
from napari_tileseg.unfinished import folder_beside
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

versions = pytest.mark.parametrize("version", ["0.5", "0.4"])


def labels(value: int = 1) -> Volume:
    return Volume.from_scale(np.full((32, 40), value, np.int32), "YX", (0.5, 0.5), units=("micrometer",) * 2, name="found")


def listed(image: Path) -> list[str]:
    attributes = dict(zarr.open_group(image / "labels", mode="r").attrs)
    names: list[str] = attributes.get("ome", attributes)["labels"]
    return names


@versions
def test_fields_of_a_plate_are_listed(make_plate: Callable[..., Path], version: str) -> None:
    path = make_plate(wells=("A/1", "B/12"), version=version)
    plate = read_plate(path)
    assert plate is not None
    assert [field.name for field in plate.fields] == ["A/1 field 0", "A/1 field 1", "B/12 field 0", "B/12 field 1"]
    assert [field.place for field in plate.fields] == ["A/1/0", "A/1/1", "B/12/0", "B/12/1"]
    assert all(read_volume(field.path).shape == (32, 40) for field in plate.fields)
    assert plate.missing == ()
    well = read_plate(path / "A" / "1")
    assert well is not None
    assert [(field.name, field.place) for field in well.fields] == [("field 0", "0"), ("field 1", "1")]
    assert count_series(path / "A" / "1") == 2
    assert read_plate(path / "A" / "1" / "0") is None
    assert read_plate(path / "zarr.json") is None
    with pytest.raises(InputError, match=r'plate of 2 wells\. Open one of its fields, say "plate\.ome\.zarr/A/1/0"'):
        read_volume(path)


def test_what_a_plate_lists_and_lacks_is_named(make_plate: Callable[..., Path]) -> None:
    path = make_plate(wells=("A/1", "A/2"), fields=2)
    zarr.open_group(path / "A" / "1").update_attributes({"ome": {"well": {"images": [{"path": "0"}, {"path": "7"}, {"path": "../../.."}]}}})
    facts = json.loads((path / "zarr.json").read_text())
    facts["attributes"]["ome"]["plate"]["wells"] += [{"path": "C/3"}, {"path": "/"}, {"path": "../other"}, 5]
    (path / "zarr.json").write_text(json.dumps(facts))
    (path / "A" / "2" / "zarr.json").write_text("{")
    plate = read_plate(path)
    assert plate is not None
    assert [field.name for field in plate.fields] == ["A/1 field 0"]
    assert plate.missing == (
        ("A/1 field 7", "is listed and not there"),
        ("A/2", "lists no field"),
        ("C/3", "is listed and not there"),
    )
    with pytest.raises(InputError, match="plate without a field: A/1 is listed and not there"):
        read_plate(make_plate("empty.zarr", fields=0).rename(path.parent / "e.zarr") and _without_wells(path.parent / "e.zarr"))


def _without_wells(path: Path) -> Path:
    import shutil

    for row in ("A", "B"):
        shutil.rmtree(path / row)
    return path


@versions
def test_labels_go_into_the_store_of_their_image(make_plate: Callable[..., Path], version: str) -> None:
    image = make_plate(version=version) / "A" / "1" / "0"
    before = {file: file.read_bytes() for file in image.rglob("*") if file.is_file()}
    path = check_writable(image / "labels" / "nuclei")
    assert write_labels(labels(), path, classes=("background", "cell"), colors=("#ff8000",), provenance={"model": "m"}) == path
    found = read_volume(path)
    assert (found.axes, found.units, found.spacing) == ("YX", ("micrometer",) * 2, {"Y": 0.5, "X": 0.5})
    assert (np.asarray(found.data) == 1).all()
    assert found.metadata["provenance"] == {"model": "m"}
    assert found.metadata["classes"] == ["background", "cell"]
    assert listed(image) == ["nuclei"]
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == (3 if version == "0.5" else 2)
    facts = dict(group.attrs)
    looks = facts["ome"] if version == "0.5" else facts
    assert looks["image-label"]["version"] == version
    assert looks["image-label"]["source"] == {"image": "../../"}
    assert looks["image-label"]["colors"][1] == {"label-value": 1, "rgba": [255, 128, 0, 255]}
    assert (facts["ome"] if version == "0.5" else looks["multiscales"][0])["version"] == version
    assert [axis["name"] for axis in looks["multiscales"][0]["axes"]] == ["y", "x"]
    assert {file: file.read_bytes() for file in before} == before, "the image itself was touched"
    assert sorted(entry.name for entry in (image / "labels").iterdir() if entry.name[0] != ".") == sorted(
        ["nuclei", *(["zarr.json"] if version == "0.5" else [])]
    )
    with pytest.raises(OutputError, match="there already"):
        write_labels(labels(), path)
    write_labels(labels(2), path, overwrite=True)
    assert (np.asarray(read_volume(path).data) == 2).all()
    assert listed(image) == ["nuclei"]


@versions
def test_labels_of_others_stay(make_plate: Callable[..., Path], version: str) -> None:
    image = make_plate(version=version) / "A" / "1" / "0"
    facts = {"labels": ["by-hand"], "mine": 1}
    group = zarr.open_group(image).create_group("labels")
    group.update_attributes({"ome": {"version": "0.5", **facts}, "more": 2} if version == "0.5" else facts)
    other = group.create_group("by-hand")
    other.update_attributes({"note": "drawn for a week"})
    write_labels(labels(), image / "labels" / "nuclei")
    assert listed(image) == ["by-hand", "nuclei"]
    after = dict(zarr.open_group(image / "labels", mode="r").attrs)
    assert (after["ome"] if version == "0.5" else after)["mine"] == 1
    assert dict(zarr.open_group(image / "labels" / "by-hand", mode="r").attrs) == {"note": "drawn for a week"}


WRITER = """
import sys
import numpy as np
from pathlib import Path
from napari_tileseg.io import write_labels
from napari_tileseg.volume import Volume
for name in sys.argv[2:]:
    write_labels(Volume(np.ones((8, 8), np.uint8), "YX"), Path(sys.argv[1]) / "labels" / name)
"""


@versions
def test_writers_side_by_side_lose_no_name(make_plate: Callable[..., Path], version: str) -> None:
    image = make_plate(version=version) / "A" / "1" / "0"
    names = [[f"{letter}{number}" for number in range(6)] for letter in "abc"]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(image), *mine]) for mine in names]
    assert [writer.wait(timeout=300) for writer in writers] == [0, 0, 0]
    assert sorted(listed(image)) == sorted(name for mine in names for name in mine)
    assert not [entry for entry in (image / "labels").iterdir() if entry.name.startswith(".") and entry.name[:2] != ".z"]


def test_what_a_killed_writer_left_is_no_hindrance(make_plate: Callable[..., Path]) -> None:
    image = make_plate() / "A" / "1" / "0"
    (image / "labels" / ".nuclei.unfinished").mkdir(parents=True)
    (image / "labels" / ".tileseg-lock").touch()
    write_labels(labels(), image / "labels" / "nuclei")
    assert listed(image) == ["nuclei"]
    assert sorted(entry.name for entry in (image / "labels").iterdir()) == ["nuclei", "zarr.json"]


@versions
def test_list_of_all_members_is_renewed(make_plate: Callable[..., Path], version: str, recwarn: pytest.WarningsRecorder) -> None:
    image = make_plate(version=version) / "A" / "1" / "0"
    zarr.consolidate_metadata(str(image))
    recwarn.clear()
    write_labels(labels(), image / "labels" / "nuclei")
    assert not recwarn
    assert "labels/nuclei/0" in zarr.open_group(image, mode="r")


@pytest.mark.parametrize(
    ("place", "sentence"),
    [("labels/.hidden", "cannot be called"), ("labels/taken", "no group of labels"), ("other/nuclei", "cannot be saved as")],
)
def test_places_that_are_none(make_plate: Callable[..., Path], place: str, sentence: str) -> None:
    image = make_plate() / "A" / "1" / "0"
    (image / "labels" / "taken").mkdir(parents=True)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=sentence):
            write_labels(labels(), image / place, overwrite=overwrite)
    with pytest.raises(OutputError, match=sentence):
        check_writable(image / place)


def test_journal_stands_beside_the_store(make_plate: Callable[..., Path]) -> None:
    path = make_plate()
    beside = folder_beside(path / "A" / "1" / "0" / "labels" / "nuclei")
    assert beside == path.with_name(".plate.ome.zarr.A.1.0.labels.nuclei.tileseg")


def test_segment_writes_into_the_store(make_plate: Callable[..., Path]) -> None:
    import torch

    from napari_tileseg.models.predictor import from_module
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.pipeline import segment

    class Bright(torch.nn.Module):
        def forward(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.cat([100 - batch, batch - 100], dim=1)

    facts: dict[str, Any] = {"name": "bright", "axes": "CYX", "channels": 1, "classes": ["background", "bright"], "window": (16, 16)}
    image = make_plate(version="0.4") / "B" / "2" / "1"
    result = segment(image, from_module(Bright(), ModelSpec(**facts), device="cpu"), out=image / "labels" / "bright")
    saved = read_volume(image / "labels" / "bright")
    np.testing.assert_array_equal(np.asarray(saved.data), np.asarray(result.labels))
    assert listed(image) == ["bright"]
    assert sorted(entry.name for entry in (image.parents[2]).parent.iterdir()) == ["plate.ome.zarr"]


def test_maps_stand_beside_the_labels_or_beside_their_store(make_plate: Callable[..., Path], tmp_path: Path) -> None:
    image = make_plate() / "A" / "1" / "0"
    assert scores_path(tmp_path / "a.nii.gz") == tmp_path / "a_scores.ome.tif"
    assert uncertainty_path(tmp_path / "a.nii.gz") == tmp_path / "a_uncertainty.nii.gz"
    assert uncertainty_path(tmp_path / "a.ome.zarr") == tmp_path / "a_uncertainty.ome.tif"
    assert scores_path(image / "labels" / "nuclei") == tmp_path / "plate_A_1_0_nuclei_scores.ome.tif"
