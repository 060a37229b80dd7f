"""Tools on the shape of objects: fill, smooth, grow, shrink, convex hull; lengths are physical, and no object eats another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.scope import Where

__all__ = ["convex_hull", "fill_holes", "grow", "shrink", "smooth"]


def fill_holes(canvas: Canvas, where: Where = None, *, largest: float | None = None, cancel: Callable[[], bool] | None = None) -> Edit:
    """Fill the background that an object encloses; holes up to the size `largest` (unit of the canvas) if that is given."""
    raise NotImplementedError


def smooth(canvas: Canvas, where: Where = None, distance: float = 1.0, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Smooth outlines: details smaller than `distance` (unit of the canvas) go."""
    raise NotImplementedError


def grow(canvas: Canvas, where: Where, distance: float, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Grow objects into the background by `distance` (unit of the canvas)."""
    raise NotImplementedError


def shrink(canvas: Canvas, where: Where, distance: float, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Take away what is nearer than `distance` (unit of the canvas) to the outside of an object."""
    raise NotImplementedError


def convex_hull(canvas: Canvas, where: Where = None, *, cancel: Callable[[], bool] | None = None) -> Edit:
    """Fill the convex hull of each object, where nothing else is."""
    raise NotImplementedError
