"""Arrays in files of their own."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sys
import weakref
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.io.cache import scratch_folder
from napari_tileseg.locks import lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Readable", "allocate", "delete_after", "lock", "unpacked"]

_LOG = logging.getLogger(__name__)
_RESERVE_UP_TO = 1 << 32
"""Larger files are not reserved: where the file system has no call for it, the C library writes every block."""


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int = -1, /) -> bytes: ...


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


def unpacked(stream: Readable) -> tuple[Path, Callable[[], None]]:
    """Copy a compressed stream into a temporary file, and return it with what deletes it.

    A compressed stream cannot be entered in the middle: each tile would unpack all that comes before it.
    """
    folder = scratch_folder()
    try:
        with (folder / "voxels").open("wb") as file:
            shutil.copyfileobj(stream, file, 2**22)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder / "voxels", lambda: shutil.rmtree(folder, ignore_errors=True)


def delete_after(mapped: np.memmap[Any, Any], delete: Callable[[], None]) -> None:
    """Call `delete` as soon as nothing maps the file any more; before that, Windows deletes nothing."""
    weakref.finalize(mapped._mmap, delete)  # type: ignore[attr-defined]  # the array itself goes before its map does


def _reserve(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        _LOG.debug("no room could be reserved: %s", error)
