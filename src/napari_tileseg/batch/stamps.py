"""What tells that a file is still the one it was: its size and times where that is enough, its content otherwise."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

from napari_tileseg.io.dicom_series import dicom_files, files_stamp, holds_dicom
from napari_tileseg.io.files import is_zarr
from napari_tileseg.io.registry import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

__all__ = ["digest", "input_stamp", "output_stamp"]

_MOST = 20_000
"""Entries of a store that are looked at; nobody waits for the chunks of a store of millions."""

_BLOCK = 1 << 20

_GROUP = ("zarr.json", ".zattrs", ".zgroup")

_OWN = frozenset({"labels", ".zmetadata", *_GROUP})
"""What changes in an image's store when labels are put there."""


def input_stamp(path: Path) -> str:
    """Return a digest of size and time of change of an image, and of everything in it where it is a folder.

    Of a folder of DICOM only these files count. Labels inside an OME-Zarr are no part of the image: they may be what a batch has put there.

    Raises
    ------
    OSError
        If nothing stands there.
    """
    found = path.stat()
    if not path.is_dir():
        return _short([(found.st_size, found.st_mtime_ns)])
    if not is_zarr(path) and holds_dicom(path):
        return files_stamp(dicom_files(path))  # results may stand in a folder below
    entries = zip(range(_MOST), _entries(path, skipped=_OWN), strict=False)
    seen = [(name, stat.st_size, stat.st_mtime_ns) for _, (name, stat) in entries]
    return _short([*seen, *(_facts(path / name) for name in _GROUP)])


def _facts(path: Path) -> str:
    """Return what a group says of its image, without the list of all it holds, which grows when labels are added."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return json.dumps({name: value for name, value in facts.items() if name != "consolidated_metadata"}, sort_keys=True)
    except (OSError, ValueError, AttributeError):
        return ""


def output_stamp(path: Path) -> str:
    """Return a digest of what changes whenever a result is written to; equal as long as nobody has touched it.

    Raises
    ------
    OSError
        If nothing stands there.
    """
    found = path.stat()
    if not path.is_dir():
        return _short([_touched(found), *(_touched(part.stat()) for part in _beside(path))])
    return _short([(name, *_touched(stat)) for name, stat in _entries(path)])


def digest(path: Path, beside: Iterable[Path] | None = None) -> str:
    """Return a digest of the content of a file and of those that belong to it, or of names and contents of all files in a folder.

    Parameters
    ----------
    path : Path
    beside : iterable of Path, optional
        The files that belong to it, where they do not stand beside it.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    total = hashlib.blake2b(digest_size=16)
    if not path.is_dir():
        for part in (path, *(_beside(path) if beside is None else beside)):
            _add(total, part)
        return total.hexdigest()
    for name, stat in _entries(path):
        total.update(f"{name}\0{stat.st_size}\0".encode("utf-8", "surrogateescape"))
        _add(total, path / name)
    return total.hexdigest()


def _beside(path: Path) -> list[Path]:
    """Return the files that belong to a result: its voxels, or how it was made."""
    return [part for part in parts_of(path)[1:] if part.exists()]


def _touched(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns  # the last one cannot be set back by a program


def _entries(folder: Path, prefix: str = "", *, skipped: frozenset[str] = frozenset()) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below a folder, in the order of their names; `skipped` are names directly in it."""
    with os.scandir(folder) as scan:
        entries = sorted(scan, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name in skipped:
            continue
        if entry.is_dir():
            yield from _entries(folder / entry.name, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry.stat()


def _add(total: hashlib.blake2b, path: Path) -> None:
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            total.update(block)


def _short(values: object) -> str:
    return hashlib.blake2b(repr(values).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
