"""``Crew``: gives orders to the workers of a cluster, a bounded number at a time, and brings their answers back as they come."""

from __future__ import annotations

import itertools
import math
import queue
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from napari_tileseg import errors
from napari_tileseg.batch.connection import DEATHS
from napari_tileseg.batch.remote import obey, signal, topic
from napari_tileseg.errors import Cancelled, RunError, TileSegError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Client, Future

__all__ = ["Crew", "error_of"]

_TICK = 0.05
"""Seconds between two looks whether somebody wants to stop or to pause."""

_REPEAT = 2.0
"""Seconds after which a signal is sent again, for workers that have joined meanwhile."""

_COUNT_EVERY = 1.0
"""Seconds between two questions to the scheduler how many workers there are."""

_AHEAD = 2
"""Orders that are out for each worker: one that it works on, and the next."""

_GRACE = 60.0
"""Seconds that workers have to stop when a run is cancelled; one that has left the network never answers."""


@dataclass
class Crew:
    """The workers of one cluster, during one run.

    Parameters
    ----------
    client : Client
        Connected.
    run : str
        Name of the run, by which workers are told to stop.
    loads : dict of str to int
        For each process that has answered, how many models it has loaded in its life.
    """

    client: Client
    run: str = field(default_factory=lambda: uuid4().hex[:12])
    loads: dict[str, int] = field(default_factory=dict)

    def do(
        self,
        orders: Iterable[dict[str, Any]],
        *,
        hear: Callable[[dict[str, Any]], None] = lambda message: None,
        cancel: Callable[[], bool] = lambda: False,
        paused: Callable[[], bool] = lambda: False,
    ) -> Iterator[dict[str, Any]]:
        """Have orders done in any order.

        Parameters
        ----------
        orders : iterable of dict
            See `remote.obey`; ``run`` is added. Taken one by one, when there is a worker for them.
        hear : callable
            Receives what workers say meanwhile: ``number`` and ``started`` and ``worker``, or ``done`` and ``total``.
        cancel, paused : callable
            As for `Executor.run`.

        Yields
        ------
        dict
            The answer to each order. One over which `DEATHS` workers have died has ``killed``.

        Raises
        ------
        Cancelled
            When all workers have stopped because `cancel` said so.
        RunError
            If the scheduler is gone.
        TileSegError
            What a worker has raised that is no matter of its order alone.
        """
        shift = _Shift(self, iter(orders), hear)
        self.client.subscribe_topic(topic(self.run), lambda event: shift.inbox.put(event[1]))
        try:
            yield from shift.work(cancel, paused)
        finally:
            shift.end()

    def tell_all(self, word: str) -> None:
        """Send a signal to all workers; nobody waits for it."""
        self.client.run(signal, self.run, word, wait=False, on_error="ignore")

    def size(self) -> int:
        """Return how many workers there are."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])


class _Shift:
    """One call of `Crew.do`."""

    def __init__(self, crew: Crew, orders: Iterator[dict[str, Any]], hear: Callable[[dict[str, Any]], None]) -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._crew, self._orders, self._hear = crew, orders, hear
        self._out: dict[str, tuple[Future[Any], dict[str, Any]]] = {}
        self._again: list[dict[str, Any]] = []
        self._starts: dict[int, set[str]] = {}
        self._tries: dict[int, int] = {}
        self._serial = itertools.count()
        self._word, self._told = "go", time.monotonic()
        self._exhausted = False
        self._size, self._counted = 1, -math.inf

    def work(self, cancel: Callable[[], bool], paused: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        while True:
            if cancel():
                self._stop()
                raise Cancelled("The run was cancelled. What was finished is kept.")
            self._signal("pause" if paused() else "go")
            if self._word == "go":
                self._hand_out()
            if self._exhausted and not self._out and not self._again:
                return
            answer = self._next()
            if answer is not None:
                yield answer

    def end(self) -> None:
        """Leave nothing behind on the cluster, whatever has ended the work."""
        with_futures = [future for future, _ in self._out.values()]
        if self._crew.client.status != "running":
            return
        if with_futures:  # the caller has left: nobody waits for these
            self._crew.tell_all("stop")
            self._crew.client.cancel(with_futures)
        elif self._word == "pause":
            self._crew.tell_all("go")
        self._crew.client.unsubscribe_topic(topic(self._crew.run))

    def _hand_out(self) -> None:
        if time.monotonic() - self._counted > _COUNT_EVERY:
            self._size, self._counted = max(1, self._crew.size()), time.monotonic()
        while len(self._out) < _AHEAD * self._size:
            order = self._again.pop(0) if self._again else next(self._orders, None)
            if order is None:
                self._exhausted = True
                return
            order = {**order, "run": self._crew.run}
            serial = next(self._serial)
            key = f"tileseg-{self._crew.run}-{order['number']}-{uuid4().hex[:8]}"
            future = self._crew.client.submit(obey, order, key=key, pure=False, priority=-serial)
            self._out[key] = (future, order)
            future.add_done_callback(lambda done: self.inbox.put(done.key))

    def _next(self) -> dict[str, Any] | None:
        """Return an answer if one comes soon."""
        try:
            item = self.inbox.get(timeout=_TICK)
        except queue.Empty:
            if self._crew.client.status not in ("running", "connecting"):
                raise RunError(_LOST) from None
            return None
        if isinstance(item, str):
            return self._end(item) if item in self._out else None
        key = next((key for key, (_, order) in self._out.items() if order["number"] == item["number"]), None)
        if key is None:  # an order that was answered already, and done once more because a worker has died
            return None
        if "answer" in item:
            return self._answer(item, self._out.pop(key)[1])
        if item.get("started"):
            self._starts.setdefault(item["number"], set()).add(item["worker"])
        self._hear(item)
        return None

    def _answer(self, item: dict[str, Any], order: dict[str, Any]) -> dict[str, Any] | None:
        answer = {**item["answer"], "number": order["number"]}
        self._crew.loads[item["process"]] = item["loads"]
        if "error" in answer:
            raise error_of(answer)
        return None if "cancelled" in answer and self._repeat(order) else answer

    def _end(self, key: str) -> dict[str, Any] | None:
        """Look why an order has ended without an answer."""
        from distributed import KilledWorker

        future, order = self._out.pop(key)
        if self._crew.client.status != "running":
            raise RunError(_LOST)
        failure = future.exception() if future.status == "error" else None
        if failure is not None and not isinstance(failure, KilledWorker):
            raise failure if isinstance(failure, TileSegError) else _unexpected(failure)
        # Dask suspects every order that a dead worker had, also those that only waited there.
        guilty = failure is not None and len(self._starts.get(order["number"], ())) >= DEATHS
        return None if not guilty and self._repeat(order) else {"number": order["number"], "killed": True}

    def _repeat(self, order: dict[str, Any]) -> bool:
        """Give an order out again, unless that was done too often."""
        tries = self._tries[order["number"]] = self._tries.get(order["number"], 0) + 1
        if tries <= DEATHS:
            self._again.append({**order, "careful": True})
        return tries <= DEATHS

    def _signal(self, word: str) -> None:
        now = time.monotonic()
        if word != self._word or (word != "go" and now - self._told > _REPEAT):
            self._word, self._told = word, now
            self._crew.tell_all(word)

    def _stop(self) -> None:
        """Have running orders stopped within a tile, those that wait forgotten, and wait until that is so."""
        waiting = [future for future, order in self._out.values() if order["number"] not in self._starts]
        self._signal("stop")
        self._crew.client.cancel(waiting)
        deadline = time.monotonic() + _GRACE
        gone = {future.key for future in waiting}
        self._out = {key: entry for key, entry in self._out.items() if key not in gone}
        while self._out and time.monotonic() < deadline and self._crew.client.status == "running":
            self._signal("stop")
            try:
                item = self.inbox.get(timeout=_TICK)
            except queue.Empty:
                continue
            if isinstance(item, str):
                self._out.pop(item, None)


_LOST = "The connection to the scheduler is lost. What was finished is kept: start the same run again when the cluster is there."


def error_of(answer: dict[str, Any]) -> TileSegError:
    """Return the error that a worker has sent by its name and sentence."""
    kind = getattr(errors, answer["error"], RunError)
    return kind(answer["message"]) if isinstance(kind, type) and issubclass(kind, TileSegError) else RunError(answer["message"])


def _unexpected(failure: BaseException | None) -> RunError:
    reason = str(failure).strip().split("\n")[0] or type(failure).__name__
    error = RunError(f"A worker could not do its work: {reason} ({type(failure).__name__}).")
    error.__cause__ = failure
    return error
