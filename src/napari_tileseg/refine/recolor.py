"""Give objects other values: one by one where there are few, block by block where there are many."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OptionsError
from napari_tileseg.refine.blocks import blocks, shape_of, union

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas, Place
    from napari_tileseg.refine.draft import Draft
    from napari_tileseg.refine.scope import Piece

__all__ = ["check_id", "counted", "recolor", "replace"]

_FEW = 32
"""Objects that are always taken one by one."""

_TABLE = 1 << 22
"""Largest id for which a table of all values is made."""


def recolor(draft: Draft, pieces: Sequence[Piece], value: int | Mapping[int, int]) -> None:
    """Give pieces a value, or each the value that a mapping has for its id."""
    for place, group in itertools.groupby(pieces, key=lambda piece: piece.place):
        together = list(group)
        table = value if isinstance(value, Mapping) else {piece.id: value for piece in together}
        around = together[0].box
        for piece in together[1:]:
            around = union(around, piece.box)
        if len(together) > _FEW and all(piece.inside is None for piece in together) and _dense(draft.canvas, together, around):
            replace(draft, place, around, {piece.id: table[piece.id] for piece in together})
            continue
        for piece in together:
            block = draft.read(place, piece.box)
            after = block.copy()
            after[piece.mask(block)] = table[piece.id]
            draft.write(place, piece.box, block, after)


def _dense(canvas: Canvas, pieces: Sequence[Piece], around: Box) -> bool:
    """Say whether looking through all is quicker than taking pieces one by one: chunks are read as a whole."""
    chunks = canvas.chunks
    single = 0
    for piece in pieces:
        sizes = [1 if chunks is None else chunks[axis] for axis in piece.place.axes]
        single += math.prod(-(-part.stop // size) * size - part.start // size * size for part, size in zip(piece.box, sizes, strict=True))
    return single * (16 if chunks is None else 1) > math.prod(shape_of(around))


def replace(draft: Draft, place: Place, box: Box, table: Mapping[int, int]) -> None:
    """Replace values in a box of a place."""
    dtype = draft.canvas.dtype
    keys = np.array(sorted(table), dtype)
    values = np.array([table[int(key)] for key in keys], dtype)
    chunks = draft.canvas.chunks
    for part in blocks(box, [chunks[axis] for axis in place.axes] if chunks else None):
        block = draft.read(place, part)
        draft.write(place, part, block, _looked_up(block, keys, values))


def _looked_up(block: NDArray[Any], keys: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    low, high = int(block.min()), int(block.max())
    if low >= 0 and high < _TABLE:
        table = np.arange(high + 1, dtype=block.dtype)
        inside = keys <= high
        table[keys[inside]] = values[inside]
        result: NDArray[Any] = table[block]
        return result
    places = np.minimum(np.searchsorted(keys, block), len(keys) - 1)
    return np.where(keys[places] == block, values[places], block)


def check_id(canvas: Canvas, value: int) -> int:
    """Return a value that labels can take.

    Raises
    ------
    OptionsError
        If the labels' type cannot hold it.
    """
    limits = np.iinfo(canvas.dtype)
    if not limits.min <= value <= limits.max:
        raise OptionsError(
            f"{value} does not fit: the labels are {canvas.dtype} ({limits.min} to {limits.max}). "
            "Choose another number, or convert the layer to a larger type."
        )
    return value


def counted(count: int, what: str = "object") -> str:
    """Return ``"1 object"``, ``"14 objects"``."""
    return f"{count} {what}{'s' * (count != 1)}"
