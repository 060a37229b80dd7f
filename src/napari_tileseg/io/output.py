"""What every writer needs: the place checked, the values looked through, the file put in place at once."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.io.files import is_zarr
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.volume import Volume

__all__ = ["FULL", "Survey", "blocks", "check_place", "put_in_place", "refused", "smallest_dtype", "survey", "take_place"]

_BLOCK_BYTES = 2**24

_READ_BYTES = 2**28
"""As int64: rows of chunks that are larger are read piece by piece, each chunk several times."""


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raise if no file could be put at `path`.

    Raises
    ------
    OutputError
        One sentence: the folder is missing or closed, something stands there already.
    """
    folder = path.absolute().parent
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # the name is too long, or one of its folders is a file
        raise refused(path, error) from error
    if path.is_dir() and not (
        path.name.lower().endswith(".zarr") and is_zarr(path)
    ):  # a Zarr store is a folder, and may be replaced as a whole
        raise OutputError(f'"{path}" is a folder. Give the name of a file in it.')
    if path.exists() and not overwrite:
        raise OutputError(f'"{path}" is there already. Choose another name, or replace it (--overwrite on the command line).')
    if not folder.is_dir():
        raise OutputError(f'The folder "{path.parent}" does not exist. Create it, or choose another one.')
    if not os.access(folder, os.W_OK):
        raise OutputError(f'Nothing may be written in "{path.parent}". Choose another folder.')


@contextlib.contextmanager
def put_in_place(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary name beside `path`; what was written there takes its place at the end.

    The name ends as that of `path` does. Nothing is left behind if the block raises.

    Raises
    ------
    OutputError
        One sentence for every way in which the system refuses.
    """
    check_place(path, overwrite=overwrite)
    temporary = path.with_name(f".{secrets.token_hex(6)}.{path.name}")
    try:
        yield temporary
        if path.exists() and not overwrite:
            raise OutputError(f'"{path}" was made by another program meanwhile. Choose another name.')
        take_place(temporary, path)
    except OSError as error:
        raise refused(path, error) from error
    finally:
        _remove(temporary)


def take_place(temporary: Path, path: Path) -> None:
    """Put a file or folder where another one may stand; that one goes only when the new one is in its place."""
    if not (path.is_dir() or (temporary.is_dir() and path.exists())):
        move(temporary, path)
        return
    aside = path.with_name(f".{secrets.token_hex(6)}.{path.name}")
    move(path, aside)  # no system replaces one folder by another at once
    try:
        move(temporary, path)
    except OSError:
        move(aside, path)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota error
"""Numbers of the errors that say that a disk, or one's share of it, is full."""


def refused(path: Path, error: OSError) -> OutputError:
    """Return the sentence for a system that will not write."""
    if error.errno in FULL:
        return OutputError(
            f'The disk is full: "{path.name}" could not be written to "{path.parent}". Free some space, or choose another one.'
        )
    if error.errno == errno.EROFS:
        return OutputError(f'"{path.parent}" is read-only. Choose another folder.')
    if isinstance(error, PermissionError):
        return OutputError(f'"{path.name}" is open in another program, or may not be written. Close it there, or choose another name.')
    return OutputError(f'"{path}" could not be written: {error.strerror or error}. Choose another place.')


@dataclass(frozen=True)
class Survey:
    """What one look through all labels found.

    Parameters
    ----------
    lowest, highest : int
        Smallest and largest label.
    digest : str
        SHA-256 of the values (as int64) and the shape, so that equal labels give equal identifiers.
    """

    lowest: int
    highest: int
    digest: str


def survey(labels: Volume) -> Survey:
    """Look through the labels block by block.

    Raises
    ------
    OutputError
        If the values are not whole numbers.
    """
    if labels.dtype.kind not in "biu":
        raise OutputError(f"Labels are whole numbers; these are {labels.dtype}. Round them first.")
    lowest, highest = 0, 0
    digest = hashlib.sha256(repr((labels.axes, labels.shape)).encode())
    for block in blocks(labels):
        lowest, highest = min(lowest, int(block.min())), max(highest, int(block.max()))
        digest.update(np.ascontiguousarray(block).astype("<i8" if block.dtype != np.uint64 else "<u8").data)
    return Survey(lowest, highest, digest.hexdigest())


def blocks(labels: Volume) -> Iterator[NDArray[Any]]:
    """Yield the labels in slabs along the first axis, each of about 16 MB as int64 at most (one entry at least).

    Labels on the disk are read in whole rows of chunks.
    """
    entry = 8 * int(np.prod(labels.shape[1:], dtype=np.int64))
    step = max(1, _BLOCK_BYTES // max(entry, 1))
    read = max(step, min(int(getattr(labels.data, "depth", 1)), _READ_BYTES // max(entry, 1)))
    for start in range(0, labels.shape[0], read):
        rows = np.asarray(labels.data[start : start + read])
        if len(rows) <= step:
            yield rows
        else:  # copies, so that the rows are gone before the next ones come
            yield from (rows[first : first + step].copy() for first in range(0, len(rows), step))
        del rows


def smallest_dtype(found: Survey, allowed: tuple[str, ...], kind: str) -> np.dtype[Any]:
    """Return the first of the allowed types that holds all labels.

    Parameters
    ----------
    allowed : tuple of str
        Names of integer types, smallest first.
    kind : str
        Name of the format, for the message.

    Raises
    ------
    OutputError
        If none does.
    """
    for name in allowed:
        limits = np.iinfo(name)
        if limits.min <= found.lowest and found.highest <= limits.max:
            return np.dtype(name)
    span = f"{found.lowest} to {found.highest}" if found.lowest else f"up to {found.highest}"
    raise OutputError(f"Labels {span} do not fit in {kind} ({allowed[0]} to {allowed[-1]}). Number them anew, or choose another format.")
