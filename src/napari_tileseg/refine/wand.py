"""Smart paint: what is like the clicked place and connected with it becomes an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit

__all__ = ["grow_region", "wand"]


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
) -> Edit:
    """Give `value` (a free id if None) to what is connected with a pixel and differs from it by `tolerance` at most.

    `cut` (axis, index): only in that slice. `reach`: not farther away than that (unit of the canvas). `over`: also over other
    objects, not only over background.
    """
    raise NotImplementedError


def grow_region(
    canvas: Canvas,
    image: Any,
    object_id: int,
    tolerance: float,
    *,
    at: tuple[int, ...] | None = None,
    cut: tuple[int, int] | None = None,
    reach: float | None = None,
    over: bool = False,
) -> Edit:
    """Grow an object into what is like it: within `tolerance` standard deviations of its own mean."""
    raise NotImplementedError
