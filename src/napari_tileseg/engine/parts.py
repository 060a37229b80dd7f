"""``Part``: the box of one plane, frame or volume that is run at once.

Rectangles that are wanted are parts of their own, each with what surrounds it. Those that touch are run together, lest an object
be cut where they meet; so are those whose common frame takes no more tiles than they do alone. ::

    +-------------+
    |  +---+      |          +---------+
    |  | A +--+   |          |  +---+  |       A and B: one part, of which two boxes are wanted
    |  +-+ | B|   |          |  | C |  |       C:       one part
    |    +-+--+   |          |  +---+  |
    +-------------+          +---------+
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.errors import OptionsError
from napari_tileseg.job import Region, Regions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from napari_tileseg.engine.axes import AxisMap

__all__ = ["Part", "Region", "Regions", "apart", "frame", "plan_parts"]


@dataclass(frozen=True)
class Part:
    """A box of one sample that the network sees, and the smaller boxes of it whose labels are wanted.

    Parameters
    ----------
    position : dict of str to int
        Index of the sample along each axis that is run one by one.
    start, stop : tuple of int
        The box, in the sample's indices.
    wanted : tuple of tuple of (start, stop)
        The smaller boxes, in the sample's indices; no two have a pixel in common.
    """

    position: dict[str, int]
    start: tuple[int, ...]
    stop: tuple[int, ...]
    wanted: Regions

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))


def plan_parts(
    axis_map: AxisMap,
    regions: Regions,
    window: tuple[int, ...],
    ratios: Mapping[str, float] | None = None,
    tiles: Callable[[Part], int] = lambda part: math.prod(part.shape),
) -> Iterator[Part]:
    """Yield what of every plane, frame or volume is run, with half a window of context around the regions.

    Parameters
    ----------
    axis_map : AxisMap
        How the image's axes are used.
    regions : tuple of tuple of (start, stop)
        Each along every axis of the image without C; the whole image if there is none.
    window : tuple of int
        The model's window, in its own pixels.
    ratios : mapping of str to float, optional
        The image's pixel size as a multiple of the model's, along each axis of space; 1 if not given.
    tiles : callable
        Says how many tiles a part takes; the number of its pixels by default.

    Raises
    ------
    OptionsError
        If a region does not lie inside the image.
    """
    every = [_spans(axis_map, region) for region in regions or [tuple((0, size) for size in axis_map.grid_shape)]]
    scales = [ratios[axis] if ratios else 1.0 for axis in axis_map.spatial]
    margin = [math.ceil(size / 2 / scale) for size, scale in zip(window, scales, strict=True)]

    def around(boxes: Iterable[Region]) -> Region:
        ends = zip(frame(boxes), margin, axis_map.spatial_shape, strict=True)
        return tuple((max(0, low - room), min(size, high + room)) for (low, high), room, size in ends)

    def part_of(position: dict[str, int], boxes: Sequence[Region]) -> Part:
        box = around(boxes)
        return Part(position, tuple(low for low, _ in box), tuple(high for _, high in box), tuple(boxes))

    def cheaper(one: Sequence[Region], other: Sequence[Region]) -> bool:
        return tiles(part_of({}, [*one, *other])) <= tiles(part_of({}, one)) + tiles(part_of({}, other))

    known: dict[Regions, list[Regions]] = {}  # the same for most planes and frames
    for position in axis_map.samples():
        here = [spans for spans in every if all(spans[axis][0] <= index < spans[axis][1] for axis, index in position.items())]
        boxes = tuple(tuple(spans[axis] for axis in axis_map.spatial) for spans in here)
        if boxes not in known:
            known[boxes] = [apart(group) for group in _grouped(boxes, around, cheaper)]
        for group in known[boxes]:
            yield part_of(position, group)


def frame(boxes: Iterable[Region]) -> Region:
    """Return the smallest box around several."""
    return tuple((min(low for low, _ in spans), max(high for _, high in spans)) for spans in zip(*boxes, strict=True))


def apart(boxes: Iterable[Region]) -> Regions:
    """Return boxes that cover the same pixels, none of them twice."""
    found: list[Region] = []
    for box in boxes:
        left = [box]
        for other in found:
            left = [piece for one in left for piece in _without(one, other)]
        found += left
    return tuple(found)


def _without(box: Region, hole: Region) -> Iterator[Region]:
    """Yield what is left of a box without another one, cut along one axis after the other."""
    if any(start >= high or stop <= low for (start, stop), (low, high) in zip(box, hole, strict=True)):
        yield box
        return
    rest = list(box)
    for axis, ((start, stop), (low, high)) in enumerate(zip(box, hole, strict=True)):
        for piece in ((start, low), (high, stop)):
            if piece[0] < piece[1]:
                yield (*rest[:axis], piece, *rest[axis + 1 :])
        rest[axis] = (max(start, low), min(stop, high))


def _touch(one: Region, other: Region) -> bool:
    """Whether two boxes have a pixel in common, or no pixel lies between them."""
    return all(start <= high and low <= stop for (start, stop), (low, high) in zip(one, other, strict=True))


def _grouped(
    boxes: Regions, around: Callable[[Iterable[Region]], Region], cheaper: Callable[[Sequence[Region], Sequence[Region]], bool]
) -> list[list[Region]]:
    """Put boxes that belong together into groups, in their order; what joins two groups joins all of both."""
    groups: dict[tuple[int, ...], Region] = {}  # places of the boxes, and what is seen around them

    def of(places: tuple[int, ...]) -> list[Region]:
        return [boxes[place] for place in places]

    def belong(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
        return any(_touch(boxes[here], boxes[there]) for here in one for there in other) or cheaper(of(one), of(other))

    for place, box in enumerate(boxes):
        group: tuple[int, ...] = (place,)
        view = around([box])
        while (other := next((other for other, seen in groups.items() if _touch(seen, view) and belong(other, group)), None)) is not None:
            del groups[other]
            group = tuple(sorted(other + group))
            view = around(of(group))
        groups[group] = view
    return [of(group) for group in sorted(groups)]


def _spans(axis_map: AxisMap, region: Region) -> dict[str, tuple[int, int]]:
    axes, shape = axis_map.grid_axes, axis_map.grid_shape
    if len(region) != len(axes):
        names = " ".join(axes)
        many = "1 axis" if len(region) == 1 else f"{len(region)} axes"
        raise OptionsError(f"The region has {many}, the labels have {len(axes)} ({names}). Give start and stop for each.")
    for axis, (start, stop), size in zip(axes, region, shape, strict=True):
        if not 0 <= start < stop <= size:
            raise OptionsError(
                f"The region runs from {start} to {stop} along {axis}; it must lie within 0 to {size} and hold at least one pixel."
            )
    return {axis: (int(start), int(stop)) for axis, (start, stop) in zip(axes, region, strict=True)}
