"""Labels saved as a table: what is measured, in the unit of the image, by both ways of saving."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.errors import OutputError
from napari_tileseg.io import write_labels
from napari_tileseg.io.registry import check_axes, has_more_files
from napari_tileseg.pipeline import save_segmentation
from napari_tileseg.segmentation import Segmentation
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def result() -> Segmentation:
    image = np.zeros((2, 12, 14), np.uint16)
    labels = np.zeros((12, 14), np.int32)
    labels[1:4, 2:6], labels[6:9, 6:8] = 4, 7
    image[0][labels == 4], image[1][labels == 7] = 100, 50
    units = ("pixel", "micrometer", "micrometer")
    volume = Volume.from_scale(image, "CYX", (1, 0.5, 0.5), units=units, name="Zellen µ", channel_names=("dapi", "gfp"))
    return Segmentation(labels, "YX", volume, ("background", "nucleus"), ("#ff0000",), provenance={"model": "m"})


def test_a_row_for_each_object_with_its_intensities(tmp_path: Path) -> None:
    rows = rows_of(save_segmentation(result(), tmp_path / "a.csv"))
    assert [(row["image"], row["label"], row["class"], row["area [µm²]"]) for row in rows] == [
        ("Zellen µ", "4", "nucleus", "3"),
        ("Zellen µ", "7", "nucleus", "1.5"),
    ]
    assert [(row["mean dapi"], row["max gfp"]) for row in rows] == [("100", "0"), ("0", "50")]
    assert json.loads((tmp_path / "a.csv.json").read_text(encoding="utf-8"))["provenance"] == {"model": "m"}


def test_classes_have_their_own_names(tmp_path: Path) -> None:
    labels = Volume(np.array([[0, 1, 2, 2]], np.uint8), "YX")
    rows = rows_of(write_labels(labels, tmp_path / "a.csv", classes=("background", "gland", "tumour")))
    assert [(row["class"], row["pixels"]) for row in rows] == [("gland", "1"), ("tumour", "2")]
    assert not any(name.startswith("mean") for name in rows[0])


def test_no_object_is_a_header_alone(tmp_path: Path) -> None:
    path = write_labels(Volume(np.zeros((4, 5), np.uint8), "YX"), tmp_path / "a.csv", classes=("background", "cell"))
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1


def test_a_table_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="there already"):
        save_segmentation(result(), tmp_path / "a.csv")
    with pytest.raises(OutputError, match="whole numbers"):
        write_labels(Volume(np.zeros((4, 5)), "YX"), tmp_path / "a.csv", overwrite=True)
    assert [(item.name, item.read_text(encoding="utf-8")) for item in tmp_path.iterdir()] == [("a.csv", "mine")]


@pytest.mark.parametrize(
    ("name", "axes", "fits"), [("a.stl", "YX", False), ("a.stl", "XZY", True), ("a.png", "ZYX", False), ("a.tif", "T", True)]
)
def test_axes_that_a_format_cannot_hold_are_told_before_a_run(name: str, axes: str, fits: bool) -> None:
    if fits:
        check_axes(name, axes)
    else:
        with pytest.raises(OutputError, match=r"Save them as \.ome\.tif"):
            check_axes(name, axes)


def test_which_labels_are_several_files() -> None:
    names: dict[Any, bool] = {"a.csv": True, "a.STL": True, "a.mhd": True, "a.nhdr": True, "a.ome.tif": False, "a.unknown": False}
    assert {name: has_more_files(name) for name in names} == names
