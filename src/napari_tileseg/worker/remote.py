"""``RemoteArray``: an array that lives in napari's process, read from the model's process box by box."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import Cancelled, InputError
from napari_tileseg.io.lazy import LazyArray, index_ranges
from napari_tileseg.worker.messages import Block, BlockError, Read

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["BLOCK_BYTES", "RemoteArray", "RemoteReadError"]

BLOCK_BYTES = 1 << 26
"""A read is cut along its first axis into pieces of at most this size where it can be, so that the exchange file stays small."""

Box = tuple[tuple[int, int, int], ...]


class RemoteReadError(InputError):
    """The other process could not read the box; `details` is its traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class RemoteArray(LazyArray):
    """An array of the other process: shape, dtype and basic slicing.

    Threads may read at once; they take turns.

    Parameters
    ----------
    shape : tuple of int
        Shape of the array.
    dtype : str or dtype
        Its type, byte order included.
    ask : callable
        Sends a `Read`; the answer comes to `answer`.
    cancelled : callable
        Tells whether to give up waiting.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, *, ask: Callable[[Read], None], cancelled: Callable[[], bool] = lambda: False
    ) -> None:
        # Not by LazyArray's own __init__: this one reads with steps, and keeps the byte order.
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)
        self._ask = ask
        self._cancelled = cancelled
        self._turn = threading.Lock()
        self._arrived = threading.Condition()
        self._request = 0
        self._answer: Block | BlockError | None = None

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        """Return a box.

        Parameters
        ----------
        key : int, slice, Ellipsis, or a tuple of them
            Basic indexing as NumPy's, without new axes.

        Raises
        ------
        RemoteReadError
            If the other process could not read it.
        Cancelled
            If the run is cancelled while the read is waited for.
        """
        ranges, dropped = index_ranges(key, self.shape)
        # Files and Zarr arrays read forwards only.
        forwards = [span[::-1] if span.step < 0 else span for span in ranges]
        turn = slice(None, None, -1)
        finish = tuple(0 if single else turn if span.step < 0 else slice(None) for span, single in zip(ranges, dropped, strict=True))
        box = tuple((span.start, max(span.stop, span.start), span.step) for span in forwards)
        shape = tuple(len(span) for span in forwards)
        if 0 in shape:
            return np.empty(shape, self.dtype)[finish]
        return self._read_box(box, shape)[finish]

    def level(self, number: int, shape: tuple[int, ...]) -> LazyArray:
        """Return a coarser resolution of the same image, counted from 1."""

        def read(box: tuple[slice, ...]) -> NDArray[Any]:
            return self._read_box(tuple((span.start, span.stop, 1) for span in box), tuple(span.stop - span.start for span in box), number)

        return LazyArray(shape, self.dtype, read)

    def _read_box(self, box: Box, shape: tuple[int, ...], level: int = 0) -> NDArray[Any]:
        with self._turn:
            pieces = [self._fetch(piece, level) for piece in _cut(box, shape, self.dtype.itemsize)]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def answer(self, answer: Block | BlockError) -> None:
        """Take what the other process sent; an answer to a read that was given up is ignored."""
        with self._arrived:
            if answer.request == self._request:
                self._answer = answer
                self._arrived.notify()

    def wake(self) -> None:
        """Look again at `cancelled` now."""
        with self._arrived:
            self._arrived.notify()

    def _fetch(self, box: Box, level: int) -> NDArray[Any]:
        with self._arrived:
            if self._cancelled():
                raise Cancelled("The run was cancelled.")
            self._request += 1
            self._answer = None
            self._ask(Read(self._request, box, level))
            self._arrived.wait_for(lambda: self._answer is not None or self._cancelled())
            answer = self._taken()
        if isinstance(answer, Block):
            # A copy, because the next box goes into the same file.
            return np.array(np.memmap(answer.path, dtype=np.dtype(answer.dtype), mode="r", shape=answer.shape))
        if isinstance(answer, BlockError):
            raise RemoteReadError(answer.message, answer.details)
        raise Cancelled("The run was cancelled.")

    def _taken(self) -> Block | BlockError | None:
        answer, self._answer = self._answer, None
        return answer


def _cut(box: Box, shape: tuple[int, ...], itemsize: int) -> list[Box]:
    """Cut a box along its first axis into pieces of at most `BLOCK_BYTES`, or of one row."""
    row = math.prod(shape[1:]) * itemsize
    rows = range(*box[0])
    step = max(1, BLOCK_BYTES // max(row, 1))
    parts = [rows[start : start + step] for start in range(0, len(rows), step)]
    return [((part.start, part.stop, part.step), *box[1:]) for part in parts]
