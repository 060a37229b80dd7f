"""Arrays in files of their own."""

from __future__ import annotations

import errno
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.locks import lock

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["allocate", "lock"]

_LOG = logging.getLogger(__name__)
_RESERVE_UP_TO = 1 << 32
"""Larger files are not reserved: where the file system has no call for it, the C library writes every block."""


def allocate(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.memmap[Any, np.dtype[Any]]:
    """Make an array of zeros in a file, with its room on the disk reserved where the system can.

    Raises
    ------
    OutputError
        If the disk is full or cannot be written.
    """
    try:
        array: np.memmap[Any, np.dtype[Any]] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        # An unreserved page that finds the disk full later would kill the process that touches it.
        if sys.platform == "linux" and array.nbytes <= _RESERVE_UP_TO:
            with path.open("r+b") as file:
                _reserve(file.fileno(), path.stat().st_size)
    except OSError as error:
        raise OutputError(f"The scratch file for the result cannot be made in {path.parent}: {error.strerror or error}.") from error
    return array


def _reserve(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        _LOG.debug("no room could be reserved: %s", error)
