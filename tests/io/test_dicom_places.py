"""DICOM beyond one file: what napari opens of a folder, and what a batch makes of one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import yaml

from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.listing import Listing, list_tasks
from napari_tileseg.batch.stamps import input_stamp
from napari_tileseg.errors import InputError
from napari_tileseg.io import formats, napari_hooks, read_volume, write_labels
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (5, 6, 7)


def voxels() -> Any:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)


def plain(data: Any, _: int) -> None:
    """Make a slice an X-ray, which has no place in the body."""
    data.Modality = "CR"
    del data.ImagePositionPatient, data.ImageOrientationPatient


def opened(*paths: Path) -> list[Any]:
    layers = []
    for path in paths:
        reader = napari_hooks.get_reader(str(path))
        assert reader is not None
        layers += reader(str(path))
    return [layer for layer in layers if layer[0] is not None]


@pytest.fixture(autouse=True)
def _nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(napari_hooks, "_opened", {})


def test_a_folder_opens_with_its_place(scan: Callable[..., Path]) -> None:
    ((data, meta, kind),) = opened(scan(voxels()))
    assert (kind, meta["name"], meta["units"]) == ("image", "scan", ("millimeter",) * 3)
    assert "affine" in meta
    assert np.asarray(data).size == voxels().size


def test_all_files_of_a_series_open_it_once(scan: Callable[..., Path]) -> None:
    files = sorted(scan(voxels()).iterdir())
    assert len(opened(*files)) == 1


def test_series_are_layers_and_a_damaged_one_is_named(scan: Callable[..., Path]) -> None:
    folder = scan(voxels())
    scan(voxels())
    assert [meta["name"] for _, meta, _ in opened(folder)] == ["scan 1", "scan 2"]
    scan(voxels(), places=[0, 1, 2, 3, 5])
    with pytest.warns(UserWarning, match="a slice is missing"):
        assert len(opened(folder)) == 2


def test_names_of_segments_are_kept_without_colours(tmp_path: Path) -> None:
    path = write_labels(Volume((voxels() % 3).astype(np.uint8), "ZYX"), tmp_path / "a.seg.nrrd", classes=("background", "liver", "vein"))
    ((_, meta, kind),) = opened(path)
    assert kind == "labels"
    assert meta["features"] == {"index": [0, 1, 2], "class": ["background", "liver", "vein"]}


def test_folders_without_dicom_are_left_to_others(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8))
    (tmp_path / "notes").write_text("x")
    assert napari_hooks.get_reader(str(tmp_path)) is None


def test_the_manifest_offers_what_the_registry_can() -> None:
    manifest = yaml.safe_load((Path(__file__).parents[2] / "napari.yaml").read_text(encoding="utf-8"))["contributions"]
    patterns = {pattern for reader in manifest["readers"] for pattern in reader["filename_patterns"]}
    assert {"*.nrrd", "*.nhdr", "*.mha", "*.mhd", "*.dcm"} <= patterns
    written = {suffix for writer in manifest["writers"] for suffix in writer["filename_extensions"]}
    assert {".nrrd", ".seg.nrrd", ".mha", ".dcm"} <= written
    assert written <= {suffix for item in formats() if item.writer for suffix in item.suffixes}
    assert {item.suffixes[0] for item in formats() if item.writer} - {".tif"} <= {*written, ".nii"}


# Batches


def test_files_that_hold_labels_only_are_no_images(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", np.zeros((40, 40), np.uint8))
    for name in ("a.geojson", "b.coco.json"):
        (folder / name).write_text("{}")
    found = listing(folder)
    assert [Path(task.input).name for task in found.tasks] == ["a.tif"]
    assert found.left_out == (("a.geojson", "it holds labels, no image"), ("b.coco.json", "it holds labels, no image"))


def listing(folder: Path, **more: Any) -> Listing:
    return list_tasks(BatchJob(models=("nuclei-2d",), inputs=(str(folder),), output=str(folder.parent / "out"), **more))


def outputs(found: Listing, folder: Path) -> list[str]:
    return [Path(task.output).relative_to(folder.parent / "out").as_posix() for task in found.tasks]


def test_a_series_is_one_image(scan: Callable[..., Path]) -> None:
    folder = scan(voxels())
    found = listing(folder)
    assert outputs(found, folder) == ["scan.nii.gz"]
    assert found.size == sum(file.stat().st_size for file in folder.iterdir())
    np.testing.assert_array_equal(read_volume(found.tasks[0].input, series=found.tasks[0].series).data, voxels())
    assert outputs(listing(folder, format=".dcm"), folder) == ["scan.dcm"]


def test_all_that_lies_in_a_folder_is_done(scan: Callable[..., Path], tmp_path: Path) -> None:
    folder = scan(voxels())
    scan(voxels()[:2], change=plain)
    tifffile.imwrite(folder / "cells.tif", np.zeros((4, 4), np.uint8))
    names = sorted(file.stem for file in folder.iterdir() if "position" not in file.name)
    found = listing(folder)
    assert len(found.tasks) == 4
    assert set(outputs(found, folder)) - {f"{name}.nii.gz" for name in names} == {"scan.nii.gz", "cells.ome.tif"}
    shapes = sorted(read_volume(task.input, series=task.series).shape for task in found.tasks)
    assert shapes == [(4, 4), (5, 6, 7), (6, 7), (6, 7)]


def test_several_series_have_numbers(scan: Callable[..., Path]) -> None:
    folder = scan(voxels())
    scan(voxels()[:3])
    found = listing(folder)
    assert outputs(found, folder) == ["scan_0.nii.gz", "scan_1.nii.gz"]
    assert sorted(read_volume(task.input, series=task.series).shape[0] for task in found.tasks) == [3, 5]


def test_patients_in_folders_of_their_own(scan: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for patient in ("a", "b"):
        shutil.move(scan(voxels(), patient), tmp_path / "all" / patient)
    assert outputs(listing(tmp_path / "all", recursive=True), tmp_path / "all") == ["a.nii.gz", "b.nii.gz"]
    assert outputs(listing(tmp_path / "all", recursive=True, pattern=("*.dcm",)), tmp_path / "all") == ["a.nii.gz", "b.nii.gz"]
    with pytest.raises(InputError, match="There is no image"):
        listing(tmp_path / "all", recursive=True, pattern=("*.tif",))


def test_results_beside_the_slices_change_no_stamp(scan: Callable[..., Path]) -> None:
    folder = scan(voxels())
    before = input_stamp(folder), read_volume(folder).metadata["stamp"]
    (folder / "out").mkdir()
    (folder / "out" / "scan.nii.gz").write_bytes(b"x")
    assert (input_stamp(folder), read_volume(folder).metadata["stamp"]) == before
    next(folder.glob("*.dcm")).unlink()
    assert input_stamp(folder) != before[0]
