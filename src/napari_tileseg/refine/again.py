"""Here again: labels that were computed anew in a box, blended into the others as one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit

__all__ = ["blend"]


def blend(canvas: Canvas, box: Box, labels: NDArray[Any], *, inner: Box | None = None, least: float = 0.5) -> Edit:
    """Put labels that were computed in `box` (one slice per axis; with context) in place of those in `inner` (by default `box`).

    Classes are replaced in `inner`. Objects: a new one keeps the id of the old one that it shares at least `least` of the smaller
    of the two with; others get new ids.
    """
    raise NotImplementedError
