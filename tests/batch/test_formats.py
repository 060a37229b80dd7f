"""Results in every format that labels can be saved in, also those of several files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.batch import place as place_module
from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.run import run_batch
from napari_tileseg.errors import OptionsError
from napari_tileseg.io import read_volume
from napari_tileseg.io.registry import label_suffixes, parts_of
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from pathlib import Path


class CutOff(BaseException):
    """Stands for the end of the process: nothing may catch it."""


def job_in(suffix: str, images: list[Path], model: str, tmp_path: Path, **more: Any) -> BatchJob:
    chosen = tuple(str(path) for path in images[:2])
    return BatchJob(models=(model,), inputs=chosen, output=str(tmp_path / "out"), format=suffix, report=False, **more)


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr", ".csv", ".nii", ".imagej.tif"])
def test_files_that_belong_together_come_together(suffix: str, images: list[Path], classes_model: str, tmp_path: Path) -> None:
    if suffix == ".mhd":
        pytest.importorskip("SimpleITK")
    job = job_in(suffix, images, classes_model, tmp_path)
    first = run_batch(job)
    assert (first.done, first.failed) == (2, 0), first.rows
    parts = [part for path in images[:2] for part in parts_of(tmp_path / "out" / f"{path.stem}{suffix}")]
    assert {path for path in (tmp_path / "out").iterdir() if path.name != ".tileseg"} == set(parts)
    if suffix != ".csv":
        for path in images[:2]:
            found = read_volume(tmp_path / "out" / f"{path.stem}{suffix}")
            np.testing.assert_array_equal(np.asarray(found.data), segment(path, classes_model).labels)
    assert run_batch(job).before == 2
    whole = {part: part.read_bytes() for part in parts}
    parts[-1].unlink()
    assert run_batch(job).before == 1
    assert {part: part.read_bytes() for part in parts} == whole
    parts[-1].write_bytes(b"other")
    assert run_batch(job).before == 1
    assert {part: part.read_bytes() for part in parts} == whole


@pytest.mark.parametrize("moved", [0, 1])
def test_a_pair_that_was_cut_off_between_its_files_is_completed(
    moved: int, images: list[Path], classes_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, count = job_in(".nhdr", images[:1], classes_model, tmp_path), 0
    take_place = place_module.take_place

    def cut_off(staged: Path, output: Path) -> None:
        nonlocal count
        if count == moved:
            raise CutOff
        count += 1
        take_place(staged, output)

    monkeypatch.setattr(place_module, "take_place", cut_off)
    with pytest.raises(CutOff):
        run_batch(job)
    monkeypatch.setattr(place_module, "take_place", take_place)
    assert not (tmp_path / "out" / f"{images[0].stem}.nhdr").exists()
    assert run_batch(job).done == 1
    found = read_volume(tmp_path / "out" / f"{images[0].stem}.nhdr")
    np.testing.assert_array_equal(np.asarray(found.data), segment(images[0], classes_model).labels)


def test_voxels_of_somebody_else_are_not_replaced(images: list[Path], classes_model: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    theirs = tmp_path / "out" / f"{images[0].stem}.raw.gz"
    theirs.write_bytes(b"mine")
    report = run_batch(job_in(".nhdr", images, classes_model, tmp_path))
    assert (report.done, report.failed) == (1, 1)
    assert "is no part of" in next(row.message for row in report.rows if row.state == "failed")
    assert theirs.read_bytes() == b"mine"


def test_what_a_format_cannot_hold_is_said_before_it_is_computed(images: list[Path], classes_model: str, tmp_path: Path) -> None:
    for suffix, reason in ((".stl", "axes ZYX"), (".dcm", "DICOM series")):
        report = run_batch(job_in(suffix, images, classes_model, tmp_path / suffix[1:]))
        assert report.failed == 2
        assert reason in report.rows[0].message


def test_a_table_never_takes_the_name_of_the_report(images: list[Path], classes_model: str, tmp_path: Path) -> None:
    named = images[0].rename(images[0].with_name("report.tif"))
    job = BatchJob(models=(classes_model,), inputs=(str(named),), output=str(tmp_path / "out"), format=".csv")
    assert run_batch(job).done == 1
    tables = {path.name for path in (tmp_path / "out").glob("*.csv")}
    assert "report.csv" in tables
    assert len(tables) == 2


def test_formats_are_those_of_the_registry() -> None:
    assert {".mhd", ".nhdr", ".imagej.tif", ".csv", ".stl", ".ome.zarr"} <= label_suffixes().keys()
    assert ".jpg" not in label_suffixes()
    with pytest.raises(OptionsError, match=r"must be auto or one of .*\.nhdr"):
        BatchJob.parse(models=("m",), inputs=("a",), output="b", format=".jpg")
