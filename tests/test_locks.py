"""Two runs never write one result, in whatever words a system refuses the second one its lock."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import pytest

from napari_tileseg import unfinished
from napari_tileseg.errors import OutputError
from napari_tileseg.unfinished import Unfinished

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("error", [BlockingIOError(11, "busy"), PermissionError(13, "Permission denied")], ids=["POSIX", "Windows"])
def test_the_second_run_for_one_result_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def taken(file: IO[bytes]) -> None:
        raise error

    monkeypatch.setattr(unfinished, "lock", taken)
    with pytest.raises(OutputError, match="Another program is writing this result"):
        Unfinished.open(tmp_path / "run", {}, resume=False)


def test_a_file_system_without_locks_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(file: IO[bytes]) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(unfinished, "lock", unknown)
    Unfinished.open(tmp_path / "run", {}, resume=False).close()
