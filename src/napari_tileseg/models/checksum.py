"""SHA-256 of a model's files, computed once for each state of them."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING

from napari_tileseg.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["checksum", "file_sha256"]


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, read now.

    Raises
    ------
    ModelError
        If the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f'"{path.name}" cannot be read: {error.strerror or error}. Check the file and its permissions.') from None


def checksum(files: Sequence[Path], root: Path) -> str:
    """Return one checksum of a model's files: of one file its SHA-256, of several that of their names and SHA-256s.

    Parameters
    ----------
    files : sequence of Path
    root : Path
        File or folder of the model; names are taken relative to it, so that a copy has the same checksum.
    """
    if list(files) == [root]:
        return _remembered(root)
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.parts):  # Windows puts a before B, others B before a
        name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
        digest.update(f"{name}\0{_remembered(file)}\n".encode())
    return digest.hexdigest()


def _remembered(path: Path) -> str:
    try:
        state = path.stat()
    except OSError as error:
        raise ModelError(f'"{path.name}" cannot be read: {error.strerror or error}. Check the file and its permissions.') from None
    return _computed(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _computed(path: Path, size: int, modified: int) -> str:
    # Size and time are part of the key, so that a file that was written anew is read again.
    return file_sha256(path)
