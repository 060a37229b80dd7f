"""``Place``: where a model looks again, on the grid of the labels and on that of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import InputError
from napari_tileseg.refine.blocks import clipped, shifted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas

__all__ = ["Place", "letters_of", "place_of"]

_AROUND = 4
"""One part in so many of the window is computed around the place, so that objects at its sides are known as a whole."""


@dataclass(frozen=True)
class Place:
    """Where a model looks again.

    ::

        image    +--------------------------------+
                 |  region +------------------+   |    computed; of labels that are a part of the image
                 |  labels |  +---------------|---|    it may reach beyond them
                 |     |   |  | inner  |  box |   |
                 +--------------------------------+

    Parameters
    ----------
    inner : Box
        What is replaced, one slice for each axis of the labels.
    box : Box
        What of the labels is computed: more of it around.
    region : tuple of (start, stop)
        What is computed, along the axes of the model's result (the image without C).
    cut : Box
        Where `box` lies in the region, one slice for each axis of the result.
    replaced : tuple of (start, stop)
        What is replaced, along the axes of the result.
    """

    inner: Box
    box: Box
    region: tuple[tuple[int, int], ...]
    cut: Box
    replaced: tuple[tuple[int, int], ...]


def letters_of(canvas: Canvas, axis_map: AxisMap, origin: Sequence[int]) -> list[str]:
    """Return the axis of the result that each axis of the labels is; empty for one that only keeps the place of channels.

    Parameters
    ----------
    canvas : Canvas
    axis_map : AxisMap
        Of the image.
    origin : sequence of int
        Pixel of the image on which the first one of the labels lies.

    Raises
    ------
    InputError
        If the labels do not lie on the image's grid.
    """
    sizes, shape, whole = list(axis_map.grid_shape), canvas.shape, not any(origin)
    extra = [axis for axis in range(canvas.ndim) if shape[axis] == 1] if canvas.ndim == len(sizes) + 1 else []
    kept = next((axis for axis in extra if [*shape[:axis], *shape[axis + 1 :]] == sizes), None)
    letters = list(axis_map.grid_axes)
    if kept is not None:
        letters.insert(kept, "")
        return letters
    inside = len(shape) == len(sizes) and all(at + size <= most for at, size, most in zip(origin, shape, sizes, strict=True))
    if list(shape) != sizes and (whole or not inside):
        raise InputError(f"These labels have shape {shape}; on this image they would have {tuple(sizes)}. Choose the image they belong to.")
    return letters


def place_of(
    canvas: Canvas,
    axis_map: AxisMap,
    region: Sequence[tuple[int, int]],
    window: Sequence[int],
    *,
    depth: tuple[int, tuple[int, int]] | None = None,
    at: Any = (),
    origin: Sequence[int] = (),
) -> Place:
    """Return what is computed and what is replaced.

    Parameters
    ----------
    canvas : Canvas
        Of the labels: the axes of the model's result, and maybe one of length 1 where the image has its channels.
    axis_map : AxisMap
        Of the image.
    region : sequence of (start, stop)
        Along the axes of the result, in pixels of the labels; what was drawn or is in view.
    window : sequence of int
        Of the model, along its axes.
    depth : (axis, (start, stop)), optional
        Slices along an axis of the labels.
    at : sequence of float
        The place in view, in pixels of the labels: of several time points only this one is looked at.
    origin : sequence of int, optional
        Pixel of the image on which the first one of the labels lies, where they are a part of it.

    Raises
    ------
    InputError
        If the labels do not lie on the image's grid.
    """
    start = list(origin) or [0] * canvas.ndim
    letters, shape = letters_of(canvas, axis_map, start), canvas.shape
    spans = dict(zip(axis_map.grid_axes, region, strict=True))
    sizes = dict(zip(axis_map.grid_axes, axis_map.grid_shape, strict=True))
    inner = [slice(*spans[letter]) if letter else slice(0, 1) for letter in letters]
    if depth is not None:
        inner[depth[0]] = slice(*depth[1])
    for axis in canvas.outer:
        if letters[axis]:
            here = min(max(round(float(at[axis])), 0), shape[axis] - 1)
            inner[axis] = slice(here, here + 1)
    inner = list(clipped(tuple(inner), shape))
    margins = dict(zip(axis_map.spatial, (size // _AROUND for size in window), strict=False))
    wide = tuple(
        slice(max(part.start - margins.get(letter, 0), -first), min(part.stop + margins.get(letter, 0), sizes.get(letter, 1) - first))
        for part, letter, first in zip(inner, letters, start, strict=True)
    )
    box = clipped(wide, shape)
    cut = shifted(box, [part.start for part in wide])
    real = [axis for axis, letter in enumerate(letters) if letter]
    return Place(
        tuple(inner),
        box,
        tuple((wide[axis].start + start[axis], wide[axis].stop + start[axis]) for axis in real),
        tuple(cut[axis] for axis in real),
        tuple((inner[axis].start + start[axis], inner[axis].stop + start[axis]) for axis in real),
    )
