"""The folder for what waits on the disk while the program runs: it is cleaned up even after a crash."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

__all__ = ["cache_folder", "scratch_folder"]

_PREFIX = "scratch"


def cache_folder() -> Path:
    """Return ``TILESEG_CACHE``, or the folder of this program among the user's caches.

    Not the system's folder for temporary files: that often lies in memory.
    """
    if chosen := os.environ.get("TILESEG_CACHE"):
        return Path(chosen)
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local"))
    elif sys.platform == "darwin":
        base = home / "Library/Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", home / ".cache"))
    return base / "napari-tileseg"


def scratch_folder() -> Path:
    """Make an empty folder of this process; what processes that are dead by now have left is deleted first.

    Raises
    ------
    OSError
        If the system refuses.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getpid()}-", dir=folder))


def _sweep(folder: Path) -> None:
    import psutil

    with contextlib.suppress(OSError):
        for left in folder.glob(f"{_PREFIX}-*-*"):
            owner = left.name.split("-")[1]
            if owner.isdigit() and not psutil.pid_exists(int(owner)):
                shutil.rmtree(left, ignore_errors=True)
