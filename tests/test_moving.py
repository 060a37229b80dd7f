"""A file that a virus scanner looks at for a moment stops nobody on Windows; one that stays open is said."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_tileseg import moving
from napari_tileseg.errors import OutputError
from napari_tileseg.io.output import put_in_place
from napari_tileseg.io.zarr_edit import ZarrArray
from napari_tileseg.io.zarr_store import ZarrLabels
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], list[float]]:
    """Return a function after which the system refuses so many times; it returns the waits that follow."""

    def refuse(times: int, platform: str) -> list[float]:
        waits: list[float] = []
        real, left = os.replace, [times]

        def replace(source: Any, target: Any) -> None:
            if left[0] > 0:
                left[0] -= 1
                raise PermissionError(13, "Access is denied")
            real(source, target)

        monkeypatch.setattr(os, "replace", replace)
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(moving.time, "sleep", waits.append)
        return waits

    return refuse


def pair(folder: Path) -> tuple[Path, Path]:
    new, old = folder / "new", folder / "old"
    new.write_text("new")
    old.write_text("old")
    return new, old


@pytest.mark.parametrize("times", [0, 1, 7])
def test_windows_is_asked_again(tmp_path: Path, refusing: Callable[[int, str], list[float]], times: int) -> None:
    new, old = pair(tmp_path)
    waits = refusing(times, "win32")
    move(new, old)
    assert old.read_text() == "new"
    assert not new.exists()
    assert len(waits) == times
    assert sum(waits) < 2, "nobody should think that the program hangs"


def test_a_file_that_stays_open_is_said_and_nothing_is_lost(tmp_path: Path, refusing: Callable[[int, str], list[float]]) -> None:
    _, old = pair(tmp_path)
    refusing(1000, "win32")
    with pytest.raises(OutputError, match="is open in another program"), put_in_place(old, overwrite=True) as temporary:
        temporary.write_text("newer")
    assert old.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]


def test_elsewhere_a_refusal_is_final(tmp_path: Path, refusing: Callable[[int, str], list[float]]) -> None:
    new, old = pair(tmp_path)
    waits = refusing(1, "linux")
    with pytest.raises(PermissionError):
        move(new, old)
    assert waits == []
    assert (new.read_text(), old.read_text()) == ("new", "old")


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """Return a function after which Windows refuses every second replacement of a chunk, as if a viewer read the old one."""

    def watch() -> list[Path]:
        refused: list[Path] = []
        real = Path.replace

        def replace(self: Path, target: Any) -> Path:
            if self.suffix == ".partial" and (not refused or refused[-1] != Path(target)):
                refused.append(Path(target))
                raise PermissionError(13, "Access is denied")
            return real(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        monkeypatch.setattr(sys, "platform", "win32")
        monkeypatch.setattr(moving.time, "sleep", lambda seconds: None)
        return refused

    return watch


def test_chunks_that_somebody_looks_at_are_written_a_moment_later(tmp_path: Path, watched: Callable[[], list[Path]]) -> None:
    labels = np.arange(48 * 48, dtype=np.int32).reshape(48, 48)
    store = ZarrLabels.create(tmp_path / "a.ome.zarr", labels.shape, labels.dtype, "YX")
    refused = watched()
    store[:] = labels
    store.flush()
    assert refused
    np.testing.assert_array_equal(store[...], labels)


def test_edits_of_chunks_that_somebody_looks_at_come_a_moment_later(tmp_path: Path, watched: Callable[[], list[Path]]) -> None:
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 8), chunks=(8, 8), dtype="u1")
    array[:] = 1
    labels = ZarrArray(tmp_path / "a.zarr", array, (0, 1))
    refused = watched()
    labels[2:4, 2:4] = 5
    labels[np.array([0, 7]), np.array([0, 7])] = 6
    assert len(refused) >= 1
    assert (labels[3, 3], labels[7, 7], labels[4, 4]) == (5, 6, 1)
