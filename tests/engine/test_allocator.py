"""Memory that is kept during a run goes back at its end, and arrays mean the same with and without."""

from __future__ import annotations

import gc
import time

import numpy as np
import psutil
import pytest

from napari_tileseg.engine import allocator
from napari_tileseg.engine.allocator import kept_memory

glibc = pytest.mark.skipif(allocator._glibc() is None, reason="only glibc can be told to keep memory")
SIZE = 64 << 20


@pytest.fixture(autouse=True)
def nothing_left() -> None:
    """Give back what earlier tests have left: a block that finds its place there takes nothing from the system."""
    gc.collect()
    with allocator._lock:
        if allocator._pending is not None:
            allocator._pending.cancel()
        library = allocator._glibc()
        if library is not None:
            library.malloc_trim(0)


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def given_back(before: int) -> bool:
    """Wait for it: a thread gives back."""
    end = time.monotonic() + 10
    while resident() - before >= SIZE // 2 and time.monotonic() < end:
        time.sleep(0.02)
    return resident() - before < SIZE // 2


@glibc
def test_freed_memory_is_kept_inside_and_given_back_at_the_end() -> None:
    before = resident()
    with kept_memory():
        block = np.ones(SIZE, np.uint8)
        del block
        assert resident() - before > SIZE // 2
    assert given_back(before)


@glibc
def test_only_the_outermost_gives_back() -> None:
    before = resident()
    with kept_memory():
        with kept_memory():
            block = np.ones(SIZE, np.uint8)
            del block
        assert resident() - before > SIZE // 2
    assert given_back(before)


@glibc
def test_the_next_run_finds_the_memory_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_SOON", 0.05)
    before = resident()
    with kept_memory():
        block = np.ones(SIZE, np.uint8)
        del block
    with kept_memory():
        assert allocator._pending is None
        time.sleep(0.2)
        assert resident() - before > SIZE // 2
    assert given_back(before)


@glibc
def test_an_address_limit_is_not_filled_with_kept_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 40, 1 << 40))
    with kept_memory():
        assert allocator._holders == 0


@glibc
def test_an_error_ends_it_too() -> None:
    before = resident()
    with pytest.raises(ZeroDivisionError), kept_memory():
        block = np.ones(SIZE, np.uint8)
        del block
        raise ZeroDivisionError
    assert given_back(before)


def test_another_system_is_not_even_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python looks into its own program's file there, which the Python of Microsoft's shop lets nobody open."""

    def refuse() -> tuple[str, str]:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setattr("platform.libc_ver", refuse)
    with kept_memory():
        assert allocator._holders == 0


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    with kept_memory():
        assert allocator._holders == 0
