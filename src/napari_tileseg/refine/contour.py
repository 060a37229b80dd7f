"""Outlines that find the edge: a drawn one snaps to it, an object's own one moves to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage.draw import polygon2mask
from skimage.segmentation import watershed

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.blocks import grown
from napari_tileseg.refine.canvas import Place
from napari_tileseg.refine.draft import Draft
from napari_tileseg.refine.picture import pixels_of
from napari_tileseg.refine.recolor import check_id, counted
from napari_tileseg.refine.scope import scope_of
from napari_tileseg.refine.shape import check_distance, spacing_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.scope import Where

__all__ = ["active_contour", "snap_outline", "snapped"]

_SIGMA = 1.0
"""Pixels over which the image is smoothed before its edges are looked for."""

_TRUST_DRAWN, _TRUST_FOUND = 0.75, 1.0
"""Standard deviation of where the edge is believed to be, around what was drawn or found, as a part of the most movement."""


def snap_outline(
    canvas: Canvas,
    image: Any,
    points: Sequence[Sequence[float]],
    *,
    value: int | None = None,
    distance: float = 5.0,
    normal: int | None = None,
    over: bool = False,
) -> Edit:
    """Fill an outline after moving it to the strongest edge nearby.

    Parameters
    ----------
    canvas : Canvas
    image : array-like
        On the labels' grid, read by the box; of colours, along one more, last axis, the mean counts.
    points : sequence of points
        Corners of the outline, in pixels of the labels, one coordinate per axis; three at least, in one plane.
    value : int, optional
        Id or class to give; a free id by default.
    distance : float
        How far each of its points may move, across the outline, in the canvas's unit; 0 fills it as it was drawn. Edges count less the
        farther away they are.
    normal : int, optional
        In a volume, the axis across the plane; by default the first one of space.
    over : bool
        Whether other objects are painted over; otherwise only background is.

    Raises
    ------
    InputError
        If the points do not lie in one plane of the labels, or are too few.
    """
    corners = np.asarray(points, np.float64).reshape(-1, canvas.ndim)
    if len(corners) < 3:
        raise InputError("An outline takes three points at least. Draw around the object.")
    if not distance >= 0:
        raise OptionsError(f"A distance of {distance} is not accepted: give a number from 0 up.")
    place, box, flat = _plane(canvas, corners, distance, normal)
    chosen = canvas.index.free_id() if value is None else check_id(canvas, int(value))
    local = corners[:, flat] - [part.start for part in box]
    steps = spacing_of(canvas, place)
    if distance > 0:
        edges = ndimage.gaussian_gradient_magnitude(pixels_of(image, canvas, place, box, grey=True), _SIGMA, mode="nearest")
        local = snapped(edges, local, distance, steps)
    draft = Draft(canvas)
    block = draft.read(place, box)
    inside = polygon2mask(block.shape, local)
    if not over:
        inside &= block == 0
    pixels = draft.write(place, box, block, np.where(inside, block.dtype.type(chosen), block))
    return draft.edit("outline", f"Painted {pixels} pixels of object {chosen}.")


def snapped(edges: NDArray[np.float64], outline: NDArray[np.float64], distance: float, steps: Sequence[float]) -> NDArray[np.float64]:
    """Move a closed outline to the strongest edge near it, without jumps: the best of all paths along it (dynamic programming).

    Parameters
    ----------
    edges : ndarray, shape (Y, X)
        How strong the edge is at each pixel.
    outline : ndarray, shape (N, 2)
        Corners, in pixels.
    distance : float
        Most movement, in the unit of `steps`.
    steps : sequence of float
        Pixel size along both axes.

    Returns
    -------
    ndarray, shape (M, 2)
        A point for about each pixel of the outline.
    """
    size = np.asarray(steps, np.float64)
    path = _resampled(outline * size, float(size.min()))
    if len(path) < 3:
        return outline
    tangent = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-12)
    across = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    half = max(math.ceil(distance / size.min()), 1)
    offsets = np.linspace(-distance, distance, 2 * half + 1)
    places = path[:, None, :] + offsets[None, :, None] * across[:, None, :]
    strength = ndimage.map_coordinates(edges, np.moveaxis(places / size, -1, 0), order=1, mode="nearest")
    strength *= _trust(offsets, _TRUST_DRAWN * distance)
    strength -= 1e-3 * float(strength.max()) * np.abs(offsets) / distance  # of equal ones the nearer
    rough = _best(strength, None)
    # The path is closed: it must end where it begins. Where it is in its middle does not depend on that.
    middle = len(path) // 2
    turned = np.roll(strength, -middle, axis=0)
    chosen = np.roll(_best(turned, int(rough[middle])), middle)
    return np.asarray(places[np.arange(len(path)), chosen] / size)


def active_contour(canvas: Canvas, image: Any, where: Where, *, distance: float = 5.0, cancel: Callable[[], bool] | None = None) -> Edit:
    """Move the outline of objects to the strongest edge of the image around.

    In the band of that `distance` on both sides of the outline, pixels are given to the inside or the outside by a watershed of
    the image's gradient, which meets at its highest ridge. Other objects stay as they are.

    Parameters
    ----------
    canvas : Canvas
    image : array-like
        On the labels' grid, read by the box; of colours, along one more, last axis, the mean counts.
    where : Where
    distance : float
        How far an outline may move, in the canvas's unit. Edges count less the farther away they are, so about twice of what an outline
        is usually wrong by is right.
    cancel : callable, optional
        Asked from time to time; True stops it, and nothing is changed.
    """
    check_distance(canvas, distance)
    draft, count, touched = Draft(canvas, cancel), 0, 0
    for piece in scope_of(where).pieces(canvas):
        count += 1
        place, steps = piece.place, spacing_of(canvas, piece.place)
        margin = [math.ceil(distance / step) + 2 for step in steps]
        box = grown(piece.box, margin, [canvas.shape[axis] for axis in place.axes])
        block = draft.read(place, box)
        mask = piece.mask(block, box)
        if mask.all():
            continue
        depth = ndimage.distance_transform_edt(mask, sampling=steps)
        away = ndimage.distance_transform_edt(~mask, sampling=steps)
        markers = np.zeros(block.shape, np.int8)
        markers[depth > min(distance, 0.75 * float(depth.max()))] = 1  # of a thin object its middle
        markers[(away > distance) | ((block != 0) & ~mask)] = 2
        if not (markers == 2).any():
            continue
        edges = ndimage.gaussian_gradient_magnitude(pixels_of(image, canvas, place, box, grey=True), _SIGMA, mode="nearest")
        edges *= _trust(np.maximum(depth, away) - 0.5 * min(steps), _TRUST_FOUND * distance)
        inside = watershed(edges, markers) == 1
        after = np.where(inside, block.dtype.type(piece.id), np.where(mask, block.dtype.type(0), block))
        touched += draft.write(place, box, block, after) > 0
    return draft.edit("contour", f"Moved the outline of {touched} of {counted(count)}.")


def _trust(away: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Return how much edges count that are so far away from an outline: a strong one of something else is often near."""
    trust: NDArray[np.float64] = np.exp(-0.5 * np.square(away / deviation))
    return trust


