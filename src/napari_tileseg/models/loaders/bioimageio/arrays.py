"""Arrays of unknown origin in NumPy's file format: numbers only, and none larger than their file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_array"]

_LARGEST = 1 << 30


def read_array(path: Path) -> NDArray[Any]:
    """Return the array of a ``.npy`` file.

    Raises
    ------
    ModelError
        If it is none, holds objects, declares more than it has, or has more than 1 GB.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise ModelError(f"{printable(path.name)} has {size} bytes; arrays of {_LARGEST} bytes are accepted.")
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(stream)
            if dtype.hasobject or dtype.kind not in "biuf":
                raise ModelError(f"{printable(path.name)} holds objects, not numbers. It was not read.")
            if math.prod(shape) * dtype.itemsize > size:
                raise ModelError(f"{printable(path.name)} ends before its array does. Get the model again.")
        return np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise ModelError(f"{printable(path.name)} is no array of NumPy: {printable(str(error))}. Get the model again.") from None
