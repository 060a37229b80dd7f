"""What tells that a file is still the one it was: its size and times where that is enough, its content otherwise."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["digest", "input_stamp", "output_stamp"]

_MOST = 20_000
"""Entries of a store that are looked at; nobody waits for the chunks of a store of millions."""

_BLOCK = 1 << 20


def input_stamp(path: Path) -> str:
    """Return a digest of size and time of change of an image, and of everything in it where it is a folder.

    Labels inside an OME-Zarr are no part of the image: they may be what a batch has put there.

    Raises
    ------
    OSError
        If nothing stands there.
    """
    found = path.stat()
    if not path.is_dir():
        return _short([(found.st_size, found.st_mtime_ns)])
    entries = zip(range(_MOST), _entries(path, skipped="labels"), strict=False)
    return _short([_member(path, name, stat) for _, (name, stat) in entries if name != ".zmetadata"])


def _member(path: Path, name: str, stat: os.stat_result) -> tuple[Any, ...]:
    """Return what tells of a file in a store; the list of all members of a group is renewed when labels are put into it."""
    if name == "zarr.json" and stat.st_size:
        try:
            facts = json.loads((path / name).read_text(encoding="utf-8"))
            return name, json.dumps({key: value for key, value in facts.items() if key != "consolidated_metadata"})
        except (OSError, ValueError, AttributeError):
            pass  # the reader says what is wrong with it
    return name, stat.st_size, stat.st_mtime_ns


def output_stamp(path: Path) -> str:
    """Return a digest of what changes whenever a result is written to; equal as long as nobody has touched it.

    Raises
    ------
    OSError
        If nothing stands there.
    """
    found = path.stat()
    if not path.is_dir():
        return _short([_touched(found)])
    return _short([(name, *_touched(stat)) for name, stat in _entries(path)])


def digest(path: Path) -> str:
    """Return a digest of the content of a file, or of names and contents of all files in a folder.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    total = hashlib.blake2b(digest_size=16)
    if not path.is_dir():
        _add(total, path)
        return total.hexdigest()
    for name, stat in _entries(path):
        total.update(f"{name}\0{stat.st_size}\0".encode("utf-8", "surrogateescape"))
        _add(total, path / name)
    return total.hexdigest()


def _touched(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns  # the last one cannot be set back by a program


def _entries(folder: Path, prefix: str = "", *, skipped: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below a folder, in the order of their names."""
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.is_dir():
            if entry.name != skipped:
                yield from _entries(folder / entry.name, f"{prefix}{entry.name}/", skipped=skipped)
        else:
            yield f"{prefix}{entry.name}", entry.stat()


def _add(total: hashlib.blake2b, path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            total.update(block)


def _short(values: object) -> str:
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
