"""Tools on whole objects: merge, remove, keep, number anew, change class, take apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.draft import Draft
from napari_tileseg.refine.scope import scope_of

if TYPE_CHECKING:
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.scope import Piece, Where

__all__ = [
    "check_id",
    "counted",
    "merge",
    "reassign",
    "remove",
]


def merge(canvas: Canvas, where: Where, *, into: int | None = None) -> Edit:
    """Make one object of several.

    Parameters
    ----------
    canvas : Canvas
    where : Where
        Two objects at least.
    into : int, optional
        The id to keep; by default the smallest.

    Raises
    ------
    InputError
        If there are fewer than two.
    """
    pieces = list(scope_of(where).pieces(canvas))
    ids = sorted({piece.id for piece in pieces})
    if len(ids) < 2:
        raise InputError("Merging takes two objects; choose another one too.")
    kept = ids[0] if into is None else check_id(canvas, into)
    draft = Draft(canvas)
    for piece in pieces:
        if piece.id != kept:
            _recolor(draft, piece, kept)
    return draft.edit("merge", f"Merged {len(ids)} objects into {kept}.")


def remove(canvas: Canvas, where: Where) -> Edit:
    """Make background of objects."""
    pieces = list(scope_of(where).pieces(canvas))
    draft = Draft(canvas)
    for piece in pieces:
        _recolor(draft, piece, 0)
    return draft.edit("remove", f"Removed {counted(len(pieces))}.")


def reassign(canvas: Canvas, where: Where, value: int) -> Edit:
    """Give objects another value: another class, or the id of another object.

    Raises
    ------
    OptionsError
        If the labels' type cannot hold that value.
    """
    check_id(canvas, value)
    pieces = [piece for piece in scope_of(where).pieces(canvas) if piece.id != value]
    draft = Draft(canvas)
    for piece in pieces:
        _recolor(draft, piece, value)
    return draft.edit("reassign", f"{counted(len(pieces)).capitalize()} became {value}.")


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


def counted(count: int) -> str:
    """Return ``"1 object"``, ``"14 objects"``."""
    return f"{count} object{'s' * (count != 1)}"


def _recolor(draft: Draft, piece: Piece, value: int) -> int:
    block = draft.read(piece.place, piece.box)
    after = block.copy()
    after[piece.mask(block)] = value
    return draft.write(piece.place, piece.box, block, after)
