"""Tools on the shape of objects: fill, smooth, grow, shrink, convex hull; lengths are physical, and no object eats another."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from napari_tileseg.errors import OptionsError
from napari_tileseg.refine.blocks import blocks, clipped, grown, shape_of, shifted
from napari_tileseg.refine.draft import Draft
from napari_tileseg.refine.near import clusters
from napari_tileseg.refine.recolor import counted
from napari_tileseg.refine.scope import scope_of
from napari_tileseg.units import unit_symbol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas, Place
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.scope import Piece, Where

__all__ = ["check_distance", "convex_hull", "fill_holes", "grow", "shrink", "smooth", "spacing_of"]

_SLACK = 1 + 1e-9
"""A distance of three steps of 0.1 is 0.30000000000000004; it is meant to be within 0.3."""

_REGION = 1 << 24
"""Pixels of a region in which distances are computed at once."""


def fill_holes(canvas: Canvas, where: Where = None, *, largest: float | None = None, cancel: Callable[[], bool] | None = None) -> Edit:
    """Fill the background that an object encloses; what lies in a hole and is another object stays.

    Parameters
    ----------
    canvas : Canvas
    where : Where
        In a volume a hole is enclosed on all sides; in a slice, in that slice.
    largest : float, optional
        Only holes up to that area or volume, in the square or cube of the canvas's unit.
    cancel : callable, optional
        Asked from time to time; True stops it, and nothing is changed.
    """
    limit = math.inf
    if largest is not None:
        limit = check_distance(canvas, largest, "size") * _SLACK

    def change(piece: Piece, block: NDArray[Any], mask: NDArray[np.bool_], box: Box) -> NDArray[Any]:
        holes = ndimage.binary_fill_holes(mask) & ~mask
        if limit < math.inf and holes.any():
            found, _ = ndimage.label(holes)
            pixels = np.bincount(found.ravel()) * math.prod(spacing_of(canvas, piece.place))
            holes &= (pixels <= limit)[found]
        return np.where(holes & (block == 0), block.dtype.type(piece.id), block)

    return _each(canvas, where, "fill", "Filled holes in", change, 0.0, cancel)


def smooth(canvas: Canvas, where: Where = None, distance: float = 1.0, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Smooth outlines: each pixel goes with the majority of its neighbourhood. An object that would vanish stays as it is.

    What an object loses becomes background; of labels whose values are classes, the nearest other class.

    Parameters
    ----------
    canvas : Canvas
    where : Where
    distance : float
        Standard deviation of the neighbourhood, in the canvas's unit: thinner details go.
    cancel : callable, optional
    """
    check_distance(canvas, distance)

    def change(piece: Piece, block: NDArray[Any], mask: NDArray[np.bool_], box: Box) -> NDArray[Any]:
        sigma = [distance / step for step in spacing_of(canvas, piece.place)]
        # Beyond the border of the image the object goes on as it is there.
        kept = ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="nearest", truncate=3.0) > 0.5
        if not kept.any():
            return block
        after = np.where(kept & (block == 0), block.dtype.type(piece.id), block)
        lost = mask & ~kept
        if lost.any():
            after[lost] = 0
            if canvas.classes and not mask.all():
                nearest = ndimage.distance_transform_edt(
                    mask, sampling=spacing_of(canvas, piece.place), return_distances=False, return_indices=True
                )
                after[lost] = block[tuple(nearest)][lost]
        return after

    return _each(canvas, where, "smooth", "Smoothed", change, 3 * distance, cancel)


