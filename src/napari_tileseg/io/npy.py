"""NumPy's own files (``.npy``): an array without names of axes, mapped into memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.files import check_readable, damaged, too_short
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_npy"]

_GUESSES = {2: "YX", 3: "ZYX", 4: "TZYX", 5: "TCZYX"}


def read_npy(path: Path, *, series: int = 0, level: int = 0) -> Volume:
    """Map an array into memory; nothing of it is read before it is indexed.

    Beyond Y and X at the end the letters are guesses, listed in ``metadata["guessed_axes"]``; three or four bytes at the end of
    three axes are colours. Objects, which could run code, are refused.

    Raises
    ------
    InputError
        If the file is missing, no such file, cut off, or holds no numbers.
    """
    check_readable(path)
    if series or level:
        raise InputError(f'"{path.name}" holds one image. Choose series 0 and level 0.')
    with path.open("rb") as stream:
        if stream.read(6) != np.lib.format.MAGIC_PREFIX:
            raise damaged(path, "NumPy")
    try:
        data = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        if "mmap length" in str(error):
            raise too_short(path, _expected(path)) from error
        if "object" in str(error).lower():
            raise InputError(f'"{path.name}" holds Python objects. Arrays of numbers are accepted.') from error
        raise damaged(path, "NumPy") from error
    except (EOFError, OSError) as error:
        raise damaged(path, "NumPy") from error
    if data.dtype.kind not in "biuf":
        raise InputError(f'"{path.name}" holds values of type {data.dtype}. Whole and real numbers are accepted.')
    if data.ndim not in _GUESSES:
        raise InputError(f'"{path.name}" has {data.ndim} {"axis" if data.ndim == 1 else "axes"}. Two to five are accepted.')
    if data.ndim == 3 and data.shape[-1] == 3 and data.dtype == np.uint8:
        return Volume(data, "YXC", name=path.stem, channel_names=("red", "green", "blue"), metadata={"format": "npy"})
    axes = _GUESSES[data.ndim]
    return Volume(data, axes, name=path.stem, metadata={"format": "npy", **({"guessed_axes": axes[:-2]} if axes[:-2] else {})})


def _expected(path: Path) -> int:
    """Return how many bytes the header asks for."""
    with path.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        return stream.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
