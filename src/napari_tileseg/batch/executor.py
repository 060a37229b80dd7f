"""``Executor``: what does the tasks of a batch; ``LocalExecutor``: this program, with one model at work all the time."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from napari_tileseg.batch.events import TaskStarted
from napari_tileseg.batch.work import Models, process
from napari_tileseg.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.batch.task import Outcome, Task

__all__ = ["Executor", "LocalExecutor", "in_disk_order"]

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


def in_disk_order(tasks: Iterable[Task]) -> list[Task]:
    """Return tasks in the order in which their files lie on the disk, as far as the file system tells; those on one image together."""
    places: dict[tuple[str, int, int], tuple[int, int]] = {}

    def place(task: Task) -> tuple[int, int]:
        image = (task.input, task.series, task.level)
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
    """Does tasks in this program.

    Parameters
    ----------
    models : Models
        What is loaded already is used again.
    """

    models: Models = field(default_factory=Models)

    def run(
        self,
        tasks: Iterable[Task],
        *,
        tell: Callable[[BatchEvent], None],
        cancel: Callable[[], bool],
        paused: Callable[[], bool],
    ) -> Iterator[tuple[Task, Outcome]]:
        """See `Executor.run`."""

        def stop() -> bool:
            while paused() and not cancel():
                time.sleep(_PAUSE)
            return cancel()

        for task in in_disk_order(tasks):
            if stop():
                return
            tell(TaskStarted(task.number, task.name))
            try:
                yield task, process(task, self.models, tell=tell, cancel=stop)
            except Cancelled:
                return
