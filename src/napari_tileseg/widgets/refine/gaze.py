"""``look_at``: the view goes to an object, and comes near enough to judge it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import napari
    from napari.layers import Labels

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas

__all__ = ["look_at", "middle"]

_AROUND = 3.0
"""How many times as wide as the object the view is."""

_NEAREST = 24.0
"""Points of the screen that a pixel of the image takes at most."""

_READ = 1 << 22
"""Objects in larger boxes are not looked through for the slice that shows most of them."""


def look_at(viewer: napari.viewer.Viewer, layer: Labels, canvas: Canvas, label: int, box: Box, *, zoom: bool = True) -> None:
    """Centre the view on an object.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    layer : napari.layers.Labels
    canvas : Canvas
        Of the layer.
    label : int
    box : Box
        Around the object, one slice for each axis of the labels.
    zoom : bool
        Whether to come near as well; without, nothing moves where the object is in view.
    """
    dims, offset = viewer.dims, viewer.dims.ndim - layer.ndim
    shown = [axis - offset for axis in dims.displayed if axis >= offset]
    point = middle(canvas, label, box, shown)
    world = np.asarray(layer.data_to_world(point), dtype=np.float64)
    for axis in range(layer.ndim):
        if axis not in shown:
            dims.set_point(axis + offset, float(world[axis]))
    camera = getattr(viewer, "scene", viewer).camera  # newer napari keeps it in the scene
    centre = [float(value) for value in camera.center]
    for place, axis in enumerate(reversed(shown), 1):
        centre[-place] = float(world[axis])
    if zoom or not _in_view(viewer, camera, world, shown):
        camera.center = tuple(centre)
    if zoom:
        _come_near(viewer, layer, camera, box, shown)


def middle(canvas: Canvas, label: int, box: Box, shown: list[int]) -> tuple[float, ...]:
    """Return where to look, in pixels: the middle of the box, in the slice across the hidden axes that shows most of the object."""
    point = [(part.start + part.stop - 1) / 2 for part in box]
    hidden = [axis for axis in canvas.space if axis not in shown]
    if hidden and math.prod(part.stop - part.start for part in box) <= _READ:
        inside = canvas.read(box) == label
        for axis in hidden:
            along = inside.sum(axis=tuple(other for other in range(inside.ndim) if other != axis))
            most = np.flatnonzero(along == along.max())
            nearest = most[np.abs(most - (len(along) - 1) / 2).argmin()]
            point[axis] = float(box[axis].start + nearest)
    return tuple(point)


def _in_view(viewer: Any, camera: Any, world: Any, shown: list[int]) -> bool:
    """Whether a place is on the canvas."""
    size = _canvas_size(viewer)
    if size is None or len(shown) != 2:
        return False
    middle = np.asarray(camera.center[-2:], dtype=np.float64)
    return bool((np.abs(world[shown] - middle) < np.asarray(size) / 2 / float(camera.zoom)).all())


def _canvas_size(viewer: Any) -> Any:
    """Return rows and columns of the canvas."""
    size = getattr(getattr(viewer, "canvas", None), "size", None)
    return size if size is not None else getattr(viewer, "_canvas_size", None)  # before napari 0.9


def _come_near(viewer: Any, layer: Labels, camera: Any, box: Box, shown: list[int]) -> None:
    size = _canvas_size(viewer)
    if size is None or not shown:
        return
    low = np.asarray(layer.data_to_world([part.start - 0.5 for part in box]), dtype=np.float64)
    high = np.asarray(layer.data_to_world([part.stop - 0.5 for part in box]), dtype=np.float64)
    extent = np.abs(high - low)[shown[-2:]]
    pixel = extent / np.array([box[axis].stop - box[axis].start for axis in shown[-2:]])
    if not (extent > 0).all():
        return
    near = min(float(side) / (_AROUND * float(length)) for side, length in zip(size, extent, strict=True))
    camera.zoom = min(near, _NEAREST / float(pixel.max()))
