"""Locks on files, which the system takes back with the process."""

from __future__ import annotations

import sys
from typing import IO

__all__ = ["lock"]


def lock(file: IO[bytes]) -> None:
    """Take the lock or raise OSError; it ends with the process, however that ends."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
