"""``watch_batch``: a batch that goes on with what a microscope writes; it looks again and again, since network disks send no events."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from napari_tileseg.batch.events import BatchFinished, BatchStarted, TaskEnded
from napari_tileseg.batch.growth import Growth
from napari_tileseg.batch.ledger import key_of
from napari_tileseg.batch.listing import Listing, list_tasks
from napari_tileseg.batch.run import finished, opened, output_folder, run_listing, sum_up
from napari_tileseg.batch.task import OVER
from napari_tileseg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.batch.executor import Executor
    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.batch.ledger import Ledger
    from napari_tileseg.batch.run import Report
    from napari_tileseg.batch.task import Task

__all__ = ["watch_batch"]

_LOOKS = 5
"""How often a folder is looked at while an image settles."""

_LONGEST = 5.0
"""Most seconds between two looks."""

_PATIENCE = 6
"""An image that cannot be opened is given so many times as long to go on growing."""

_NAP = 0.1
"""Seconds between two questions whether to stop."""

_REPORT_SECONDS = 60.0
"""The report is written anew at most so often, and at the end."""


def watch_batch(
    job: BatchJob,
    *,
    settle: float = 10.0,
    until_idle: float | None = None,
    on_event: Callable[[BatchEvent], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    paused: Callable[[], bool] | None = None,
    retry_failed: bool = False,
    executor: Executor | None = None,
) -> Report:
    """Segment the images of a folder, and those that appear later, each once it has stopped growing.

    An image counts as whole when it has looked the same for a while and can be opened. One that cannot be opened is waited for six
    times as long; then it fails with the sentence of its reader, and is taken up again if it changes after all. The ledger is that
    of `run_batch`: either of them goes on with what the other has done.

    Parameters
    ----------
    job : BatchJob
        Its folder may still be empty.
    settle : float
        Seconds for which size and times of an image must not have changed; more than its writer ever pauses.
    until_idle : float, optional
        Seconds without any change after which watching ends; never if not given.
    on_event, cancel, paused, retry_failed, executor
        As for `run_batch`. Images keep their numbers; each time that new ones are whole, `BatchStarted` names all so far.

    Returns
    -------
    Report
        `cancelled` only if an image was waiting when it was stopped.

    Raises
    ------
    InputError, OptionsError, ModelError, OutputError
        As for `run_batch`.
    """
    from napari_tileseg.batch.executor import LocalExecutor

    list_tasks(job, empty=True)  # what is wrong with the job itself is said at once
    with opened(job) as ledger:
        watch = _Watch(job, ledger, Growth(settle, _PATIENCE * settle, _opener(job)), executor or LocalExecutor(), on_event)
        stop = cancel or (lambda: False)
        while not stop() and not watch.idle(until_idle):
            watch.go_on(stop, paused, retry_failed=retry_failed and not watch.rounds)
            _wait(min(settle / _LOOKS, _LONGEST), stop)
        return watch.end()


_Key = tuple[str, int, str]
"""Image and model: path, series, reference."""


@dataclass
class _Watch:
    """One time of watching.

    Attributes
    ----------
    tasks : dict of _Key to Task
        All that were ever whole, in the order in which they were; they keep the name under which they were first done.
    rounds : int
        How often something was to be done.
    """

    job: BatchJob
    ledger: Ledger
    growth: Growth
    executor: Executor
    on_event: Callable[[BatchEvent], None] | None
    tasks: dict[_Key, Task] = field(default_factory=dict)
    rounds: int = 0
    _began: float = field(default_factory=time.monotonic)
    _reported: float = field(default_factory=time.monotonic)
    _looks: dict[_Key, str] = field(default_factory=dict)
    _left_out: dict[tuple[str, str], bool] = field(default_factory=dict)
    _told: set[int] = field(default_factory=set)
    _before: int = 0

    def go_on(self, cancel: Callable[[], bool], paused: Callable[[], bool] | None, *, retry_failed: bool) -> None:
        """Look once, and do what is whole and new."""
        try:
            listing = list_tasks(self.job, empty=True)
        except InputError:
            return  # a network disk that is away for a moment
        whole = self.growth.whole(task.input for task in listing.tasks)
        ready = {_key(task): task for task in listing.tasks if task.input in whole}
        looks = {key: self.growth.look(task.input) for key, task in ready.items()}
        if all(self._looks.get(key) == look for key, look in looks.items()):
            return
        for key, task in ready.items():
            self.tasks.setdefault(key, replace(task, number=len(self.tasks)))
        for noted in listing.left_out:
            self._left_out.setdefault(noted, False)
        now = Listing(tuple(task for key, task in self.tasks.items() if key in ready))
        report = run_listing(
            self.job,
            now,
            self.ledger,
            on_event=self._hear,
            cancel=cancel,
            paused=paused,
            retry_failed=retry_failed,
            executor=self.executor,
            last=False,
        )
        self.rounds += 1
        self._looks |= looks if not report.cancelled else {}
        if time.monotonic() - self._reported > _REPORT_SECONDS:
            self._sum_up()

    def idle(self, limit: float | None) -> bool:
        """Say whether nothing has changed for so long, and nothing is growing."""
        return limit is not None and self.growth.quiet >= limit

    def end(self) -> Report:
        """Write the report, and tell how it ended."""
        report = self._sum_up()
        if self.on_event is not None:
            self.on_event(finished(report))
        return report

    def _sum_up(self) -> Report:
        rows = self.ledger.rows()
        mine = tuple(rows[key_of(task, output_folder(self.job))] for task in self.tasks.values())
        seconds = time.monotonic() - self._began
        cancelled = any(row.state not in OVER for row in mine)
        report = sum_up(
            self.job, list(self.tasks.values()), mine, list(self._left_out), before=self._before, seconds=seconds, cancelled=cancelled
        )
        self._reported = time.monotonic()
        return report

    def _hear(self, event: BatchEvent) -> None:
        """Pass on what is new in a round."""
        match event:
            case BatchStarted():
                names = tuple(task.name for task in self.tasks.values())
                left_out = tuple(noted for noted, told in self._left_out.items() if not told)
                self._left_out = dict.fromkeys(self._left_out, True)
                event = replace(event, names=names, left_out=left_out)
            case TaskEnded(number=number, before=before):
                if before and number in self._told:
                    return
                self._told.add(number)
                self._before += before and event.state == "done"
            case BatchFinished():
                return
        if self.on_event is not None:
            self.on_event(event)


def _key(task: Task) -> _Key:
    return task.input, task.series, task.model


def _opener(job: BatchJob) -> Callable[[str], object]:
    """Return what opens an image as its task will, without looking at its pixels."""
    from napari_tileseg.io import read_volume

    series = job.series if isinstance(job.series, int) else 0
    return lambda path: read_volume(path, series=series, level=job.level)


def _wait(seconds: float, stop: Callable[[], bool]) -> None:
    """Wait, but not when somebody wants it to end."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not stop():
        time.sleep(min(left, _NAP))