def _plane(canvas: Canvas, corners: NDArray[np.float64], distance: float, normal: int | None) -> tuple[Place, Box, list[int]]:
    """Return the plane of an outline, the box around it, and the plane's axes."""
    axes = list(canvas.space)
    if len(axes) == 3:
        axes.remove(axes[0] if normal is None else normal % canvas.ndim)
    others = [axis for axis in range(canvas.ndim) if axis not in axes]
    fixed = np.rint(corners[:, others]).astype(int)
    if (fixed != fixed[:1]).any():
        raise InputError("The outline is not in one plane. Draw it in one.")
    at = dict(zip(others, fixed[0].tolist() if others else [], strict=True))
    if any(not 0 <= index < canvas.shape[axis] for axis, index in at.items()):
        raise InputError("The outline is outside of the labels. Draw it inside.")
    place = Place(tuple(at.get(axis) for axis in range(canvas.ndim)))
    drawn = tuple(slice(math.floor(corners[:, axis].min()), math.ceil(corners[:, axis].max()) + 1) for axis in axes)
    margin = [math.ceil(distance / canvas.spacing[axis]) + 2 for axis in axes]
    box = grown(drawn, margin, [canvas.shape[axis] for axis in axes])
    if any(part.start >= part.stop for part in box):
        raise InputError("The outline is outside of the labels. Draw it inside.")
    return place, box, axes


def _resampled(corners: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Return points along a closed outline, `step` apart."""
    closed = np.concatenate([corners, corners[:1]])
    lengths = np.linalg.norm(np.diff(closed, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    count = max(int(along[-1] / step), 1)
    wanted = np.linspace(0, along[-1], count, endpoint=False)
    return np.stack([np.interp(wanted, along, closed[:, axis]) for axis in range(2)], axis=1)


def _best(strength: NDArray[np.float64], ends: int | None) -> NDArray[np.intp]:
    """Return, for each row, the column of the path with the largest sum; it moves by one column at most from row to row.

    `ends`: the column in which it must begin and end.
    """
    rows, columns = strength.shape
    total = strength[0].copy()
    if ends is not None:
        total = np.where(np.arange(columns) == ends, total, -np.inf)
    came = np.zeros((rows, columns), np.intp)
    for row in range(1, rows):
        around = np.pad(total, 1, constant_values=-np.inf)
        options = np.stack([around[1:-1], around[:-2], around[2:]])  # of equal ones, straight on
        choice = options.argmax(axis=0)
        came[row] = np.arange(columns) + np.array([0, -1, 1])[choice]
        total = options.max(axis=0) + strength[row]
    path = np.zeros(rows, np.intp)
    if ends is None:
        path[-1] = int(total.argmax())
    else:
        near = np.abs(np.arange(columns) - ends) <= 1
        path[-1] = int(np.where(near, total, -np.inf).argmax())
    for row in range(rows - 1, 0, -1):
        path[row - 1] = came[row, path[row]]
    return path
