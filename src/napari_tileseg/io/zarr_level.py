"""``Level``: one resolution of labels on the disk, and the row of chunks of it that is being filled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.moving import patiently

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.io.zarr_layout import Box, Layout

__all__ = ["Level"]


class Level:
    """Gathers slabs until a row of chunks is full, so that each chunk is written once.

    Parameters
    ----------
    array : zarr.Array
        Of the level.
    layout : Layout
        Of the store.
    index : int
        Which level.
    reread : bool
        Whether the array may hold rows that were not assigned through this object.
    """

    def __init__(self, array: Any, layout: Layout, index: int, *, reread: bool) -> None:
        self.array = array
        self.dirty = False
        self._layout = layout
        self._factors = layout.factors[index]
        self._depth = layout.chunks[layout.row_axis]
        self._reread = reread
        self._written: set[tuple[Any, ...]] = set()
        self._key: tuple[Any, ...] | None = None
        self._box: Box = ()
        self._buffer: NDArray[Any] = np.empty(0)

    def put(self, position: tuple[int, ...], piece: Box, block: NDArray[Any]) -> None:
        """Take the pixels of a box of the finest level that this one has."""
        box = tuple((-(-start // by), -(-stop // by)) for (start, stop), by in zip(piece, self._factors, strict=True))
        if any(start == stop for start, stop in box):
            return
        thin = tuple(slice(low * by - start, None, by) for (low, _), (start, _), by in zip(box, piece, self._factors, strict=True))
        block = block[thin]
        axis = self._layout.row_axis
        for first in range(box[axis][0] // self._depth * self._depth, box[axis][1], self._depth):
            start, stop = max(first, box[axis][0]), min(first + self._depth, box[axis][1])
            self._turn_to((position, first))
            part = [slice(low - origin, high - origin) for (low, high), (origin, _) in zip(box, self._box, strict=True)]
            part[axis] = slice(start - first, stop - first)
            taken = [slice(None)] * len(box)
            taken[axis] = slice(start - box[axis][0], stop - box[axis][0])
            self._buffer[tuple(part)] = block[tuple(taken)]
            self.dirty = True
            if stop == self._box[axis][1]:
                self.write()

    def write(self) -> None:
        """Put the row of chunks on the disk, if there is anything new in it."""
        if self.dirty and self._key is not None:
            box = tuple(slice(*span) for span in self._box)
            patiently(lambda: self.array.__setitem__(box, self._buffer))  # somebody may just be looking at it
            self._written.add(self._key)
            self.dirty = False

    def forget(self) -> None:
        """Drop what is in memory: the disk has something newer."""
        self._key, self._reread = None, True

    def _turn_to(self, key: tuple[Any, ...]) -> None:
        """Make the buffer the given row of chunks of the given sample."""
        if key == self._key:
            return
        self.write()
        position, first = key
        box = [(0, size) for size in self.array.shape]
        for axis, index in zip(self._layout.sample_axes, position, strict=True):
            box[axis] = (index, index + 1)
        axis = self._layout.row_axis
        box[axis] = (first, min(first + self._depth, self.array.shape[axis]))
        shape = tuple(stop - start for start, stop in box)
        if self._buffer.shape != shape:
            self._buffer = np.zeros(shape, self.array.dtype)
        self._key, self._box = key, tuple(box)
        if self._reread or key in self._written:
            self._buffer[...] = self.array[tuple(slice(*span) for span in box)]
        else:
            self._buffer.fill(0)
