"""Between slices: an object painted in some slices gets its shape in those between."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit

__all__ = ["interpolate", "painted_slices"]


def painted_slices(canvas: Canvas, object_id: int, axis: int, *, at: tuple[int, ...] | None = None) -> list[int]:
    """Return the slices across `axis` in which an object is."""
    raise NotImplementedError


def interpolate(canvas: Canvas, object_id: int, axis: int, *, at: tuple[int, ...] | None = None, over: bool = False) -> Edit:
    """Fill the empty slices between those across `axis` in which an object is, by signed distances."""
    raise NotImplementedError
