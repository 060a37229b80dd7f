"""Label files: no value, place, unit or note is lost on the way to the disk and back, and nothing half-written is left."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_tileseg.errors import OutputError
from napari_tileseg.io import check_writable, read_volume, write_labels, write_scores, write_uncertainty
from napari_tileseg.io import tiff_labels as tiff_labels_module
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.order import nearest_order, ordered, reindexed
from napari_tileseg.volume import Volume

AXES = ["YX", "ZYX", "TYX", "CYX", "TZYX", "CZYX", "CTYX", "TCZYX", "CTZYX", "YXT", "XY"]
SIZES = {"T": 2, "C": 3, "Z": 4, "Y": 5, "X": 6}
INTEGERS = ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
PROVENANCE = {"model": {"name": "nuclei-2d"}, "input": {"name": "Zellen <µ> & {co}"}, "options": {"overlap": 0.5}}


def labels(axes: str, dtype: str = "int32", largest: int = 300, **kwargs: Any) -> Volume:
    shape = tuple(kwargs.pop("sizes", SIZES)[axis] for axis in axes)
    values = np.random.default_rng(3).integers(0, min(largest, 1 if dtype == "bool" else np.iinfo(dtype).max) + 1, shape)
    scale = tuple({"T": 2.0, "C": 1.0, "Z": 2.5, "Y": 0.5, "X": 0.25}[axis] for axis in axes)
    units = tuple({"T": "second", "C": "pixel"}.get(axis, "micrometer") for axis in axes)
    return Volume.from_scale(values.astype(dtype), axes, scale, units=units, name="cells", **kwargs)


def assert_same(found: Volume, expected: Volume, order: str) -> None:
    expected = ordered(expected, order)
    assert found.axes == expected.axes
    np.testing.assert_array_equal(np.asarray(found.data), np.asarray(expected.data))
    np.testing.assert_allclose(found.affine, expected.affine)
    assert found.units == expected.units


TYPES_AND_AXES = [*((dtype, "ZYX") for dtype in INTEGERS), *(("int32", axes) for axes in AXES)]


@pytest.mark.parametrize(("dtype", "axes"), TYPES_AND_AXES)
def test_ome_tiff_round_trip(tmp_path: Path, axes: str, dtype: str) -> None:
    given_labels = labels(axes, dtype)
    path = write_labels(
        given_labels, tmp_path / "a.ome.tif", classes=("background", "a", "b"), colors=("#ff0000", "#00ff00"), provenance=PROVENANCE
    )
    found = read_volume(path)
    assert_same(found, given_labels, "TCZYX")
    assert found.metadata["provenance"] == PROVENANCE
    assert found.metadata["classes"] == ["background", "a", "b"]
    assert found.metadata["colors"] == ["#ff0000", "#00ff00"]
    assert found.metadata["labels"] is True


@pytest.mark.parametrize(("dtype", "axes"), TYPES_AND_AXES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_round_trip(tmp_path: Path, axes: str, dtype: str, suffix: str) -> None:
    given_labels = labels(axes, dtype)
    path = write_labels(given_labels, tmp_path / f"a{suffix}", classes=("background", "a"), provenance=PROVENANCE)
    found = read_volume(path)
    assert_same(found, given_labels, "CTZYX")
    assert found.metadata["provenance"] == PROVENANCE


@settings(max_examples=40)
@given(low=st.integers(-(2**63), 0), high=st.integers(0, 2**64 - 1))
def test_no_value_is_ever_lost(tmp_path_factory: pytest.TempPathFactory, low: int, high: int) -> None:
    dtype = np.uint64 if low == 0 else np.int64
    volume = Volume(np.array([[low, 0, min(high, int(np.iinfo(dtype).max))]], dtype), "YX")
    folder = tmp_path_factory.mktemp("values")
    for suffix in (".ome.tif", ".nii", ".png"):
        path = folder / f"a{suffix}"
        try:
            write_labels(volume, path)
        except OutputError as error:
            assert "do not fit" in str(error)
            assert not path.exists()
            assert suffix != ".nii"
        else:
            np.testing.assert_array_equal(np.asarray(read_volume(path).data), volume.data)


@pytest.mark.parametrize(
    ("largest", "expected"), [(0, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "uint32"), (2**32 - 1, "uint32")]
)
def test_the_smallest_type_is_written(tmp_path: Path, largest: int, expected: str) -> None:
    volume = Volume(np.array([[0, largest]], np.int64), "YX")
    assert tifffile.imread(write_labels(volume, tmp_path / "a.ome.tif")).dtype == expected
    assert nibabel.load(write_labels(volume, tmp_path / "a.nii")).get_data_dtype() == expected


def test_other_programs_find_the_spacing_in_the_ome_tiff(tmp_path: Path) -> None:
    volume = labels("TZYX")
    path = write_labels(volume, tmp_path / "a.ome.tif", provenance=PROVENANCE)
    with tifffile.TiffFile(path) as tif:
        assert tif.is_ome
        assert tif.series[0].axes == "TZYX"
        np.testing.assert_array_equal(tif.asarray(), volume.data)
        pixels = tifffile.xml2dict(tif.ome_metadata)["OME"]["Image"]["Pixels"]
        assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (0.25, "µm")
        assert (pixels["PhysicalSizeZ"], pixels["TimeIncrement"], pixels["TimeIncrementUnit"]) == (2.5, 2.0, "s")
        page = tif.pages.first
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
        assert page.resolution == pytest.approx((40000, 20000))


def test_overlapping_classes_are_named_channels(tmp_path: Path) -> None:
    path = write_labels(labels("CYX"), tmp_path / "a.ome.tif", classes=("nucleus", "cell", "membrane"))
    assert read_volume(path).channel_names == ("nucleus", "cell", "membrane")


def test_a_large_plane_is_tiled_and_read_from_a_lazy_array(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 70000, (2, 1100, 1030)).astype(np.int32)
    rows: list[int] = []

    def read(box: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        rows.append((box[0].stop - box[0].start) * (box[1].stop - box[1].start))
        return image[box]

    path = write_labels(Volume(LazyArray(image.shape, image.dtype, read), "ZYX"), tmp_path / "a.ome.tif")
    with tifffile.TiffFile(path) as tif:
        assert tif.pages.first.tile == (256, 256)
        np.testing.assert_array_equal(tif.asarray(), image)
    assert max(rows) <= 2 * 1100
    assert_same(read_volume(path), Volume(image, "ZYX"), "TCZYX")


def test_bigtiff_where_four_gigabytes_are_not_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tifffile.TiffFile(write_labels(labels("ZYX"), tmp_path / "a.tif")) as tif:
        assert not tif.is_bigtiff
    monkeypatch.setattr(tiff_labels_module, "_CLASSIC_BYTES", 100)
    with tifffile.TiffFile(write_labels(labels("ZYX"), tmp_path / "b.tif")) as tif:
        assert tif.is_bigtiff
    assert_same(read_volume(tmp_path / "b.tif"), labels("ZYX"), "TCZYX")


def test_a_turned_grid_comes_back_from_ome_tiff(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0] * [2.0, 0.5, 0.5]
    affine[:3, 3] = (10, -20, 30)
    volume = Volume(labels("ZYX").data, "ZYX", affine, ("millimeter",) * 3)
    found = read_volume(write_labels(volume, tmp_path / "a.ome.tif"))
    np.testing.assert_allclose(found.affine, affine)


def test_axes_of_length_one_come_back(tmp_path: Path) -> None:
    volume = labels("TZYX", sizes={"T": 1, "Z": 1, "Y": 5, "X": 1})
    for suffix in (".ome.tif", ".nii.gz"):
        assert_same(read_volume(write_labels(volume, tmp_path / f"a{suffix}")), volume, "TZYX")


FILES = [".ome.tif", ".imagej.tif", ".nii.gz", ".png", ".geojson", ".coco.json"]


@pytest.mark.parametrize("suffix", FILES)
def test_equal_labels_give_equal_files(tmp_path: Path, suffix: str) -> None:
    first = write_labels(labels("YX"), tmp_path / f"a{suffix}", provenance=PROVENANCE)
    second = write_labels(labels("YX"), tmp_path / f"b{suffix}", provenance=PROVENANCE)
    assert first.read_bytes() == second.read_bytes()
    other = write_labels(labels("YX"), tmp_path / f"c{suffix}", provenance={"model": "another"})
    assert first.read_bytes() != other.read_bytes()


@pytest.mark.parametrize(("largest", "mode"), [(200, "P"), (60000, "I;16")])
def test_png_round_trip(tmp_path: Path, largest: int, mode: str) -> None:
    volume = labels("YX", largest=largest)
    path = write_labels(volume, tmp_path / "a.png", classes=("background", "a"), provenance=PROVENANCE)
    with Image.open(path) as image:
        assert image.mode == mode
    for lazy in (False, True):
        found = read_volume(path, lazy=lazy)
        assert_same(found, volume, "YX")
        assert (found.metadata["provenance"], found.metadata["classes"]) == (PROVENANCE, ["background", "a"])


def test_png_holds_one_plane(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"PNG holds labels with the axes YX, and these have ZYX\..*\.ome\.tif"):
        write_labels(labels("ZYX"), tmp_path / "a.png")


def test_scores_keep_names_and_spacing(tmp_path: Path) -> None:
    scores = np.random.default_rng(0).normal(size=(2, 5, 6)).astype(np.float32)
    image = labels("YXC", sizes=SIZES | {"C": 3})
    path = write_scores(scores, image, ["background", "cell"], tmp_path / "a.ome.tif", provenance=PROVENANCE)
    found = read_volume(path)
    np.testing.assert_array_equal(found.data, scores)
    assert (found.axes, found.channel_names, found.spacing["X"]) == ("CYX", ("background", "cell"), 0.25)
    with pytest.raises(OutputError, match="OME-TIFF"):
        write_scores(scores, image, ["background", "cell"], tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.ome.tif", "a.nii.gz"])
def test_uncertainty_keeps_values_and_spacing(tmp_path: Path, name: str) -> None:
    values = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    image = labels("ZYX", sizes=SIZES | {"Z": 4})
    found = read_volume(write_uncertainty(values, image, tmp_path / name, provenance=PROVENANCE))
    np.testing.assert_array_equal(np.asarray(found.data[...]), values)
    assert (found.axes, found.dtype) == ("ZYX", np.float32)
    assert found.spacing == pytest.approx(image.spacing)
    with pytest.raises(OutputError, match="NIfTI"):
        write_uncertainty(values, image, tmp_path / "a.png")


# Orders of axes


@given(order=st.permutations(range(3)), flips=st.tuples(*[st.sampled_from([-1, 1])] * 3), tilt=st.floats(-0.3, 0.3))
def test_a_turned_grid_is_put_upright_without_moving_a_voxel(order: list[int], flips: tuple[int, ...], tilt: float) -> None:
    turn = np.array([[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]])
    affine = np.eye(5)
    affine[1:4, 1:4] = turn @ np.diag(flips) @ np.eye(3)[:, order]
    affine[1:4, 4] = (5, 6, 7)
    data = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    volume = Volume(data, "TZYX", affine)
    places = nearest_order(volume)
    upright = reindexed(volume, places)
    assert nearest_order(upright) == (0, 1, 2, 3)
    assert np.argmax(np.abs(upright.affine[:4, :4]), axis=0).tolist() == [0, 1, 2, 3]
    for index in [(0, 0, 0, 0), (1, 2, 3, 4), (1, 0, 2, 1)]:
        moved = [index[place] for place in places]
        assert upright.data[tuple(moved)] == data[index]
        np.testing.assert_allclose(upright.affine @ [*moved, 1], affine @ [*index, 1])


# Places that cannot be written to


def nothing_left(folder: Path, *names: str) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    path.write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        write_labels(labels("YX"), path)
    assert path.read_text() == "mine"
    write_labels(labels("YX"), path, overwrite=True)
    assert_same(read_volume(path), labels("YX"), "YX")
    nothing_left(tmp_path, "a.ome.tif")


@pytest.mark.parametrize("suffix", FILES)
@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "open in another program"),
        (errno.EIO, "could not be written"),
    ],
)
def test_a_disk_that_refuses_keeps_the_old_file(
    tmp_path: Path, suffix: str, number: int, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_labels(labels("YX"), tmp_path / f"a{suffix}")
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match=sentence):
        write_labels(labels("YX", largest=1), path, overwrite=True)
    assert path.read_bytes() == before
    nothing_left(tmp_path, path.name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count: "temporary")
    (tmp_path / ".temporary.a.ome.tif").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="disk is full"):
        write_labels(labels("YX"), tmp_path / "a.ome.tif")
    nothing_left(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        check_writable(tmp_path / "no" / "a.ome.tif")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.ome.tif").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path / "a.ome.tif", overwrite=True)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the administrator may write everywhere")
def test_a_closed_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Nothing may be written"):
            check_writable(tmp_path / "a.ome.tif")
    finally:
        tmp_path.chmod(0o700)


def test_an_unknown_suffix_names_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"OME-TIFF \(\.ome\.tif\).*NIfTI.*PNG"):
        check_writable(tmp_path / "a.xyz")
    with pytest.raises(OutputError, match="cannot be saved"):
        check_writable(tmp_path / "a.jpg")


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="whole numbers"):
        write_labels(Volume(np.zeros((3, 3)), "YX"), tmp_path / "a.ome.tif")
    nothing_left(tmp_path)


def test_the_note_is_plain_json(tmp_path: Path) -> None:
    path = write_labels(labels("YX"), tmp_path / "a.ome.tif", provenance=PROVENANCE)
    with tifffile.TiffFile(path) as tif:
        note = tifffile.xml2dict(tif.ome_metadata)["OME"]["StructuredAnnotations"]["MapAnnotation"]
    entries = {entry["K"]: entry["value"] for entry in note["Value"]["M"]}
    assert json.loads(entries["provenance"]) == PROVENANCE