def shrink(canvas: Canvas, where: Where, distance: float, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Take away what is no farther than `distance` from the outside of an object.

    The border of the image is no outside: an object that it cuts goes on behind it.

    Parameters
    ----------
    canvas : Canvas
    where : Where
    distance : float
        Between centres of pixels, in the canvas's unit: one pixel size takes away the outermost pixels.
    cancel : callable, optional
    """
    check_distance(canvas, distance)

    def change(piece: Piece, block: NDArray[Any], mask: NDArray[np.bool_], box: Box) -> NDArray[Any]:
        if mask.all():
            return block
        inside = ndimage.distance_transform_edt(mask, sampling=spacing_of(canvas, piece.place))
        return np.where(mask & (inside <= distance * _SLACK), block.dtype.type(0), block)

    return _each(canvas, where, "shrink", "Shrank", change, max(canvas.spacing), cancel)


def convex_hull(canvas: Canvas, where: Where = None, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Fill the convex hull of each object (of its pixels' centres), where nothing else is."""

    def change(piece: Piece, block: NDArray[Any], mask: NDArray[np.bool_], box: Box) -> NDArray[Any]:
        return np.where(_hull(mask) & (block == 0), block.dtype.type(piece.id), block)

    return _each(canvas, where, "hull", "Filled the hull of", change, 0.0, cancel)


def grow(canvas: Canvas, where: Where, distance: float, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Grow objects into the background. Where two of them meet, each pixel goes to the nearer one.

    Parameters
    ----------
    canvas : Canvas
    where : Where
    distance : float
        Between centres of pixels, in the canvas's unit.
    cancel : callable, optional
    """
    check_distance(canvas, distance)
    draft, count, touched = Draft(canvas, cancel), 0, set()
    for place, group in itertools.groupby(scope_of(where).pieces(canvas), key=lambda piece: piece.place):
        pieces = list(group)
        count += len(pieces)
        steps = spacing_of(canvas, place)
        margin = [math.ceil(distance / step) for step in steps]
        shape = [canvas.shape[axis] for axis in place.axes]
        # Objects that cannot meet are looked at by themselves, so that nothing between them is read.
        for members, around in clusters([grown(piece.box, margin, shape) for piece in pieces]):
            near = [pieces[member] for member in members]
            for part in blocks(around, None, _REGION):
                touched |= _grow(draft, place, near, part, margin, distance, steps)
    return draft.edit("grow", f"Grew {len(touched)} of {counted(count)}.")


def _grow(
    draft: Draft, place: Place, pieces: list[Piece], part: Box, margin: list[int], distance: float, steps: Sequence[float]
) -> set[tuple[Place, int]]:
    """Grow objects inside one box; return those that did."""
    box = grown(part, margin, [draft.canvas.shape[axis] for axis in place.axes])
    block = draft.original(place, box)  # what grew in other boxes does not grow on
    if all(piece.inside is None for piece in pieces):
        ids = np.array([piece.id for piece in pieces], block.dtype)
        seeds = block == ids[0] if len(ids) == 1 else np.isin(block, ids)
    else:
        seeds = np.zeros(block.shape, np.bool_)
        for piece in pieces:
            shared = clipped(shifted(piece.box, [side.start for side in box]), block.shape)
            inside = piece.inside if piece.inside is not None else np.ones(shape_of(piece.box), np.bool_)
            origin = [own.start - side.start for own, side in zip(piece.box, box, strict=True)]
            seeds[shared] |= inside[shifted(shared, origin)] & (block[shared] == piece.id)
    if not seeds.any() or seeds.all():
        return set()
    far, nearest = ndimage.distance_transform_edt(~seeds, sampling=steps, return_indices=True)
    new = (far <= distance * _SLACK) & (block == 0)
    after = block.copy()
    after[new] = block[tuple(axis[new] for axis in nearest)]
    core = shifted(part, [side.start for side in box])
    draft.write(place, part, block[core], after[core])
    return {(place, int(value)) for value in np.unique(after[core][new[core]])}


def spacing_of(canvas: Canvas, place: Place) -> tuple[float, ...]:
    """Return the pixel size along the axes of a place."""
    return tuple(canvas.spacing[axis] for axis in place.axes)


def check_distance(canvas: Canvas, distance: float, what: str = "distance") -> float:
    """Return a length (or a size).

    Raises
    ------
    OptionsError
        If it is not above 0.
    """
    if not 0 < distance < math.inf:
        unit = unit_symbol(canvas.unit) if what == "distance" else canvas.size_unit
        raise OptionsError(f"A {what} of {distance} is not accepted: give a number above 0, in {unit}.")
    return distance


def _each(
    canvas: Canvas,
    where: Where,
    tool: str,
    verb: str,
    change: Callable[[Piece, NDArray[Any], NDArray[np.bool_], Box], NDArray[Any]],
    reach: float,
    cancel: Callable[[], bool] | None,
) -> Edit:
    """Change one object after the other, each in its box with a margin of `reach`."""
    draft, count, touched = Draft(canvas, cancel), 0, 0
    for piece in scope_of(where).pieces(canvas):
        count += 1
        margin = [math.ceil(reach / step) for step in spacing_of(canvas, piece.place)]
        box = grown(piece.box, margin, [canvas.shape[axis] for axis in piece.place.axes])
        block = draft.read(piece.place, box)
        after = change(piece, block, piece.mask(block, box), box)
        touched += draft.write(piece.place, box, block, after) > 0
    return draft.edit(tool, f"{verb} {touched} of {counted(count)}.")


def _hull(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the convex hull of a mask in a tight box.

    A row of pixels leaves a convex body only once, so it is enough to know where each row enters and leaves all half-spaces.
    """
    flat = tuple(axis for axis, size in enumerate(mask.shape) if size == 1)
    thin = mask.squeeze(flat)
    if thin.ndim < 2:  # a line is filled from its first pixel to its last, and the box is tight
        return np.ones_like(mask)
    rows = np.argwhere(thin.any(axis=-1))
    lines = thin[tuple(rows.T)]
    first, last = lines.argmax(axis=1), thin.shape[-1] - 1 - lines[:, ::-1].argmax(axis=1)
    ends = np.concatenate([np.column_stack([rows, first]), np.column_stack([rows, last])])
    try:
        planes = np.unique(ConvexHull(ends).equations, axis=0)
    except QhullError:  # all pixels lie in a plane (or on a line) that lies aslant
        return mask
    grid = np.indices(thin.shape[:-1]).reshape(thin.ndim - 1, -1)
    low, high = np.full(grid.shape[1], -np.inf), np.full(grid.shape[1], np.inf)
    for *across, along, offset in planes.tolist():
        value = offset + np.asarray(across) @ grid
        if abs(along) < 1e-12:
            high[value > 1e-9] = -np.inf  # the row is outside
        elif along > 0:
            np.minimum(high, -value / along, out=high)
        else:
            np.maximum(low, -value / along, out=low)
    places = np.arange(thin.shape[-1])
    filled = (places >= low[:, None] - 1e-9) & (places <= high[:, None] + 1e-9)
    return np.asarray(filled.reshape(thin.shape) | thin).reshape(mask.shape)
