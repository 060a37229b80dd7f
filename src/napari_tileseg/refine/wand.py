"""Smart paint: what is like the clicked place, or like an object, and connected with it, joins it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.blocks import grown
from napari_tileseg.refine.draft import Draft
from napari_tileseg.refine.picture import pixels_of
from napari_tileseg.refine.recolor import check_id
from napari_tileseg.refine.scope import Scope
from napari_tileseg.refine.shape import check_distance, spacing_of
from napari_tileseg.units import unit_symbol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas, Place
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.index import Position

__all__ = ["grow_region", "wand"]

_REACH = 32
"""Pixels around the beginning that are looked at first; doubled until nothing leaves them."""


def wand(
    canvas: Canvas,
    image: Any,
    point: Sequence[float],
    tolerance: float,
    *,
    value: int | None = None,
    cut: tuple[int, int] | None = None,
    reach: float | None = None,
    over: bool = False,
    cancel: Callable[[], bool] | None = None,
) -> Edit:
    """Make an object of what is connected with a pixel and like it.

    Parameters
    ----------
    canvas : Canvas
    image : array-like
        On the labels' grid, read by the box; colours along one more, last axis.
    point : point
        In pixels of the labels, one coordinate per axis.
    tolerance : float
        Most difference from the pixel, in the image's own values; of colours, of each of them.
    value : int, optional
        Id or class to give; a free id by default.
    cut : (int, int), optional
        Axis of the labels and index along it: only that slice.
    reach : float, optional
        Nothing farther from the pixel than that, in the canvas's unit; by default as far as pixels are like it.
    over : bool
        Whether other objects are painted over; otherwise only background is.
    cancel : callable, optional

    Raises
    ------
    InputError
        If the point is outside of the labels, or on another object and `over` is false.
    """
    if not tolerance >= 0:
        raise OptionsError(f"A tolerance of {tolerance} is not accepted: give a number from 0 up, in values of the image.")
    pixel = canvas.pixel(point)
    place = _place(canvas, canvas.position(pixel), pixel, cut)
    at = tuple(pixel[axis] for axis in place.axes)
    seed: Box = tuple(slice(index, index + 1) for index in at)
    middle = pixels_of(image, canvas, place, seed)
    chosen = canvas.index.free_id() if value is None else check_id(canvas, int(value))
    there = int(canvas.read(place.full(seed)).item())
    if there not in (0, chosen) and not over:
        raise InputError(f"Object {there} is there already. Click on background, or paint over it.")

    def like(values: NDArray[np.float64]) -> NDArray[np.bool_]:
        near = np.abs(values - middle.reshape(middle.shape[len(at) :])) <= tolerance
        return np.asarray(near.all(axis=-1) if near.ndim > len(at) else near)

    def start(box: Box, block: NDArray[Any]) -> NDArray[np.bool_]:
        seeds = np.zeros(block.shape, np.bool_)
        seeds[tuple(index - part.start for index, part in zip(at, box, strict=True))] = True
        return seeds

    draft = Draft(canvas, cancel)
    pixels, more = _spread(draft, image, place, seed, chosen, like, start, reach=reach, over=over)
    return draft.edit("wand", f"Painted {pixels} pixels of object {chosen}.{_limit(canvas, reach) if more else ''}")


def grow_region(
    canvas: Canvas,
    image: Any,
    object_id: int,
    tolerance: float,
    *,
    at: Position | None = None,
    cut: tuple[int, int] | None = None,
    reach: float | None = None,
    over: bool = False,
    cancel: Callable[[], bool] | None = None,
) -> Edit:
    """Grow an object into what is connected with it and like it.

    Parameters
    ----------
    canvas : Canvas
    image : array-like
        On the labels' grid, as for `wand`; of colours their mean counts.
    object_id : int
    tolerance : float
        Most difference from the object's mean, in its standard deviations.
    at : Position, optional
        Time point; by default the only one at which the object is.
    cut, reach, over, cancel
        As for `wand`; `reach` is counted from the box around the object.
    """
    if not tolerance > 0:
        raise OptionsError(f"A tolerance of {tolerance} is not accepted: give a number of standard deviations above 0.")
    pieces = list(Scope((object_id,), at, cut).pieces(canvas))
    if len(pieces) > 1:
        raise InputError(f"Object {object_id} is at {len(pieces)} time points. Choose one.")
    piece = pieces[0]
    draft = Draft(canvas, cancel)
    inside = pixels_of(image, canvas, piece.place, piece.box, grey=True)[piece.mask(draft.read(piece.place, piece.box))]
    mean, spread = float(inside.mean()), max(float(inside.std()), 1e-12)

    def like(values: NDArray[np.float64]) -> NDArray[np.bool_]:
        grey = values.mean(axis=-1) if values.ndim > len(piece.box) else values
        return np.asarray(np.abs(grey - mean) <= tolerance * spread)

    def start(box: Box, block: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(block == object_id)

    pixels, more = _spread(draft, image, piece.place, piece.box, object_id, like, start, reach=reach, over=over)
    return draft.edit("region", f"Object {object_id} grew by {pixels} pixels.{_limit(canvas, reach) if more else ''}")


def _limit(canvas: Canvas, reach: float | None) -> str:
    return f" More is like it beyond the reach of {reach:.3g} {unit_symbol(canvas.unit)}."


def _spread(
    draft: Draft,
    image: Any,
    place: Place,
    origin: Box,
    value: int,
    like: Callable[[NDArray[np.float64]], NDArray[np.bool_]],
    start: Callable[[Box, NDArray[Any]], NDArray[np.bool_]],
    *,
    reach: float | None,
    over: bool,
) -> tuple[int, bool]:
    """Paint what is connected with the start; the box that is read grows until it holds all of that.

    Returns
    -------
    pixels : int
    more : bool
        Whether it would go on beyond the reach.
    """
    canvas = draft.canvas
    shape = [canvas.shape[axis] for axis in place.axes]
    limit = None
    if reach is not None:
        check_distance(canvas, reach)
        limit = [math.floor(reach / step * (1 + 1e-9)) for step in spacing_of(canvas, place)]
    margin = _REACH
    while True:
        wide = [margin] * len(shape) if limit is None else [min(margin, most) for most in limit]
        box = grown(origin, wide, shape)
        block = draft.read(place, box)
        seeds = start(box, block)
        allowed = like(pixels_of(image, canvas, place, box))
        allowed &= (block == 0) | (block == value) if not over else True
        allowed |= seeds
        beyond = None
        if reach is not None:
            near = _near(box, origin, spacing_of(canvas, place), reach)
            beyond, allowed = allowed & ~near, allowed & near
        parts, _ = ndimage.label(allowed)  # sides only: a leak through a corner is rarely meant
        found = np.isin(parts, np.unique(parts[seeds]))
        border = _leaves(found, box, shape)
        if not border or (limit is not None and all(reached >= most for reached, most in zip(wide, limit, strict=True))):
            more = beyond is not None and bool((ndimage.binary_dilation(found) & beyond).any())
            return draft.write(place, box, block, np.where(found, block.dtype.type(value), block)), more or border
        margin *= 2


def _near(box: Box, origin: Box, spacing: Sequence[float], reach: float) -> NDArray[np.bool_]:
    """Return which pixels of a box are within a distance of another box."""
    squares = np.zeros(())
    for part, inner, step in zip(box, origin, spacing, strict=True):
        at = np.arange(part.start, part.stop)
        beside = np.maximum(np.maximum(inner.start - at, at - (inner.stop - 1)), 0) * step
        squares = np.add.outer(squares, beside**2)
    return np.asarray(squares <= (reach * (1 + 1e-9)) ** 2)


def _leaves(found: NDArray[np.bool_], box: Box, shape: Sequence[int]) -> bool:
    for axis, (part, size) in enumerate(zip(box, shape, strict=True)):
        if part.start > 0 and found.take(0, axis=axis).any():
            return True
        if part.stop < size and found.take(-1, axis=axis).any():
            return True
    return False


def _place(canvas: Canvas, position: Position, pixel: tuple[int, ...], cut: tuple[int, int] | None) -> Place:
    if cut is None or len(canvas.space) < 3:
        return canvas.place(position)
    place = Scope(None, position, cut).places(canvas)[0]
    axis = cut[0] % canvas.ndim
    if place.fixed[axis] is not None and pixel[axis] != place.fixed[axis]:
        raise InputError("The point is not in that slice. Click in it.")
    return place
