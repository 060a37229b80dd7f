"""``Delivery``: hands finished rows on in order, at once, or in a thread of its own while the network goes on."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    import torch

    from napari_tileseg.engine.events import Event
    from napari_tileseg.engine.streams import Mark, Streams
    from napari_tileseg.engine.tiles import Tile

__all__ = ["Delivery"]

_MOST = 1
"""Rows that may be handed on while another one is finished; each holds the memory of its scores or labels on the device."""


class Delivery:
    """Calls a function for each finished row, one after the other.

    A row counts as finished when the batches it is made of have landed, that is, were looked at; until then it waits. After a
    row that failed nothing more is handed on.

    Parameters
    ----------
    hand_on : callable
        Takes the region and its values (scores or labels), and yields events.
    streams : Streams
        How to speak with the device that the values are on.
    beside : bool
        Whether to use a thread. Values must be the row's own then.
    """

    def __init__(self, hand_on: Callable[[Tile, torch.Tensor], Iterator[Event]], streams: Streams, *, beside: bool) -> None:
        self._hand_on, self._streams = hand_on, streams
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="tileseg-deliver") if beside else None
        self._waiting: deque[tuple[int, Tile, torch.Tensor, Mark]] = deque()
        self._going: deque[Future[list[Event]]] = deque()
        self._failed = False

    @property
    def beside(self) -> bool:
        """Whether rows are handed on while the network goes on, so that their values must stay as they are."""
        return self._pool is not None

    def __enter__(self) -> Delivery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)  # what it holds is finished: it goes to where the result is

    def put(self, region: Tile, values: torch.Tensor, *, after: int, landed: int) -> Iterator[Event]:
        """Take a row, and yield what there is to tell.

        Parameters
        ----------
        region : Tile
            Which part of the image it is.
        values : torch.Tensor
            Of its pixels.
        after : int
            Number of the last batch that it is made of.
        landed : int
            Number of the last batch that has landed.
        """
        if self._pool is None:
            yield from self._hand_on(region, values)
            return
        self._waiting.append((after, region, values, self._streams.mark()))
        yield from self.go_on(landed)

    def go_on(self, landed: int) -> Iterator[Event]:
        """Hand on the rows whose batches have landed; yield what those before them had to tell."""
        while self._pool is not None and self._waiting and self._waiting[0][0] <= landed:
            if len(self._going) >= _MOST:
                yield from self._going.popleft().result()
            _, region, values, mark = self._waiting.popleft()
            self._going.append(self._pool.submit(self._work, region, values, mark))
            del values
        while self._going and self._going[0].done():
            yield from self._going.popleft().result()

    def finish(self, landed: int) -> Iterator[Event]:
        """Wait until all that can be handed on is; yield what it had to tell."""
        yield from self.go_on(landed)
        while self._going:
            yield from self._going.popleft().result()

    def _work(self, region: Tile, values: torch.Tensor, mark: Mark) -> list[Any]:
        """Hand one row on; runs in the thread."""
        if self._failed:
            return []
        try:
            with self._streams.taking(mark, values):
                return list(self._hand_on(region, values))
        except BaseException:
            self._failed = True
            raise
