"""``Layout``: how labels are cut into chunks on the disk, and what the coarser levels of their pyramid look like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.volume import SPATIAL_AXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Box = tuple[tuple[int, int], ...]

__all__ = ["Layout"]

_CANONICAL = "TCZYX"
"""The order of axes that OME-NGFF 0.5 asks for: time, channel, space."""

_SIDE = 512
"""Pixels along each side of a chunk of a plane."""

_SIDE_3D = 128
"""... and of a volume."""

_DEPTH = 32
"""Planes of a volume in one chunk, at most."""

_ROW_BYTES = 1 << 27
"""A row of chunks is held in memory until it is full; chunks of wide images are made lower so that it stays below this."""

_COARSEST = 512
"""Levels are added until the longest side in the plane is at most this long."""


@dataclass(frozen=True)
class Layout:
    """The geometry of a store of labels; nothing here touches a disk.

    ::

        result axes (the image's)  ->  stored axes (T C Z Y X)
        one entry of an axis that is run one by one = one sample; chunks are one entry thick there
        rows: along the first axis of space, in rows of chunks

    Parameters
    ----------
    axes : str
        Letters of the labels as they are indexed.
    shape : tuple of int
        Their lengths.
    dtype : str
        NumPy's name of the type.
    spatial : str
        Letters that one sample has (those the model sees as space); slabs arrive along the first of them.
    chunks : tuple of int
        Length of a chunk along each stored axis, on every level.
    factors : tuple of tuple of int
        How many pixels of the finest level one of each level stands for, along each stored axis; the first are all 1.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: str
    spatial: str
    chunks: tuple[int, ...]
    factors: tuple[tuple[int, ...], ...]

    @classmethod
    def plan(
        cls,
        shape: tuple[int, ...],
        dtype: Any,
        axes: str,
        *,
        spatial: str = "",
        spacing: Mapping[str, float] | None = None,
        pyramid: bool = True,
    ) -> Layout:
        """Make a layout.

        Parameters
        ----------
        spatial : str, optional
            ``"YX"`` or ``"ZYX"``; all axes of space by default.
        spacing : mapping of str to float, optional
            By axis; 1 where it is not given.
        pyramid : bool
            Whether there are coarser levels. Only without may values be floating-point numbers: scores.

        Raises
        ------
        OutputError
            If the values are no whole numbers of at most 64 bits.
        """
        kind = np.dtype(dtype)
        if kind.kind not in ("biu" if pyramid else "biuf"):
            raise OutputError(f"Labels are whole numbers; these are {kind}. Round them first.")
        space = spatial or "".join(axis for axis in SPATIAL_AXES if axis in axes)
        sizes = {axis: int(shape[axes.index(axis)]) for axis in _CANONICAL if axis in axes}
        steps = {axis: float((spacing or {}).get(axis, 1.0)) for axis in space}
        name = kind.newbyteorder("=").name
        factors = _factors(sizes, steps)
        chunks = _chunks(sizes, space, kind.itemsize)
        return cls(axes, tuple(int(size) for size in shape), name, space, chunks, factors if pyramid else factors[:1])

    @property
    def order(self) -> tuple[int, ...]:
        """For each stored axis its place among the axes of the labels."""
        return tuple(self.axes.index(axis) for axis in _CANONICAL if axis in self.axes)

    @property
    def stored_axes(self) -> str:
        return "".join(self.axes[place] for place in self.order)

    @property
    def stored_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[place] for place in self.order)

    @property
    def iterated(self) -> str:
        """Axes that are run one by one, in the order of the labels' axes: the last one is the fastest."""
        return "".join(axis for axis in self.axes if axis != "C" and axis not in self.spatial)

    @property
    def rows(self) -> int:
        """Rows of one sample."""
        return self.shape[self.axes.index(self.spatial[0])]

    @property
    def total_rows(self) -> int:
        """Rows of all samples: what `durable_rows` counts up to."""
        return self.rows * math.prod(self.shape[self.axes.index(axis)] for axis in self.iterated)

    @property
    def row_axis(self) -> int:
        """The stored axis along which slabs arrive."""
        return self.stored_axes.index(self.spatial[0])

    @property
    def sample_axes(self) -> tuple[int, ...]:
        """The stored axes that are run one by one, in the order of `iterated`."""
        return tuple(self.stored_axes.index(axis) for axis in self.iterated)

    def level_shape(self, level: int) -> tuple[int, ...]:
        """Return the stored shape of a level."""
        return tuple(-(-size // by) for size, by in zip(self.stored_shape, self.factors[level], strict=True))

    def ordinal(self, position: tuple[int, ...]) -> int:
        """Return the place of a sample, given by its index along each axis of `iterated`, in the order in which they are run."""
        ordinal = 0
        for axis, index in zip(self.iterated, position, strict=True):
            ordinal = ordinal * self.shape[self.axes.index(axis)] + index
        return ordinal

    def position(self, ordinal: int) -> tuple[int, ...]:
        """Undo `ordinal`."""
        indices = []
        for axis in reversed(self.iterated):
            ordinal, index = divmod(ordinal, self.shape[self.axes.index(axis)])
            indices.append(index)
        return tuple(reversed(indices))

    def pieces(self, box: Box) -> Iterator[tuple[tuple[int, ...], Box]]:
        """Cut a box of the stored axes into boxes of one sample and one row of chunks each, in the order of the rows.

        Yields
        ------
        position : tuple of int
            Of the sample.
        box : tuple of (start, stop)
            On the finest level.
        """
        depth = self.chunks[self.row_axis]
        spans = [range(*box[axis]) for axis in self.sample_axes]
        start, stop = box[self.row_axis]
        for count in range(math.prod(len(span) for span in spans)):
            position = []
            for span in reversed(spans):
                count, index = divmod(count, len(span))
                position.append(span[index])
            place = tuple(reversed(position))
            for first in range(start - start % depth, stop, depth):
                piece = list(box)
                for axis, index in zip(self.sample_axes, place, strict=True):
                    piece[axis] = (index, index + 1)
                piece[self.row_axis] = (max(start, first), min(stop, first + depth))
                yield place, tuple(piece)


def _chunks(sizes: Mapping[str, int], spatial: str, itemsize: int) -> tuple[int, ...]:
    """Choose the size of a chunk for stored axes of the given lengths; a row of chunks must fit into memory."""
    side = _SIDE if len(spatial) == 2 else _SIDE_3D
    chunk = {axis: 1 if axis not in spatial else min(side, size) for axis, size in sizes.items()}
    width = math.prod(sizes[axis] for axis in "C" + spatial[1:] if axis in sizes) * itemsize
    most = _DEPTH if len(spatial) == 3 else side
    while most > 1 and most * width > _ROW_BYTES:
        most //= 2
    chunk[spatial[0]] = min(most, sizes[spatial[0]])
    return tuple(chunk.values())


def _factors(sizes: Mapping[str, int], spacing: Mapping[str, float]) -> tuple[tuple[int, ...], ...]:
    """Choose the levels: axes of space are halved, the finer ones first, so that pixels become as cubic as they can."""
    now = dict.fromkeys(sizes, 1)
    levels = [tuple(now.values())]
    while max(-(-sizes[axis] // now[axis]) for axis in "YX") > _COARSEST:
        long = [axis for axis in spacing if sizes[axis] // now[axis] > 1]
        finest = min(spacing[axis] * now[axis] for axis in long)
        now |= {axis: 2 * now[axis] for axis in long if spacing[axis] * now[axis] <= 1.5 * finest}
        levels.append(tuple(now.values()))
    return tuple(levels)
