"""``kept_memory``: during a run, memory that one tile has given back serves the next tile at once."""

from __future__ import annotations

import ctypes
import platform
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["kept_memory"]

# Numbers of mallopt's parameters and the largest values that glibc's own adaptation would reach: <malloc.h>, mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_USUAL = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}

_lock = threading.Lock()
_holders = 0


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let the C library keep freed memory; at the end (of the outermost of several) it all goes back to the system.

    By default glibc asks the system for every large block and hands it back when it is freed, so that each tensor of each
    tile begins with the system clearing fresh pages: for a small network more than half of the processor's time. Every
    tile needs the same blocks, therefore the peak hardly changes. Does nothing where the C library is not glibc.
    """
    library = _glibc()
    if library is None:
        yield
        return
    _hold(library, 1)
    try:
        yield
    finally:
        _hold(library, -1)


def _hold(library: Any, by: int) -> None:
    global _holders
    with _lock:
        before, _holders = _holders, _holders + by
        if before and _holders:
            return
        for parameter, value in (_KEEPING if _holders else _USUAL).items():
            library.mallopt(parameter, value)
        if not _holders:
            library.malloc_trim(0)


def _glibc() -> Any:
    if platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library
