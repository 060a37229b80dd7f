"""DICOM segmentations: highdicom and pydicom read them on the planes of their series, and they say no more than they must."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import highdicom
import numpy as np
import pydicom
import pytest

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io import check_fits, read_volume, write_labels
from napari_tileseg.io.napari_hooks import layer_data, layer_volume
from napari_tileseg.segmentation import label_volume
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHAPE = (6, 9, 10)
PROVENANCE = {"model": {"name": "hippocampus-3d", "version": "2"}, "input": {"name": "Jane Doe"}}
NAMES, COLORS = ("background", "anterior", "posterior"), ("#ff0000", "#0080ff")


def voxels() -> Any:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)


def phantom(most: int = 3) -> Any:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:6, 3:5], labels[3:, 7, 8:] = 1, 2
    return labels if most == 3 else np.arange(np.prod(SHAPE)).reshape(SHAPE) % most


def test_labels_lie_on_the_slices_of_their_series(scan: Callable[..., Path], tmp_path: Path) -> None:
    folder = scan(voxels())
    image = read_volume(folder)
    path = write_labels(label_volume(phantom(), "ZYX", image), tmp_path / "a.dcm", classes=NAMES, colors=COLORS, provenance=PROVENANCE)
    found = highdicom.seg.segread(path)
    for file in folder.iterdir():
        source = pydicom.dcmread(file)
        plane = int(np.flatnonzero((voxels() == source.pixel_array).all((1, 2)))[0])
        masks = found.get_pixels_by_source_instance(
            [source.SOPInstanceUID], ignore_spatial_locations=True, assert_missing_frames_are_empty=True
        )
        np.testing.assert_array_equal(masks[0, ..., 0], phantom()[plane] == 1)
        np.testing.assert_array_equal(masks[0, ..., 1], phantom()[plane] == 2)
    again = read_volume(path)
    np.testing.assert_array_equal(again.data, phantom())
    np.testing.assert_allclose(again.affine, image.affine, atol=1e-5)
    assert (again.units, again.metadata["classes"], again.metadata["colors"]) == (("millimeter",) * 3, list(NAMES), list(COLORS))
    assert again.metadata["labels"] is True


def test_it_says_what_the_standard_demands_and_no_more(scan: Callable[..., Path], tmp_path: Path) -> None:
    image = read_volume(scan(voxels()))
    path = write_labels(label_volume(phantom(), "ZYX", image), tmp_path / "a.dcm", classes=NAMES, provenance=PROVENANCE)
    found = pydicom.dcmread(path)
    assert (str(found.PatientName), found.PatientID, found.Modality) == ("Doe^Jane", "4711", "SEG")
    assert "PatientWeight" not in found
    assert "StudyDescription" not in found
    segment = found.SegmentSequence[0]
    assert (segment.SegmentLabel, segment.SegmentAlgorithmType) == ("anterior", "AUTOMATIC")
    assert segment.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "hippocampus-3d"
    assert str(tmp_path) not in str(found)


def test_equal_labels_have_equal_identifiers(scan: Callable[..., Path], tmp_path: Path) -> None:
    labels = label_volume(phantom(), "ZYX", read_volume(scan(voxels())))
    files = [pydicom.dcmread(write_labels(labels, tmp_path / f"{name}.dcm", classes=NAMES)) for name in "ab"]
    assert files[0].SOPInstanceUID == files[1].SOPInstanceUID
    other = label_volume(phantom() * 2, "ZYX", read_volume(tmp_path / "scan"))
    assert pydicom.dcmread(write_labels(other, tmp_path / "c.dcm", classes=NAMES)).SOPInstanceUID != files[0].SOPInstanceUID


def test_frames_of_one_file(enhanced: Callable[..., Path], tmp_path: Path) -> None:
    image = read_volume(enhanced(voxels().astype(np.uint16)))
    found = read_volume(write_labels(label_volume(phantom(), "ZYX", image), tmp_path / "a.dcm", classes=NAMES))
    np.testing.assert_array_equal(found.data, phantom())
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)


def test_masks_that_overlap(scan: Callable[..., Path], tmp_path: Path) -> None:
    masks = np.stack([phantom() > 0, phantom() > 1]).astype(np.uint8)
    image = read_volume(scan(voxels()))
    found = read_volume(write_labels(label_volume(masks, "CZYX", image), tmp_path / "a.dcm", classes=NAMES[1:], colors=COLORS))
    assert (found.axes, found.metadata["classes"], found.metadata["colors"]) == ("CZYX", list(NAMES[1:]), list(COLORS))
    np.testing.assert_array_equal(found.data, masks)


def test_many_objects_are_one_map(scan: Callable[..., Path], tmp_path: Path) -> None:
    objects = phantom(most=101)
    image = read_volume(scan(voxels()))
    path = write_labels(label_volume(objects, "ZYX", image), tmp_path / "a.dcm", classes=("background", "cell"))
    assert pydicom.dcmread(path).SegmentationType == "LABELMAP"
    np.testing.assert_array_equal(read_volume(path).data, objects)


def test_labels_of_the_viewer(scan: Callable[..., Path], tmp_path: Path) -> None:
    def sagittal(data: Any, index: int) -> None:
        data.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        data.ImagePositionPatient = [5 + 2.5 * index, -3, 8]

    image = read_volume(scan(voxels(), change=sagittal))
    ((shown, meta, _),) = layer_data(image)
    assert np.asarray(shown).shape != SHAPE
    volume = layer_volume((np.asarray(shown) % 3).astype(np.uint8), meta)
    found = read_volume(write_labels(volume, tmp_path / "a.dcm"))
    np.testing.assert_array_equal(found.data, np.asarray(image.data) % 3)
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)


# What cannot be written


def refusal(labels: Volume, path: Path) -> str:
    before = sorted(path.parent.iterdir())
    with pytest.raises(OutputError) as caught:
        write_labels(labels, path)
    assert sorted(path.parent.iterdir()) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_labels_of_no_series(tmp_path: Path) -> None:
    assert "were not made from one" in refusal(Volume(phantom(), "ZYX"), tmp_path / "a.dcm")


def test_what_cannot_be_saved_is_said_before_the_run(scan: Callable[..., Path], tmp_path: Path) -> None:
    flat, image = Volume(voxels(), "ZYX"), read_volume(scan(voxels()))
    with pytest.raises(OutputError, match="were not made from one"):
        check_fits("a.dcm", flat)
    with pytest.raises(OutputError, match="holds one moment"):
        check_fits("a.seg.nrrd", Volume(voxels(), "TYX"))
    with pytest.raises(OutputError, match="sheared"):
        check_fits("a.mha", read_volume(scan(voxels(), "tilted", tilt=(0.8, 0.0, 0.0))))
    for name in ("a.dcm", "a.mha", "a.seg.nrrd", "a.ome.tif"):
        check_fits(name, image)


def test_a_series_that_is_gone(scan: Callable[..., Path], tmp_path: Path) -> None:
    folder = scan(voxels())
    labels = label_volume(phantom(), "ZYX", read_volume(folder))
    shutil.rmtree(folder)
    assert "cannot be read any more" in refusal(labels, tmp_path / "a.dcm")


def test_labels_that_do_not_fit(scan: Callable[..., Path], tmp_path: Path) -> None:
    image = read_volume(scan(voxels()))
    assert "up to 70000 do not fit" in refusal(label_volume(phantom().astype(np.int32) * 35_000, "ZYX", image), tmp_path / "a.dcm")
    assert "some of these are negative" in refusal(label_volume(-phantom().astype(np.int8), "ZYX", image), tmp_path / "a.dcm")
    assert "float64" in refusal(label_volume(phantom() / 2, "ZYX", image), tmp_path / "a.dcm")
    assert "labels are empty" in refusal(label_volume(phantom() * 0, "ZYX", image), tmp_path / "a.dcm")


def test_a_tilted_scanner(scan: Callable[..., Path], tmp_path: Path) -> None:
    image = read_volume(scan(voxels(), tilt=(0.8, 0.0, 0.0)))
    assert "sheared" in refusal(label_volume(phantom(), "ZYX", image), tmp_path / "a.dcm")


def test_the_library_is_named_where_it_is_missing(scan: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = label_volume(phantom(), "ZYX", read_volume(scan(voxels())))
    path = write_labels(labels, tmp_path / "a.dcm", classes=NAMES)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert 'pip install "napari-tileseg[medical]"' in refusal(labels, tmp_path / "b.dcm")
    with pytest.raises(InputError, match="needs highdicom"):
        read_volume(path)


def test_how_it_was_made_stands_beside_it(scan: Callable[..., Path], tmp_path: Path) -> None:
    from napari_tileseg.replay import read_provenance

    told = {**PROVENANCE, "options": {"overlap": 0.25}}
    path = write_labels(label_volume(phantom(), "ZYX", read_volume(scan(voxels()))), tmp_path / "a.dcm", classes=NAMES, provenance=told)
    assert read_volume(path).metadata["provenance"] == told
    assert read_provenance(path) == told
    beside = tmp_path / "a.dcm.json"
    with pytest.raises(OutputError, match=r"a\.dcm"):
        write_labels(label_volume(phantom(), "ZYX", read_volume(tmp_path / "scan")), path, classes=NAMES)
    beside.write_text("{no json", encoding="utf-8")
    assert "provenance" not in read_volume(path).metadata
    beside.write_text('{"file": "b.dcm", "provenance": {"model": {}}}', encoding="utf-8")
    assert "provenance" not in read_volume(path).metadata, "it is that of another file"
