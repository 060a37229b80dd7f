"""Why a process ended, in sentences that claim no more than its exit status tells."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from napari_tileseg.worker.messages import Died
from napari_tileseg.worker.scratch import file_size

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["cause_of_death", "obituary"]

_NO_MEMORY = "ended, most likely for lack of memory"
_WINDOWS = {
    0xC0000005: "crashed (access violation)",
    0xC0000017: _NO_MEMORY,
    0xC000001D: "crashed (illegal instruction)",
    0xC00000FD: "crashed (stack overflow)",
    0xC000012D: _NO_MEMORY,
    0xC0000409: "crashed (stack buffer overrun)",
}


def cause_of_death(returncode: int, scratch: Path | None = None, free: int | None = None) -> str:
    """Say how the process ended.

    Parameters
    ----------
    returncode : int
        As `subprocess` gives it: negative for a signal.
    scratch : Path, optional
        Folder of the mapped files.
    free : int, optional
        Free bytes there.

    Returns
    -------
    str
        One sentence.
    """
    if returncode >= 0:
        known = _WINDOWS.get(returncode & 0xFFFFFFFF, f"ended by itself (exit status {returncode})")
        return f"The model's process {known}."
    number = -returncode
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if name == "SIGKILL":
        return f"The model's process {_NO_MEMORY}."
    if name == "SIGBUS" and scratch is not None and free is not None:
        return f"The model's process ended because a file in {scratch} could not be written ({file_size(free)} are free there)."
    if name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"):
        return f"The model's process was ended by another program ({name})."
    return f"The model's process crashed ({name})."


def obituary(cause: str, left: str, done: int, total: int, details: str) -> Died:
    """Add to the cause what is left, a sentence too."""
    return Died(f"{cause} {left}", done, total, details)
