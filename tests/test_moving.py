"""A file that a virus scanner looks at for a moment stops nobody on Windows; one that stays open is said."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

from napari_tileseg import moving
from napari_tileseg.errors import OutputError
from napari_tileseg.io.output import put_in_place
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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
