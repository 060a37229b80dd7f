"""``Draft``: an edit in the making. What it changes can be read in it, while the labels stay as they are."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import Cancelled
from napari_tileseg.refine.blocks import Box, blocks, clipped, shape_of, shifted
from napari_tileseg.refine.canvas import Place
from napari_tileseg.refine.delta import Delta, Edit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Change

__all__ = ["Draft"]

_LARGE = 1 << 22
"""Most pixels of a delta."""

_MANY = 64
"""Deltas of labels in chunks that are done one by one."""

_KEPT = 1 << 25
"""Pixels of chunks that are kept while a draft is made."""

_PLAIN = 1 << 26
"""Bytes after which deltas are compressed at once: an edit of a whole volume would be held twice otherwise."""


class Draft:
    """Collects deltas, each made of the labels as the ones before it leave them.

    Parameters
    ----------
    canvas : Canvas
    cancel : callable, optional
        Asked at each read.
    """

    def __init__(self, canvas: Canvas, cancel: Callable[[], bool] | None = None) -> None:
        self.canvas = canvas
        self._cancel = cancel
        self._deltas: list[Change] = []
        self._bytes = 0
        self._chunks: OrderedDict[tuple[int, ...], NDArray[Any]] = OrderedDict()
        self._corners = np.zeros((16, 2, canvas.ndim), np.int64)  # of the deltas, with room for more

    def read(self, place: Place, box: Box) -> NDArray[Any]:
        """Return a copy of the labels in a box of a place, as they will be; one axis for each along which the place extends.

        Raises
        ------
        Cancelled
        """
        full = place.full(box)
        values = self.original(place, box).reshape([part.stop - part.start for part in full])
        for number in self._touching(full):
            delta = self._deltas[number]
            first = [max(part.start, at) for part, at in zip(full, delta.start, strict=True)]
            last = [min(part.stop, part2.stop) for part, part2 in zip(full, delta.box, strict=True)]
            shared = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
            values[shifted(shared, [part.start for part in full])] = delta.after[shifted(shared, delta.start)]
        return values.reshape([part.stop - part.start for part in box])

    def original(self, place: Place, box: Box) -> NDArray[Any]:
        """Return a copy of the labels as they are, without what was drafted.

        Raises
        ------
        Cancelled
        """
        if self._cancel is not None and self._cancel():
            raise Cancelled("The step was cancelled. Nothing was changed.")
        full, chunks = place.full(box), self.canvas.chunks
        if chunks is None:
            values = self.canvas.read(full)
        else:
            values = np.empty(shape_of(full), self.canvas.dtype)
            for chunk in blocks(full, chunks, 1):
                key = tuple(part.start // size for part, size in zip(chunk, chunks, strict=True))
                whole = _chunk_box(key, chunks, self.canvas.shape)
                inside = self._chunk(whole)[shifted(chunk, [part.start for part in whole])]
                values[shifted(chunk, [part.start for part in full])] = inside
        return values.reshape([part.stop - part.start for part in box])

    def _chunk(self, box: Box) -> NDArray[Any]:
        """Read a whole chunk; objects that lie in the same one come one after the other."""
        key = tuple(part.start for part in box)
        if key not in self._chunks:
            room = max(_KEPT // math.prod(shape_of(box)), 1)
            while len(self._chunks) >= room:
                self._chunks.popitem(last=False)
            self._chunks[key] = self.canvas.read(box)
        self._chunks.move_to_end(key)
        return self._chunks[key]

    def write(self, place: Place, box: Box, before: NDArray[Any], after: NDArray[Any]) -> int:
        """Take what a box held (from `read`) and what it will hold; return how many pixels differ."""
        full = place.full(box)
        shape = [part.stop - part.start for part in full]
        before, after = before.reshape(shape), after.reshape(shape)
        pixels = 0
        for part in blocks(full, self.canvas.chunks if before.size > _LARGE else None, _LARGE):
            local = shifted(part, [side.start for side in full])
            delta = Delta.between([side.start for side in part], before[local], after[local])
            if delta is not None:
                pixels += delta.pixels
                self._deltas.append(delta.packed() if self._bytes > _PLAIN else delta)
                self._bytes += delta.nbytes
                if len(self._deltas) > len(self._corners):
                    self._corners = np.concatenate([self._corners, np.zeros_like(self._corners)])
                self._corners[len(self._deltas) - 1] = delta.start, [side.stop for side in delta.box]
        return pixels

    def edit(self, tool: str, note: str = "") -> Edit:
        """Return what was collected."""
        if self.canvas.chunks is not None and len(self._deltas) > _MANY:
            self._join(self.canvas.chunks)
        return Edit(tool, tuple(self._deltas), note)

    def _join(self, chunks: tuple[int, ...]) -> None:
        """Make one delta of all that lie in a chunk, so that doing and undoing the edit writes each chunk once."""
        whole = Place((None,) * self.canvas.ndim)
        touched: dict[tuple[int, ...], Box] = {}
        for delta in self._deltas:
            for part in blocks(delta.box, chunks, 1):
                key = tuple(side.start // size for side, size in zip(part, chunks, strict=True))
                touched[key] = _chunk_box(key, chunks, self.canvas.shape)
        together = Draft(self.canvas, self._cancel)
        together._chunks = self._chunks
        for key in sorted(touched):
            together.write(whole, touched[key], self.original(whole, touched[key]), self.read(whole, touched[key]))
        self._deltas = together._deltas

    def _touching(self, box: Box) -> list[int]:
        starts, stops = self._corners[: len(self._deltas), 0], self._corners[: len(self._deltas), 1]
        low = np.array([part.start for part in box])
        high = np.array([part.stop for part in box])
        return [int(number) for number in np.flatnonzero(((starts < high) & (stops > low)).all(axis=1))]


def _chunk_box(key: tuple[int, ...], chunks: tuple[int, ...], shape: tuple[int, ...]) -> Box:
    return clipped(tuple(slice(at * size, (at + 1) * size) for at, size in zip(key, chunks, strict=True)), shape)
