"""``kept_memory``: during a run or a training, memory that one tile has given back serves the next tile at once."""

from __future__ import annotations

import ctypes
import platform
import sys
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

_SOON = 0.3
"""Seconds: the next image of a batch has begun by then and finds its memory ready; nobody else has missed it."""

_lock = threading.Lock()
_holders = 0
_pending: threading.Timer | None = None


@contextmanager
def kept_memory() -> Iterator[None]:
    """Let the C library keep freed memory; soon after the end (of the outermost of several) it all goes back to the system.

    By default glibc asks the system for every large block and hands it back when it is freed, so that each tensor of each
    tile begins with the system clearing fresh pages: for a small network more than half of the processor's time. Every
    tile needs the same blocks, therefore the peak hardly changes. To give all of it back takes some hundredths of a second,
    for which nobody should wait; so a thread does that, unless the next run has begun. Does nothing where the C library is not
    glibc, or where the process has a limit of addresses (``ulimit -v``), which kept blocks would use up.
    """
    library = _glibc()
    if library is None or _limited():
        yield
        return
    _hold(library, 1)
    try:
        yield
    finally:
        _hold(library, -1)


def _hold(library: Any, by: int) -> None:
    global _holders, _pending
    with _lock:
        before, _holders = _holders, _holders + by
        if before and _holders:
            return
        if _pending is not None:
            _pending.cancel()
        for parameter, value in (_KEEPING if _holders else _USUAL).items():
            library.mallopt(parameter, value)
        _pending = None if _holders else _later(library)


def _later(library: Any) -> threading.Timer | None:
    timer = threading.Timer(_SOON, _give_back, (library,))
    timer.daemon = True
    timer.name = "give-back"
    try:
        timer.start()
    except RuntimeError:  # no thread can be started: the interpreter ends, or the system has too many
        library.malloc_trim(0)
        return None
    return timer


def _give_back(library: Any) -> None:
    with _lock:
        if not _holders:
            library.malloc_trim(0)


def _limited() -> bool:
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def _glibc() -> Any:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":  # which reads the interpreter's file where it cannot ask
        return None
    library = ctypes.CDLL(None)
    library.malloc_trim.argtypes = [ctypes.c_size_t]
    return library
