"""ImageJ TIFF: tifffile sees a calibrated hyperstack, and nothing is lost on the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_tileseg.errors import OutputError
from napari_tileseg.io import imagej, read_volume, write_labels
from napari_tileseg.io.order import ordered
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}


def stack(axes: str, highest: int) -> Volume:
    values = np.random.default_rng(2).integers(0, highest + 1, [SIZES[axis] for axis in axes])
    values.flat[0] = highest
    steps = {"T": (1.5, "second"), "C": (1.0, "pixel"), "Z": (2.5, "micrometer"), "Y": (0.5, "micrometer"), "X": (0.25, "micrometer")}
    return Volume.from_scale(
        values,
        axes,
        tuple(steps[axis][0] for axis in axes),
        translate=tuple({"Z": 5.0, "X": -2.0}.get(axis, 0.0) for axis in axes),
        units=tuple(steps[axis][1] for axis in axes),
        name="cells",
    )


@pytest.mark.parametrize("axes", ["YX", "XY", "ZYX", "TYX", "CYX", "TZYX", "CZYX", "TZCYX", "TCZYX"])
@pytest.mark.parametrize(("highest", "dtype"), [(255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "float32"), (2**24, "float32")])
def test_everything_comes_back(tmp_path: Path, axes: str, highest: int, dtype: str) -> None:
    given = stack(axes, highest)
    path = write_labels(given, tmp_path / "a.imagej.tif", classes=("background", "a"), colors=("#ff0000",), provenance={"model": "ü"})
    expected = ordered(given, "TZCYX")
    assert tifffile.imread(path).dtype == dtype
    for lazy in (False, True):
        found = read_volume(path, lazy=lazy)
        assert (found.axes, found.units, found.name) == (expected.axes, expected.units, "a")
        assert found.dtype.kind in "iu"
        np.testing.assert_array_equal(np.asarray(found.data), expected.data)
        np.testing.assert_allclose(found.affine, expected.affine)
        assert found.metadata["provenance"] == {"model": "ü"}
        assert (found.metadata["classes"], found.metadata["colors"]) == (["background", "a"], ["#ff0000"])


def test_other_programs_see_a_calibrated_hyperstack(tmp_path: Path) -> None:
    with tifffile.TiffFile(write_labels(stack("TZYX", 300), tmp_path / "a.imagej.tif")) as tif:
        meta = tif.imagej_metadata
        assert tif.is_imagej
        assert not tif.is_bigtiff
        assert tif.series[0].axes == "TZYX"
        assert tif.pages.first.compression == tifffile.COMPRESSION.NONE
        assert {
            key: meta[key] for key in ("frames", "slices", "hyperstack", "unit", "spacing", "finterval", "zorigin", "xorigin", "max")
        } == {
            "frames": 2,
            "slices": 4,
            "hyperstack": True,
            "unit": "um",
            "spacing": 2.5,
            "finterval": 1.5,
            "zorigin": -2.0,
            "xorigin": 8.0,
            "max": 300.0,
        }
        numerator, denominator = tif.pages.first.tags["XResolution"].value
        assert numerator / denominator == pytest.approx(4)


def test_masks_are_named_channels(tmp_path: Path) -> None:
    path = write_labels(stack("CYX", 1), tmp_path / "a.imagej.tif", classes=("nucleus", "cell", "membrane"))
    assert read_volume(path).channel_names == ("nucleus", "cell", "membrane")


@pytest.mark.parametrize("value", [2**24 + 1, -(2**24) - 1])
def test_what_imagej_cannot_count_is_refused(tmp_path: Path, value: int) -> None:
    with pytest.raises(OutputError, match="do not fit in ImageJ TIFF"):
        write_labels(Volume(np.array([[0, value]]), "YX"), tmp_path / "a.imagej.tif")
    assert not list(tmp_path.iterdir())


def test_four_gigabytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagej, "_MOST_BYTES", 100)
    with pytest.raises(OutputError, match="up to 4 GB"):
        write_labels(stack("ZYX", 3), tmp_path / "a.imagej.tif")


@pytest.mark.parametrize("note", ["{", "3", "{}", '{"axes": 3}', '{"axes": "YX"}'])
def test_notes_of_others_do_no_harm(tmp_path: Path, note: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 5), np.uint8), imagej=True, metadata={"Properties": {"napari-tileseg": note, "other": "x"}})
    assert "labels" not in read_volume(path).metadata


@pytest.mark.parametrize(("highest", "colored"), [(2, True), (255, True), (256, False)])
def test_few_labels_are_shown_in_their_colours(tmp_path: Path, highest: int, colored: bool) -> None:
    path = write_labels(stack("ZYX", highest), tmp_path / "a.imagej.tif", classes=("background", "a", "b"), colors=("#ff0000", "#0080ff"))
    with tifffile.TiffFile(path) as tif:
        np.testing.assert_array_equal(tif.asarray(), stack("ZYX", highest).data)
        assert (tif.pages.first.photometric == tifffile.PHOTOMETRIC.PALETTE) is colored
        if colored:
            assert tif.pages.first.colormap[:, 0].tolist() == [0, 0, 0]
            assert tif.imagej_metadata["max"] == 255, "a lookup table is stretched over what is shown"
        if highest == 2:
            assert (tif.pages.first.colormap[:, 1:3].T // 257).tolist() == [[255, 0, 0], [0, 128, 255]]
