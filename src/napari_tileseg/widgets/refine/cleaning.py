"""What Clean up can do, as data: names, what the amount means, which function does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_tileseg.errors import OptionsError
from napari_tileseg.refine import contour, objects, shape, wand

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.scope import Scope

__all__ = ["CLEANINGS", "Cleaning", "would"]

Amount = Literal["", "size", "length", "label", "times"]


@dataclass(frozen=True)
class Cleaning:
    """One entry of the field Do.

    Parameters
    ----------
    name : str
        How edits made with it are counted.
    label : str
        What the field says.
    words : str
        What goes on: ``"Smoothing"``.
    amount : str
        What the field Amount holds: an area or volume, a length, another label, a number of standard deviations, or nothing.
    make : callable
        Called as ``make(canvas, scope, amount, image, cancel)``.
    image : bool
        Whether it looks at the image.
    """

    name: str
    label: str
    words: str
    amount: Amount
    make: Callable[[Canvas, Scope, float, Any, Callable[[], bool]], Edit]
    image: bool = False


def _active_contour(canvas: Canvas, scope: Scope, amount: float, image: Any, cancel: Callable[[], bool]) -> Edit:
    if image is None:
        raise OptionsError("No image of the shape of these labels is chosen. Choose it at Image.")
    return contour.active_contour(canvas, image, scope, distance=amount, cancel=cancel)


def _grow_region(canvas: Canvas, scope: Scope, amount: float, image: Any, cancel: Callable[[], bool]) -> Edit:
    if image is None:
        raise OptionsError("No image of the shape of these labels is chosen. Choose it at Image.")
    if scope.ids is None or len(scope.ids) != 1:
        raise OptionsError("One object at a time grows into the image. Choose Selected object at On, and select its label.")
    return wand.grow_region(canvas, image, scope.ids[0], amount, at=scope.at, cut=scope.cut, cancel=cancel)


CLEANINGS = (
    Cleaning("remove_smaller", "Remove smaller than", "Removing", "size", lambda c, s, a, i, x: objects.remove_smaller(c, a, s, cancel=x)),
    Cleaning("remove_larger", "Remove larger than", "Removing", "size", lambda c, s, a, i, x: objects.remove_larger(c, a, s, cancel=x)),
    Cleaning("keep_largest", "Keep the largest", "Removing", "", lambda c, s, a, i, x: objects.keep_largest(c, s, cancel=x)),
    Cleaning("remove_at_border", "Remove at the border", "Removing", "", lambda c, s, a, i, x: objects.remove_at_border(c, s, cancel=x)),
    Cleaning("fill", "Fill holes", "Filling", "", lambda c, s, a, i, x: shape.fill_holes(c, s, cancel=x)),
    Cleaning("smooth", "Smooth", "Smoothing", "length", lambda c, s, a, i, x: shape.smooth(c, s, a, cancel=x)),
    Cleaning("grow", "Grow", "Growing", "length", lambda c, s, a, i, x: shape.grow(c, s, a, cancel=x)),
    Cleaning("shrink", "Shrink", "Shrinking", "length", lambda c, s, a, i, x: shape.shrink(c, s, a, cancel=x)),
    Cleaning("hull", "Convex hull", "Filling hulls", "", lambda c, s, a, i, x: shape.convex_hull(c, s, cancel=x)),
    Cleaning("snap", "Snap to the edge", "Finding edges", "length", _active_contour, image=True),
    Cleaning("grow_region", "Grow into what is alike", "Growing", "times", _grow_region, image=True),
    Cleaning("components", "Separate parts", "Separating", "", lambda c, s, a, i, x: objects.components(c, s, cancel=x)),
    Cleaning("relabel", "Number in sequence", "Numbering", "", lambda c, s, a, i, x: objects.relabel(c, s, cancel=x)),
    Cleaning("reassign", "Change label to", "Changing", "label", lambda c, s, a, i, x: objects.reassign(c, s, round(a))),
)

_VERBS = {
    "Removed": "remove",
    "Kept": "keep",
    "Filled": "fill",
    "Smoothed": "smooth",
    "Grew": "grow",
    "Shrank": "shrink",
    "Merged": "merge",
    "Moved": "move",
    "Changed": "change",
    "Split": "split",
}


def would(edit: Edit) -> str:
    """Say what an edit would do that was not done: ``"Would remove 14 of 86 objects."``."""
    first, _, rest = edit.note.partition(" ")
    if first in _VERBS and rest:
        return f"Would {_VERBS[first]} {rest}"
    return f"Would change {edit.pixels:,} pixels." if edit else "Would change nothing."
