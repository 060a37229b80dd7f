"""Between slices: an object painted in some slices gets its shape in those between."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_tileseg.errors import InputError
from napari_tileseg.refine.blocks import shape_of
from napari_tileseg.refine.canvas import Place
from napari_tileseg.refine.draft import Draft
from napari_tileseg.refine.shape import spacing_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.index import Position

__all__ = ["interpolate", "painted_slices"]


def painted_slices(canvas: Canvas, object_id: int, axis: int, *, at: Position | None = None) -> list[int]:
    """Return the slices across `axis` in which an object is, ascending.

    Raises
    ------
    InputError
        If the object is not there, or `axis` is none along which objects extend in a volume.
    """
    place, box, along = _place(canvas, object_id, axis, at)
    inside = canvas.read(place.full(box)).reshape(shape_of(box)) == object_id
    found = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != along)))
    return [box[along].start + int(index) for index in found]


def interpolate(canvas: Canvas, object_id: int, axis: int, *, at: Position | None = None, over: bool = False) -> Edit:
    """Fill the empty slices between those in which an object is.

    Between two of its slices the signed distance to the outline goes evenly from one to the other. Where the two do not overlap,
    the shape also moves from one to the other. Its own slices stay as they are.

    Parameters
    ----------
    canvas : Canvas
        Of volumes.
    object_id : int
        An object, or a class.
    axis : int
        Of the labels: what the slices were painted across.
    at : Position, optional
        Time point; by default the only one at which the object is.
    over : bool
        Whether to fill also where other objects are, not only background.

    Raises
    ------
    InputError
        If the object is not there, or `axis` is none along which objects extend in a volume.
    """
    place, box, along = _place(canvas, object_id, axis, at)
    draft = Draft(canvas)
    steps = tuple(step for other, step in enumerate(spacing_of(canvas, place)) if other != along)
    block = draft.read(place, box)
    planes = np.moveaxis(block, along, 0)
    masks = planes == object_id
    painted = [int(index) for index in np.flatnonzero(masks.any(axis=(1, 2)))]
    after = planes.copy()
    filled = 0
    for first, last in itertools.pairwise(painted):
        if last - first < 2:
            continue
        for index, mask in zip(range(first + 1, last), _between(masks[first], masks[last], last - first, steps), strict=True):
            allowed = mask if over else mask & (planes[index] == 0)
            after[index][allowed] = object_id
            filled += bool(allowed.any())
    draft.write(place, box, block, np.moveaxis(after, 0, along))
    slices = f"{filled} slice{'s' * (filled != 1)}"
    return draft.edit("slices", f"Filled {slices} of object {object_id}." if filled else "There is no empty slice between painted ones.")


def _place(canvas: Canvas, object_id: int, axis: int, at: Position | None) -> tuple[Place, Box, int]:
    axis %= canvas.ndim
    if len(canvas.space) < 3 or axis not in canvas.space:
        raise InputError("Only objects in volumes have slices. Choose labels with three axes of space, and one of these.")
    positions = [at] if at is not None else canvas.index.positions(object_id)
    if len(positions) > 1:
        raise InputError(f"Object {object_id} is at {len(positions)} time points. Choose one.")
    place = canvas.place(positions[0]) if positions else Place((None,) * canvas.ndim)
    return place, place.local(canvas.index.box(object_id, positions[0] if positions else None)), place.axes.index(axis)


def _between(first: NDArray[np.bool_], last: NDArray[np.bool_], gap: int, steps: Sequence[float]) -> list[NDArray[np.bool_]]:
    """Return the masks of the slices between two, nearest to the first one first."""
    way, margin = np.zeros(2), 0
    if not (first & last).any():
        way = np.array(ndimage.center_of_mass(last)) - np.array(ndimage.center_of_mass(first))
        margin = int(np.ceil(np.abs(way).max())) + 1  # room to move in
    start, stop = (_distance(np.pad(mask, margin), steps) for mask in (first, last))
    inner = tuple(slice(margin, margin + size) for size in first.shape)
    masks = []
    for number in range(1, gap):
        part = number / gap
        signed = (1 - part) * _moved(start, way * part) + part * _moved(stop, way * (part - 1))
        masks.append(signed[inner] > 0)
    return masks


def _distance(mask: NDArray[np.bool_], steps: Sequence[float]) -> NDArray[np.float64]:
    """Return the distance to the outline: above 0 inside, below 0 outside."""
    padded = np.pad(mask, 1)  # the box is tight, and its border is outside
    signed: NDArray[Any] = ndimage.distance_transform_edt(padded, sampling=steps) - ndimage.distance_transform_edt(~padded, sampling=steps)
    return np.asarray(signed[1:-1, 1:-1], np.float64)


def _moved(signed: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    if not by.any():
        return signed
    return np.asarray(ndimage.shift(signed, by, order=1, mode="nearest"))
