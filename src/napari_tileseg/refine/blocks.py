"""Boxes that cover an array, a bounded number of pixels each, and along its chunks where it has any."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Box", "blocks", "clipped", "grown", "shape_of", "shifted", "union"]

Box = tuple[slice, ...]
"""A part of an array: one slice per axis, each with start and stop."""

_PIXELS = 1 << 22


def blocks(box: Box, chunks: Sequence[int] | None = None, pixels: int = _PIXELS) -> Iterator[Box]:
    """Cut a box into boxes, in the order of the array.

    Parameters
    ----------
    box : Box
    chunks : sequence of int, optional
        Size of the chunks along each axis: no chunk is cut, unless one alone is larger than `pixels`.
    pixels : int
        Most pixels of a block, as far as chunks allow.
    """
    sizes = [part.stop - part.start for part in box]
    steps = list(chunks) if chunks else [1] * len(sizes)
    # From the last axis on, because memory is contiguous there: whole rows, then whole planes.
    for axis in reversed(range(len(sizes))):
        others = math.prod(step for place, step in enumerate(steps) if place != axis)
        wanted, room = -(-sizes[axis] // steps[axis]) + bool(chunks), pixels // max(others, 1) // steps[axis]
        steps[axis] *= max(min(wanted, room), 1)
    ranges = []
    for part, step in zip(box, steps, strict=True):
        first = part.start - part.start % step if chunks else part.start
        ranges.append([slice(max(at, part.start), min(at + step, part.stop)) for at in range(first, part.stop, step)])
    yield from itertools.product(*ranges)


def shape_of(box: Box) -> tuple[int, ...]:
    """Return the size of a box along each axis."""
    return tuple(part.stop - part.start for part in box)


def union(first: Box, second: Box) -> Box:
    """Return the smallest box around two."""
    return tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, second, strict=True))


def clipped(box: Box, shape: Sequence[int]) -> Box:
    """Return the part of a box that lies in an array of that shape; it may be empty."""
    return tuple(slice(min(max(part.start, 0), size), max(min(part.stop, size), 0)) for part, size in zip(box, shape, strict=True))


def grown(box: Box, margin: Sequence[int], shape: Sequence[int]) -> Box:
    """Return a box with a margin along each axis, inside an array of that shape."""
    return clipped(tuple(slice(part.start - by, part.stop + by) for part, by in zip(box, margin, strict=True)), shape)


def shifted(box: Box, origin: Sequence[Any]) -> Box:
    """Return a box as seen from another box's first pixel."""
    return tuple(slice(part.start - int(at), part.stop - int(at)) for part, at in zip(box, origin, strict=True))
