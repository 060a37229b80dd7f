"""``Executor``: what does the tasks of a batch; ``LocalExecutor``: this program, with one model at work all the time."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_tileseg.batch.events import TaskStarted
from napari_tileseg.batch.room import Gate, Room
from napari_tileseg.batch.work import Loaded, Models, compute, failed, read, recover, store
from napari_tileseg.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.batch.task import Outcome, Task
    from napari_tileseg.batch.work import Computed
    from napari_tileseg.engine.protocols import Predictor

__all__ = ["Executor", "LocalExecutor", "in_disk_order"]

_HELD_BYTES = 1 << 30
"""Most bytes of images that are held at once; a single one may have more."""

_PAUSE = 0.1
"""Seconds between two looks whether a pause is over."""


class Executor(Protocol):
    """Does tasks somewhere."""

    def run(
        self,
        tasks: Iterable[Task],
        *,
        tell: Callable[[BatchEvent], None],
        cancel: Callable[[], bool],
        paused: Callable[[], bool],
    ) -> Iterator[tuple[Task, Outcome]]:
        """Do tasks in any order.

        Parameters
        ----------
        tasks : iterable of Task
            The folder for their journals is there.
        tell : callable
            Receives `TaskStarted` and `TaskProgress`, from any thread.
        cancel : callable
            True: stop within a tile and yield nothing more; what is finished has been yielded.
        paused : callable
            True: begin no tile until it is false again.

        Yields
        ------
        tuple of Task and Outcome
            As soon as a task is over; `work.forget` is the caller's.

        Raises
        ------
        TileSegError
            If no further task can be done: the disk is full, the model cannot be loaded.
        """
        ...


def _image_of(task: Task) -> tuple[object, ...]:
    """Return what tasks have in common that are served by reading once."""
    return task.input, task.series, task.level, task.axes, task.options.unreadable


def in_disk_order(tasks: Iterable[Task]) -> list[Task]:
    """Return tasks in the order in which their files lie on the disk, as far as the file system tells; those on one image together."""
    places: dict[tuple[object, ...], tuple[int, int]] = {}

    def place(task: Task) -> tuple[int, int]:
        image = _image_of(task)
        if image not in places:
            try:
                found = os.stat(task.input).st_ino
            except OSError:
                found = 0
            places[image] = (found, task.number)
        return places[image]

    listed = list(tasks)
    for task in sorted(listed, key=lambda task: task.number):
        place(task)
    return sorted(listed, key=lambda task: (*place(task), task.number))


@dataclass
class LocalExecutor:
    """Does tasks in this program, and keeps the model at work.

    Images are read ahead, results are written in the background, and small images are computed two at a time, so that the model
    has the pixels of one while the labels of the other are made.

    Parameters
    ----------
    models : Models
        What is loaded already is used again.
    lanes : int
        Small images that are computed side by side; they take turns at the model.
    ahead : int
        Images that are read before they are needed, and as many that wait to be written.

    Attributes
    ----------
    most_images : int
        How many images were in memory at once, at most.
    """

    models: Models = field(default_factory=Models)
    lanes: int = 2
    ahead: int = 2
    most_images: int = 0

    def run(
        self,
        tasks: Iterable[Task],
        *,
        tell: Callable[[BatchEvent], None],
        cancel: Callable[[], bool],
        paused: Callable[[], bool],
    ) -> Iterator[tuple[Task, Outcome]]:
        """See `Executor.run`."""
        from napari_tileseg.engine.predict import exact_arithmetic

        ordered = in_disk_order(tasks)
        # A faster way is chosen by its time, which another run beside it would change.
        lanes = 1 if any(task.options.precision == "auto" for task in ordered) else min(self.lanes, len(ordered))
        line = _Line(self.models, lanes, self.ahead, tell, cancel, paused)
        # A switch of the whole program: two runs side by side must not put it back in turns.
        with exact_arithmetic():
            try:
                yield from line.run(ordered)
            finally:
                line.close()
                self.most_images = max(self.most_images, line.room.most)


@dataclass
class _Item:
    """An image on its way, with the tasks on it; `found` are outcomes of those that an earlier run was cut off from at the very end."""

    tasks: list[Task]
    ticket: int
    found: dict[int, Outcome]
    image: Loaded | Exception | None


class InTurn:
    """A predictor that others use as well, one call at a time; make one for each image.

    Attributes
    ----------
    spec, device, module, members
        Those of the predictor.
    waited : float
        Seconds for which others were using it.
    """

    def __init__(self, inner: Predictor, turn: threading.Lock) -> None:
        self._inner, self._turn = inner, turn
        self._waited = 0.0
        self.spec, self.device = inner.spec, inner.device
        self.module = getattr(inner, "module", None)
        before: Predictor | None = getattr(inner, "previous", None)  # of a cascade
        self.previous = InTurn(before, turn) if before is not None else None
        if hasattr(inner, "members"):
            self.members = tuple(InTurn(member, turn) for member in inner.members)

    @property
    def waited(self) -> float:
        members: tuple[InTurn, ...] = getattr(self, "members", ())
        return self._waited + sum(member.waited for member in members)

    def __call__(self, batch: Any, /) -> Any:
        """Return what the predictor does."""
        asked = time.monotonic()
        with self._turn:
            self._waited += time.monotonic() - asked
            return self._inner(batch)


class _Line:
    """The threads of one run: one that reads, some that compute, one that writes. Each image goes from one to the next."""

    def __init__(
        self,
        models: Models,
        lanes: int,
        ahead: int,
        tell: Callable[[BatchEvent], None],
        cancel: Callable[[], bool],
        paused: Callable[[], bool],
    ) -> None:
        self._models, self._lanes = models, lanes
        self._tell, self._cancel, self._paused = tell, cancel, paused
        self._closing = threading.Event()
        self._turn = threading.Lock()
        self._gate = Gate()
        self.room = Room(lanes + 2 * ahead, _HELD_BYTES)
        # None is the last that comes of a thread.
        self._ready: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[tuple[Task, Computed] | int | None] = queue.SimpleQueue()
        self._over: queue.SimpleQueue[tuple[Task, Outcome] | BaseException | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def run(self, tasks: list[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Yield every task that is over; raise what ends the whole batch, after all that was finished has been yielded."""
        groups = [list(group) for _, group in groupby(tasks, _image_of)]
        self._begin(lambda: self._read(groups), self._no_more)
        for _ in range(self._lanes):
            self._begin(self._compute, lambda: self._made.put(None))
        self._begin(self._write, lambda: self._over.put(None))
        trouble: BaseException | None = None
        while (found := self._next()) is not None:
            if isinstance(found, BaseException):
                trouble = trouble or found
            else:
                yield found
        if trouble is not None:
            raise trouble

    def close(self) -> None:
        """Stop within a tile, and wait for the threads."""
        self._closing.set()
        for thread in self._threads:
            thread.join()

    def _next(self) -> tuple[Task, Outcome] | BaseException | None:
        while True:
            with contextlib.suppress(queue.Empty):
                return self._over.get(timeout=1)  # without a limit, Windows would not hear of an interrupt

    def _begin(self, work: Callable[[], None], end: Callable[[], object]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self._give_up(error)
            finally:
                end()

        thread = threading.Thread(target=guarded, name="tileseg-batch", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _give_up(self, error: BaseException) -> None:
        """End the whole batch."""
        self._closing.set()
        self._over.put(error)

    def _stop(self) -> bool:
        """Say whether to stop; wait while the batch is paused."""
        while not self._closing.is_set() and not self._cancel():
            if not self._paused():
                return False
            self._closing.wait(_PAUSE)
        return True

    def _progressed(self, event: BatchEvent) -> None:
        """Tell of progress; who listens badly ends the batch, and not the image that is computed just then."""
        try:
            self._tell(event)
        except BaseException as error:
            self._give_up(error)

    # The thread that reads

    def _no_more(self) -> None:
        for _ in range(self._lanes):
            self._ready.put(None)

    def _read(self, groups: list[list[Task]]) -> None:
        for group in groups:
            ticket = self.room.enter(group[0].size, self._stop)
            if ticket is None or self._stop():
                return
            self._ready.put(self._item(group, ticket))

    def _item(self, tasks: list[Task], ticket: int) -> _Item:
        found: dict[int, Outcome] = {}
        try:
            found = {task.number: outcome for task in tasks if (outcome := recover(task)) is not None}
            image = read(tasks[0]) if len(found) < len(tasks) else None
        except Exception as error:
            return _Item(tasks, ticket, found, error)
        if image is not None and isinstance(image.volume.data, np.ndarray):
            self.room.weigh(ticket, image.volume.data.nbytes)
        return _Item(tasks, ticket, found, image)

    # The threads that compute

    def _compute(self) -> None:
        while (item := self._ready.get()) is not None:
            for task in item.tasks:
                if self._stop():
                    return
                self._tell(TaskStarted(task.number, task.name))
                predictor = InTurn(self._models.get(task.model, task.options.device), self._turn)
                if not self._do(task, item, predictor):
                    return
            self._made.put(item.ticket)  # after its results, so that they are written when its room is given back
            del item

    def _do(self, task: Task, item: _Item, predictor: Predictor) -> bool:
        """Compute one task and pass it on; False if somebody wants to stop."""
        began = time.monotonic()
        try:
            if task.number in item.found:
                self._over.put((task, item.found[task.number]))
            elif isinstance(item.image, Loaded):
                made = compute(task, item.image, self._models, predictor, tell=self._progressed, cancel=self._stop, gate=self._gate.passed)
                self._made.put((task, made))
            elif item.image is not None:
                raise item.image
        except Cancelled:
            return False
        except Exception as error:
            self._over.put((task, failed(task, error, time.monotonic() - began)))
        return True

    # The thread that writes

    def _write(self) -> None:
        working = self._lanes
        while working:
            match self._made.get():
                case None:
                    working -= 1
                case int(ticket):
                    self.room.leave(ticket)
                case (task, computed):
                    self._store(task, computed)

    def _store(self, task: Task, computed: Computed) -> None:
        try:
            outcome = store(task, computed)
        except Exception as error:
            outcome = failed(task, error, computed.seconds)
        self._over.put((task, outcome))
