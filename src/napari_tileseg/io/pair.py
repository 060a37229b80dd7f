"""A pair of files: a header, and the voxels in a file of their own beside it. Both stand there, or neither does."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from typing import TYPE_CHECKING

from napari_tileseg.errors import OutputError
from napari_tileseg.io.output import check_place, refused
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["check_pair", "companion_path", "put_pair_in_place"]

_LOOKED_AT = 2**24
"""Bytes of a header in which the name of its voxels is looked for."""


def companion_path(path: Path, suffix: str) -> Path:
    """Return ``cells.raw`` for ``cells.mhd``."""
    return path.with_name(f"{path.stem}{suffix}")


def check_pair(path: Path, companion: Path, *, overwrite: bool) -> None:
    """Raise if a header and its voxels could not be put there.

    Voxels that are there already are replaced only with the header that they belong to: they may be those of an image.

    Raises
    ------
    OutputError
        One sentence.
    """
    check_place(path, overwrite=overwrite)
    if os.path.lexists(companion) and not _names(path, companion.name):
        raise OutputError(f'"{companion}" is there already, and is no part of "{path.name}". Choose another name.')
    check_place(companion, overwrite=overwrite)


@contextlib.contextmanager
def put_pair_in_place(path: Path, companion: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary place for the header, beside which the voxels are written under their own name; both are moved at the end.

    The header goes last, and an old one first: at no moment does one stand with the voxels of the other.

    Raises
    ------
    OutputError
        One sentence for every way in which the system refuses.
    """
    check_pair(path, companion, overwrite=overwrite)
    folder = path.with_name(f".{secrets.token_hex(6)}.{path.name}")
    try:
        folder.mkdir()
        yield folder / path.name
        check_pair(path, companion, overwrite=overwrite)  # another program may have been faster
        _exchange([(folder / companion.name, companion), (folder / path.name, path)], folder)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exchange(moves: list[tuple[Path, Path]], folder: Path) -> None:
    """Put new files where old ones may stand; if one cannot be, all old ones stand there again."""
    kept: list[tuple[Path, Path]] = []
    put: list[Path] = []
    try:
        for _, place in reversed(moves):
            if os.path.lexists(place):
                aside = folder / f"old.{place.name}"
                move(place, aside)
                kept.append((aside, place))
        for new, place in moves:
            move(new, place)
            put.append(place)
    except OSError:
        for place in put:
            place.unlink(missing_ok=True)
        for aside, place in reversed(kept):
            move(aside, place)
        raise


def _names(path: Path, name: str) -> bool:
    """Say whether a header names a file as that of its voxels."""
    try:
        with path.open("rb") as stream:
            start = stream.read(_LOOKED_AT)
    except OSError:
        return False
    return any(line.replace(b"=", b":").partition(b":")[2].strip() == os.fsencode(name) for line in start.splitlines())
