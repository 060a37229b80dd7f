"""Split one object: by a line drawn across it, or by seeds in its parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit

__all__ = ["split_line", "split_seeds"]

Point = "Sequence[float]"


def split_line(canvas: Canvas, object_id: int, points: Sequence[Sequence[float]]) -> Edit:
    """Split an object along a line through `points` (pixels of the labels, in one plane); in a volume through all planes."""
    raise NotImplementedError


def split_seeds(
    canvas: Canvas,
    object_id: int,
    points: Sequence[Sequence[float]],
    image: Any = None,
    by: Literal["distance", "image", "scores"] = "distance",
) -> Edit:
    """Split an object into one part per seed by a watershed.

    `image` is an array of the labels' shape, read by the box: an image (`by` "image": parts meet at dark or bright ridges) or
    scores of the foreground ("scores": they meet where it is lowest).
    """
    raise NotImplementedError
