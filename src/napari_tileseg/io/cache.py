"""The folder for what waits on the disk while the program runs: it is cleaned up even after a crash."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from napari_tileseg.folders import cache_folder

__all__ = ["scratch_folder"]

_PREFIX = "scratch"


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
