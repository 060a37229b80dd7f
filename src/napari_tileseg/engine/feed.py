"""``Feed``: reads the image row by row of tiles, one row ahead, each pixel once."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.engine.tiles import Tile, mirror

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from numpy.typing import NDArray

    from napari_tileseg.engine.protocols import Source
    from napari_tileseg.engine.tiles import Row, TilePlan

__all__ = ["Feed", "read_padded"]


def read_padded(source: Source, box: Tile, *, mirrored: bool) -> NDArray[np.float32]:
    """Read a box that may reach beyond the image.

    Parameters
    ----------
    source : Source
        The image.
    box : Tile
        What to read, in the image's coordinates.
    mirrored : bool
        Whether the image goes on mirrored beyond its border; zeros otherwise.

    Returns
    -------
    ndarray of float32, shape (C, *box.shape)
    """
    shape = source.shape[1:]
    if not mirrored:
        inside = box.clipped(shape)
        if inside == box:
            return np.asarray(source.read(box.slices), dtype=np.float32)
        block = np.zeros((source.shape[0], *box.shape), dtype=np.float32)
        if min(inside.shape) > 0:  # a row of windows may bring nothing but what lies beyond the image
            block[(slice(None), *inside.relative_to(box.start).slices)] = source.read(inside.slices)
        return block
    places = [mirror(start, stop, size) for (start, stop), size in zip(box.bounds, shape, strict=True)]
    region = tuple(slice(int(place.min()), int(place.max()) + 1) for place in places)
    block = np.asarray(source.read(region), dtype=np.float32)
    for axis, (place, part) in enumerate(zip(places, region, strict=True), start=1):
        if len(place) != part.stop - part.start or (np.diff(place) != 1).any():
            block = block.take(place - part.start, axis=axis)
    return block


class Feed:
    """Gives the pixels that each row of tiles sees, and reads those of the next row meanwhile.

    Rows overlap; what the next one sees again is kept, so that a slow source is asked for every pixel once (mirrored borders
    apart). It holds one row and the new part of the next.

    Parameters
    ----------
    source : Source
        The image.
    plan : TilePlan
        Where the tiles lie.
    first : int
        The first row that will be asked for.
    check : callable
        Called about ten times a second while a read is awaited; may raise.
    offset : tuple of int, optional
        Where the plan's image begins in the source, if it is a part of it.
    """

    def __init__(
        self,
        source: Source,
        plan: TilePlan,
        *,
        first: int = 0,
        check: Callable[[], None] = lambda: None,
        offset: tuple[int, ...] | None = None,
    ) -> None:
        self._source, self._plan, self._check = source, plan, check
        self._offset = offset or (0,) * len(plan.shape)
        self._block = np.empty((source.shape[0], plan.window[0], *plan.seen.shape[1:]), dtype=np.float32)
        self._seen_to: int | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tileseg-read")
        self._next = self._pool.submit(self._read, plan.row(first)) if first < plan.n_rows else None

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Somebody who stops a run does not wait for a slow read; its thread ends by itself.
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    @property
    def origin(self) -> tuple[int, ...]:
        """Where the block starts on all axes but the first."""
        return self._plan.seen.start[1:]

    def take(self, row: Row) -> NDArray[np.float32]:
        """Return what the tiles of a row see, shape (C, window depth, *rest), valid until the next call.

        Rows must be taken in order. Errors of the source are raised here.
        """
        fresh = self._wait()
        by = fresh.shape[1]
        kept = self._block.shape[1] - by
        for start in range(0, kept, by) if by else ():
            stop = min(start + by, kept)
            self._block[:, start:stop] = self._block[:, start + by : stop + by]
        self._block[:, kept:] = fresh
        self._next = None
        if row.index + 1 < self._plan.n_rows:
            self._next = self._pool.submit(self._read, self._plan.row(row.index + 1))
        return self._block

    def _wait(self) -> NDArray[np.float32]:
        future: Future[NDArray[np.float32]] | None = self._next
        if future is None:
            raise IndexError("all rows have been taken")
        while not wait([future], timeout=0.1).done:
            self._check()
        return future.result()

    def _read(self, row: Row) -> NDArray[np.float32]:
        """Read what a row sees and the one before it did not; runs in the reading thread only."""
        start, stop = row.seen
        if self._seen_to is not None:
            start = max(start, self._seen_to)
        self._seen_to = stop
        seen = self._plan.seen
        box = Tile((start, *seen.start[1:]), (stop, *seen.stop[1:]))
        if start == stop:
            return np.empty((self._source.shape[0], *box.shape), dtype=np.float32)
        return read_padded(self._source, box.moved(self._offset), mirrored=self._plan.mirrored)
