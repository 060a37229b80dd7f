"""Tools on whole objects: merge, remove, keep, number anew, change class, take apart."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import ndimage

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.census import census
from napari_tileseg.refine.draft import Draft
from napari_tileseg.refine.recolor import check_id, counted, recolor, replace
from napari_tileseg.refine.scope import Scope, scope_of, touching

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.census import Census
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.scope import Piece, Where

__all__ = [
    "components",
    "keep_largest",
    "merge",
    "reassign",
    "relabel",
    "remove",
    "remove_at_border",
    "remove_larger",
    "remove_smaller",
    "sizes",
]

_SLACK = 1e-12
"""An object's own size, divided by that of a pixel, is neither above nor below its pixels."""


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
        raise InputError("Merging takes two objects. Choose another one too.")
    kept = ids[0] if into is None else check_id(canvas, into)
    draft = Draft(canvas)
    recolor(draft, [piece for piece in pieces if piece.id != kept], kept)
    return draft.edit("merge", f"Merged {len(ids)} objects into {kept}.")


def remove(canvas: Canvas, where: Where, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Make background of objects."""
    pieces = list(scope_of(where).pieces(canvas))
    draft = Draft(canvas, cancel)
    recolor(draft, pieces, 0)
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
    recolor(draft, pieces, value)
    return draft.edit("reassign", f"{counted(len(pieces)).capitalize()} became {value}.")


def sizes(canvas: Canvas, where: Where = None) -> NDArray[np.float64]:
    """Return areas or volumes, in the square or cube of the canvas's unit: what a preview counts.

    Of objects; of labels whose values are classes, of their connected parts.
    """
    scope = scope_of(where)
    if canvas.classes and not scope.points:
        found = [_parts(Draft(canvas), piece)[1].sizes for piece in scope.pieces(canvas)]
        pixels = np.concatenate(found) if found else np.zeros(0, np.int64)
    elif scope == Scope(at=scope.at):  # no box is needed
        pixels = np.concatenate([canvas.index.table(at)[1] for at in canvas.index.positions() if scope.at in (None, at)])
    else:
        pixels = np.array([piece.size for piece in scope.pieces(canvas)], np.int64)
    return np.asarray(pixels * _pixel_size(canvas, scope), np.float64)


def remove_smaller(canvas: Canvas, size: float, where: Where = None, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Remove what is smaller than `size`.

    Parameters
    ----------
    canvas : Canvas
    size : float
        Area or volume, in the square or cube of the canvas's unit; in a slice, area.
    where : Where
    cancel : callable, optional
        Asked from time to time; True stops it, and nothing is changed.
    """
    limit = _in_pixels(canvas, size, where) * (1 - _SLACK)
    return _drop(canvas, where, lambda pixels, border: pixels < limit, cancel)


def remove_larger(canvas: Canvas, size: float, where: Where = None, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Remove what is larger than `size`, which is given as for `remove_smaller`."""
    limit = _in_pixels(canvas, size, where) * (1 + _SLACK)
    return _drop(canvas, where, lambda pixels, border: pixels > limit, cancel)


def remove_at_border(canvas: Canvas, where: Where = None, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Remove what touches the border of the image (of a slice, its sides): it may be cut off."""
    return _drop(canvas, where, lambda pixels, border: border, cancel)


def keep_largest(
    canvas: Canvas, where: Where = None, *, of: Literal["parts", "objects"] = "parts", cancel: Callable[[], bool] | None = None
) -> Edit:
    """Remove all but the largest.

    Parameters
    ----------
    canvas : Canvas
    where : Where
    of : {"parts", "objects"}
        Of each object (or class) the largest connected part is kept; or of all objects, at each time point, the largest one.
    cancel : callable, optional
    """

    def others(pixels: NDArray[np.int64], border: NDArray[np.bool_]) -> NDArray[np.bool_]:
        drop = np.ones(len(pixels), np.bool_)
        drop[int(np.argmax(pixels))] = False
        return drop

    return _drop(canvas, where, others, cancel, parts=of == "parts")


def relabel(canvas: Canvas, where: Where = None, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Give objects the numbers 1, 2, 3, ... in the order of their ids; an id that is at several time points stays one."""
    scope = scope_of(where)
    ids = {int(i) for i in canvas.index.ids(scope.at)} if scope.ids is None else {i for i in scope.ids if i in canvas.index}
    everywhere = scope.cut is None and not scope.points
    stay = {int(i) for i in canvas.index.ids()} - ids if everywhere and scope.at is None else _staying(canvas, scope, ids)
    free = (number for number in itertools.count(1) if number not in stay)
    table = dict(zip(sorted(ids), free, strict=False))
    moved = {old: new for old, new in table.items() if old != new}
    draft = Draft(canvas, cancel)
    if moved and everywhere and scope.ids is None:
        for place in scope.places(canvas):
            replace(draft, place, tuple(slice(0, canvas.shape[axis]) for axis in place.axes), moved)
    elif moved:
        pieces = [piece for piece in scope.pieces(canvas) if piece.id in moved]
        recolor(draft, pieces, moved)
    return draft.edit("relabel", f"{counted(len(moved)).capitalize()} of {len(ids)} got other numbers.")


def components(canvas: Canvas, where: Where = None, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Make an object of each connected part: the largest keeps the id, the others get new ones."""
    draft, found, made = Draft(canvas, cancel), 0, 0
    for piece in scope_of(where).pieces(canvas):
        found += 1
        labels, parts, block = _parts(draft, piece)
        if len(parts) > 1:
            values = np.zeros(int(parts.ids[-1]) + 1, block.dtype)
            order = [int(i) for i in parts.ids[np.argsort(-parts.sizes, kind="stable")]]
            values[order[0]] = piece.id
            values[order[1:]] = canvas.index.free_ids(made + len(order) - 1)[made:]
            made += len(order) - 1
            draft.write(piece.place, piece.box, block, np.where(labels > 0, values[labels], block))
    return draft.edit("components", f"{counted(found).capitalize()} became {found + made}.")


Choose = Callable[["NDArray[np.int64]", "NDArray[np.bool_]"], "NDArray[np.bool_]"]
"""Takes pixels of objects, and which touch the border; says which go."""


def _drop(canvas: Canvas, where: Where, choose: Choose, cancel: Callable[[], bool] | None, *, parts: bool = False) -> Edit:
    scope, draft = scope_of(where), Draft(canvas, cancel)
    every = dropped = 0
    if parts or (canvas.classes and not scope.points):
        for piece in scope.pieces(canvas):
            labels, found, block = _parts(draft, piece)
            drop = choose(found.sizes, _at_border(canvas, piece, found.first, found.stop))
            every, dropped = every + len(found), dropped + int(drop.sum())
            if drop.any():
                table = np.zeros(int(found.ids[-1]) + 1, np.bool_)
                table[found.ids[drop]] = True
                draft.write(piece.place, piece.box, block, np.where(table[labels], 0, block))
    else:
        for _, group in itertools.groupby(scope.pieces(canvas), key=lambda piece: piece.place):
            pieces = list(group)
            first = np.array([[part.start for part in piece.box] for piece in pieces])
            stop = np.array([[part.stop for part in piece.box] for piece in pieces])
            drop = choose(np.array([piece.size for piece in pieces]), _at_border(canvas, pieces[0], first, stop))
            every, dropped = every + len(pieces), dropped + int(drop.sum())
            recolor(draft, [piece for piece, goes in zip(pieces, drop, strict=True) if goes], 0)
    what = "part" if parts or canvas.classes else "object"
    return draft.edit("remove", f"Removed {dropped} of {counted(every, what)}.")


def _parts(draft: Draft, piece: Piece) -> tuple[NDArray[np.int32], Census, NDArray[Any]]:
    """Return the connected parts of an object: numbered, counted (in the place's indices), and the labels around them."""
    block = draft.read(piece.place, piece.box)
    labels, _ = ndimage.label(piece.mask(block), structure=touching(block.ndim))
    return labels, census(labels, [part.start for part in piece.box]), block


def _at_border(canvas: Canvas, piece: Piece, first: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.bool_]:
    shape = np.array([canvas.shape[axis] for axis in piece.place.axes])
    thick = shape > 1  # all of a single plane lies at the border of its axis
    touches: NDArray[np.bool_] = (((first == 0) | (stop == shape)) & thick).any(axis=1)
    return touches


def _pixel_size(canvas: Canvas, scope: Scope) -> float:
    size = canvas.pixel_size
    if scope.cut is not None and len(canvas.space) == 3 and scope.cut[0] % canvas.ndim in canvas.space:
        size /= canvas.spacing[scope.cut[0] % canvas.ndim]
    return size


def _in_pixels(canvas: Canvas, size: float, where: Where) -> float:
    if not size >= 0:
        raise OptionsError(f"A size of {size} is not accepted: give a number from 0 up, in {canvas.size_unit}.")
    return size / _pixel_size(canvas, scope_of(where))


def _staying(canvas: Canvas, scope: Scope, ids: set[int]) -> set[int]:
    """Return the ids that keep pixels outside of a scope."""
    inside = {position for position in canvas.index.positions() if scope.at in (None, position)}
    cut = scope.cut is not None or bool(scope.points)
    return {int(i) for i in canvas.index.ids() if cut or i not in ids or not inside.issuperset(canvas.index.positions(int(i)))}
