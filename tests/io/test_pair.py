"""A header and its voxels apart: both are new, or both are as they were, and nobody else's file is replaced."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io import check_writable, read_volume, write_labels
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

PAIRS = {".mhd": ".raw", ".nhdr": ".raw.gz"}
every_pair = pytest.mark.parametrize("suffix", PAIRS)


def labels(value: int = 3) -> Volume:
    values = np.zeros((4, 5, 6), np.uint16)
    values[1:3, 2:4, 1:5] = value
    return Volume.from_scale(values, "ZYX", (2.5, 0.5, 0.25), translate=(7, -3, 1.5), units=("millimeter",) * 3)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


@every_pair
@pytest.mark.parametrize("stem", ["cells", "Zellen µ 細胞", "a.b c"])
def test_two_files_that_name_each_other(tmp_path: Path, suffix: str, stem: str) -> None:
    path = write_labels(labels(), tmp_path / f"{stem}{suffix}", provenance={"model": "m"})
    assert names(tmp_path) == sorted([path.name, f"{stem}{PAIRS[suffix]}"])
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for item in list(tmp_path.glob("*.*")):
        item.rename(moved / item.name)
    found = read_volume(moved / path.name)
    np.testing.assert_array_equal(found.data, labels().data)
    assert found.metadata["provenance"] == {"model": "m"}


@every_pair
def test_other_readers(tmp_path: Path, suffix: str) -> None:
    path = write_labels(labels(), tmp_path / f"a{suffix}", provenance={"model": "µ"})
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), labels().data)
    assert (image.GetSpacing(), image.GetOrigin()) == ((0.25, 0.5, 2.5), (1.5, -3.0, 7.0))
    if suffix == ".nhdr":
        values, header = nrrd.read(str(path))
        np.testing.assert_array_equal(values.T, labels().data)
        assert header["data file"] == "a.raw.gz"
    else:
        assert np.fromfile(tmp_path / "a.raw", "u1").reshape(4, 5, 6).tolist() == np.asarray(labels().data).tolist()


@every_pair
def test_what_is_there_is_kept_until_it_may_be_replaced(tmp_path: Path, suffix: str) -> None:
    path = write_labels(labels(3), tmp_path / f"a{suffix}")
    for refused in (lambda: write_labels(labels(4), path), lambda: check_writable(path, overwrite=False)):
        with pytest.raises(OutputError, match="is there already"):
            refused()
    assert read_volume(path).data.max() == 3
    write_labels(labels(4), path, overwrite=True)
    assert read_volume(path).data.max() == 4
    assert len(names(tmp_path)) == 2


@every_pair
def test_voxels_of_another_image_are_never_replaced(tmp_path: Path, suffix: str) -> None:
    scan = tmp_path / f"scan{PAIRS[suffix]}"
    scan.write_bytes(b"an image")
    (tmp_path / "scan.other").write_text(f"ElementDataFile = {scan.name}")
    for refused in (
        lambda: write_labels(labels(), tmp_path / f"scan{suffix}", overwrite=True),
        lambda: check_writable(tmp_path / f"scan{suffix}", overwrite=True),
    ):
        with pytest.raises(OutputError, match="no part of"):
            refused()
    assert scan.read_bytes() == b"an image"
    assert names(tmp_path) == sorted(["scan.other", scan.name])


@every_pair
@pytest.mark.parametrize("step", range(4))
def test_a_disk_that_refuses_keeps_both_old_files(tmp_path: Path, suffix: str, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_labels(labels(3), tmp_path / f"a{suffix}")
    before = {item.name: item.read_bytes() for item in tmp_path.iterdir()}
    replace, calls = os.replace, []

    def refuse(*places: Any) -> None:
        calls.append(places)
        if len(calls) == step + 1:
            raise OSError(5, os.strerror(5))
        replace(*places)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match="could not be written"):
        write_labels(labels(4), path, overwrite=True)
    monkeypatch.undo()
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == before


@every_pair
def test_at_no_moment_does_a_header_stand_with_the_voxels_of_the_other(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_labels(labels(3), tmp_path / f"a{suffix}")
    replace, seen = os.replace, []

    def watch(*places: Any) -> None:
        replace(*places)
        seen.append(int(read_volume(path).data.max()) if path.exists() else None)

    monkeypatch.setattr(os, "replace", watch)
    write_labels(labels(4), path, overwrite=True)
    assert seen == [None, None, None, 4]


@every_pair
def test_voxels_that_are_cut_off_or_gone(tmp_path: Path, suffix: str) -> None:
    path = write_labels(labels(), tmp_path / f"a{suffix}")
    voxels = tmp_path / f"a{PAIRS[suffix]}"
    voxels.write_bytes(voxels.read_bytes()[: voxels.stat().st_size // 2])
    with pytest.raises(InputError, match="Copy"):
        read_volume(path)
    voxels.unlink()
    with pytest.raises(InputError, match=r"missing|There is no file"):
        read_volume(path)
