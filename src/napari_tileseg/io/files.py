"""Sentences about files that cannot be read, and the size a file should have."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from napari_tileseg.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ZARR_FILES", "amount", "broken_off", "check_readable", "damaged", "is_zarr", "readable", "stamp", "too_short", "zarr_root"]

ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
"""One of these stands in the folder of every group and array of a Zarr store, of version 3 or 2."""


def check_readable(path: Path) -> None:
    """Raise unless a file with at least one byte stands at `path` and may be read.

    Raises
    ------
    InputError
        One sentence: what stands there instead, and what to do.
    """
    if path.is_dir():
        raise InputError(f'"{path.name}" is a folder. Give one of the images in it.')
    if not path.exists():
        raise InputError(f'There is no file "{path}". Check the name and the folder.')
    if not os.access(path, os.R_OK):
        raise InputError(f'"{path.name}" may not be read. Ask its owner for the permission, or copy it.')
    if path.stat().st_size == 0:
        raise InputError(f'"{path.name}" is empty: it has 0 bytes. Copy it again.')


def stamp(path: Path) -> str:
    """Return a digest of size and time of change of a file (of a folder: of what lies directly in it too)."""
    entries = [path, *(sorted(path.iterdir()) if path.is_dir() else ())]
    found = [(entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries]
    return hashlib.blake2b(repr(found).encode(), digest_size=8).hexdigest()


def amount(size: int, *, like: int | None = None) -> str:
    """Write a number of bytes for people: ``"8.0 MB"``; the unit is that of `like` if given."""
    scale, unit = next(((step, name) for step, name in _STEPS if (like or size) >= step), (1, "bytes"))
    return f"{size / scale:.1f} {unit}" if scale > 1 else f"{size} {unit}"


_STEPS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def readable(text: str) -> str:
    r"""Return a name that can be shown and stored as UTF-8: line ends and bytes that are no text as ``\n`` and ``\xff``."""
    return "".join(_written(letter) for letter in text)


def _written(letter: str) -> str:
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, as Python keeps it in names of files
        return f"\\x{code - 0xDC00:02x}"
    if 0xD800 <= code <= 0xDFFF or code in (0xFFFE, 0xFFFF):
        return f"\\u{code:04x}"
    if code < 32 or 127 <= code < 160 or code in (0x2028, 0x2029):
        return {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(letter, f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
    return letter


def too_short(path: Path, expected: int, *, exact: bool = True) -> InputError:
    """Return the error for a file that ends before `expected` bytes (at least so many if not `exact`)."""
    size = path.stat().st_size
    there = amount(size, like=expected).split()[0]
    least = "" if exact else "at least "
    return InputError(f'"{path.name}" ends after {there} of {least}{amount(expected)}. Copy it again.')


def broken_off(path: Path) -> InputError:
    """Return the error for compressed data that stops in the middle."""
    return InputError(f'"{path.name}" breaks off inside its compressed data, after {amount(path.stat().st_size)}. Copy it again.')


def damaged(path: Path, kind: str) -> InputError:
    """Return the error for a file that is not what its name says.

    Parameters
    ----------
    kind : str
        What it should be: ``"TIFF"``.
    """
    with path.open("rb") as stream:
        start = stream.read(256)
    if start and all(byte in _TEXT for byte in start):
        return InputError(f'"{path.name}" holds text, not a {kind} image. Save the image itself under that name.')
    return InputError(f'"{path.name}" is no {kind} image, or it is damaged. Open it in the program that made it and save it again.')


_TEXT = frozenset(range(32, 127)) | {9, 10, 13}


def is_zarr(path: Path) -> bool:
    """Say whether a folder is a Zarr group or array."""
    return any((path / name).is_file() for name in ZARR_FILES)


def zarr_root(path: Path) -> Path | None:
    """Return the store that a path leads to or into: itself, or the nearest folder above it whose name ends in .zarr."""
    for place in (path, *path.parents):
        if place.name.lower().endswith(".zarr"):
            return place
    return path if is_zarr(path) else None
