"""Outlines that find the edge: a drawn one snaps to it, an object's own one moves to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.scope import Where

__all__ = ["active_contour", "snap_outline"]


def snap_outline(
    canvas: Canvas,
    image: Any,
    points: Sequence[Sequence[float]],
    *,
    value: int | None = None,
    distance: float = 5.0,
    over: bool = False,
) -> Edit:
    """Fill a closed outline (pixels of the labels, in one plane) after moving it to the strongest edge within `distance`."""
    raise NotImplementedError


def active_contour(
    canvas: Canvas, image: Any, where: Where, *, distance: float = 5.0, smoothing: int = 1, cancel: Callable[[], bool] | None = None
) -> Edit:
    """Move the outline of objects to the edges of the image, by `distance` (unit of the canvas) at most."""
    raise NotImplementedError
