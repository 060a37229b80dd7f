"""``move``, ``patiently``: put a file in the place of another one, again and again where Windows refuses for a moment."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["move", "patiently"]

T = TypeVar("T")

_WAITS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between tries: virus scanners and indexers open new files, viewers read chunks, and all let go of them soon."""


def move(source: Path, target: Path) -> None:
    """Give a file or folder another name, where another file may stand; at once, as `os.replace` does it.

    Raises
    ------
    OSError
        If the system refuses; on Windows only if it still does after a second and a half, as where a program holds the file open.
    """
    patiently(lambda: os.replace(source, target))


def patiently(deed: Callable[[], T]) -> T:
    """Do something that puts files in the place of others, and can be done twice; return what it returns.

    Raises
    ------
    OSError
        As `move` does.
    """
    for wait in _WAITS:
        try:
            return deed()
        except PermissionError:
            if sys.platform != "win32":
                raise
            time.sleep(wait)
    return deed()
