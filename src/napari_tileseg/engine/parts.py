"""``Part``: the box of one plane, frame or volume that is run at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from napari_tileseg.engine.axes import AxisMap

__all__ = ["Part", "Region", "plan_parts"]

Region = tuple[tuple[int, int], ...]
"""Start and stop along each axis."""


@dataclass(frozen=True)
class Part:
    """A box of one sample that the network sees, and the smaller box of it whose labels are wanted.

    Parameters
    ----------
    position : dict of str to int
        Index of the sample along each axis that is run one by one.
    start, stop : tuple of int
        The box, in the sample's indices.
    wanted : tuple of (start, stop)
        The smaller box, in the sample's indices.
    """

    position: dict[str, int]
    start: tuple[int, ...]
    stop: tuple[int, ...]
    wanted: Region

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))


def plan_parts(
    axis_map: AxisMap, region: Region | None, window: tuple[int, ...], ratios: Mapping[str, float] | None = None
) -> Iterator[Part]:
    """Yield every plane, frame or volume that a region touches, with half a window of context around it.

    Parameters
    ----------
    axis_map : AxisMap
        How the image's axes are used.
    region : tuple of (start, stop), optional
        Along each axis of the image without C; the whole image if not given.
    window : tuple of int
        The model's window, in its own pixels.
    ratios : mapping of str to float, optional
        The image's pixel size as a multiple of the model's, along each axis of space; 1 if not given.

    Raises
    ------
    OptionsError
        If the region does not lie inside the image.
    """
    spans = _spans(axis_map, region or tuple((0, size) for size in axis_map.grid_shape))
    wanted = tuple(spans[axis] for axis in axis_map.spatial)
    scales = [ratios[axis] if ratios else 1.0 for axis in axis_map.spatial]
    margin = [math.ceil(size / 2 / scale) for size, scale in zip(window, scales, strict=True)]
    start = tuple(max(0, low - room) for (low, _), room in zip(wanted, margin, strict=True))
    stop = tuple(min(size, high + room) for (_, high), room, size in zip(wanted, margin, axis_map.spatial_shape, strict=True))
    for position in axis_map.samples():
        if all(spans[axis][0] <= index < spans[axis][1] for axis, index in position.items()):
            yield Part(position, start, stop, wanted)


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
