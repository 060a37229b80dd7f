"""``run_batch``: a whole batch, from the list of its images to the report; it can be killed at any moment and started again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.batch.countdown import Countdown
from napari_tileseg.batch.events import BatchFinished, BatchProgress, BatchStarted, TaskEnded, TaskProgress, TaskStarted
from napari_tileseg.batch.ledger import Ledger, key_of
from napari_tileseg.batch.lock import OutputLock
from napari_tileseg.batch.report import finish_batch
from napari_tileseg.batch.saved import save_job
from napari_tileseg.batch.stamps import digest, output_stamp
from napari_tileseg.batch.standing import standing
from napari_tileseg.batch.task import OVER
from napari_tileseg.batch.trouble import failed
from napari_tileseg.batch.work import forget, unfinished
from napari_tileseg.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.batch.executor import Executor
    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.batch.ledger import Row
    from napari_tileseg.batch.listing import Listing
    from napari_tileseg.batch.task import Outcome, Task

__all__ = ["Report", "finished", "opened", "output_folder", "run_batch", "run_listing", "settings_of", "sum_up"]


@dataclass(frozen=True)
class Report:
    """How a batch ended.

    Parameters
    ----------
    done, skipped, failed, waiting : int
        Tasks in each state; `before` of the done ones are an earlier run's.
    seconds : float
        Wall time of this run.
    rows : tuple of Row
        What the ledger knows of each task.
    left_out : tuple of (str, str)
        Files that were no task, each with the reason.
    report : str
        Path of ``report.html``; empty if there is none.
    cancelled : bool
        Whether somebody stopped it.
    """

    done: int
    skipped: int
    failed: int
    waiting: int
    before: int
    seconds: float
    rows: tuple[Row, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    report: str = ""
    cancelled: bool = False


def run_batch(
    job: BatchJob,
    *,
    on_event: Callable[[BatchEvent], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    paused: Callable[[], bool] | None = None,
    retry_failed: bool | Collection[str] = False,
    executor: Executor | None = None,
) -> Report:
    """Segment many images.

    What an earlier run with the same job has done, and nobody has touched since, is not done again; an image that it was cut off
    from goes on where it stopped; an image that has changed is done anew.

    Parameters
    ----------
    job : BatchJob
        Which images, which models, how, and where the results go.
    on_event : callable, optional
        Receives every event of `napari_tileseg.batch.events` as it happens, one at a time, from any thread.
    cancel : callable, optional
        Asked before every tile; true stops the batch. The same job goes on later.
    paused : callable, optional
        Asked before every tile; the batch waits while it is true, and keeps its models.
    retry_failed : bool or collection of str
        Whether to try again what has failed in an earlier run: all of it, or the tasks of these names.
    executor : Executor, optional
        What does the tasks; this program by default.

    Returns
    -------
    Report

    Raises
    ------
    InputError, OptionsError, ModelError
        If there is nothing that could be done, each with a sentence that says why.
    OutputError
        If another run writes into the same folder, what is there was made with other settings, or nothing can be written any more.
        What was finished is kept, and the same call goes on later.
    """
    from napari_tileseg.batch.listing import list_tasks

    settings_of(job)  # a model that is not there is said before a long list is made
    listing = list_tasks(job)
    with opened(job) as ledger:
        return run_listing(
            job, listing, ledger, on_event=on_event, cancel=cancel, paused=paused, retry_failed=retry_failed, executor=executor
        )


@contextlib.contextmanager
def opened(job: BatchJob) -> Iterator[Ledger]:
    """Give the ledger of a job's output folder, which nobody else writes into meanwhile.

    Raises
    ------
    ModelError
        If a model is not there.
    OutputError
        If another run writes into the same folder, or what is there was made with other settings.
    """
    settings = settings_of(job)
    output = output_folder(job)
    with OutputLock(output):
        ledger = Ledger.open(output)
        try:
            ledger.agree(_shareable(job), settings)
            save_job(job, output)
            yield ledger
        finally:
            ledger.close()


def run_listing(
    job: BatchJob,
    listing: Listing,
    ledger: Ledger,
    *,
    on_event: Callable[[BatchEvent], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    paused: Callable[[], bool] | None = None,
    retry_failed: bool | Collection[str] = False,
    executor: Executor | None = None,
    last: bool = True,
) -> Report:
    """Do what is listed, as far as the ledger does not have it; see `run_batch`. The report waits for the `last` list."""
    batch = _Batch(job, listing, ledger, on_event or (lambda event: None), cancel or (lambda: False), paused or (lambda: False))
    return batch.run(executor, retry_failed=retry_failed, last=last)


def output_folder(job: BatchJob) -> Path:
    """Return the folder of a job's results, absolute."""
    return Path(os.path.abspath(os.path.expanduser(job.output)))


def origins(job: BatchJob) -> frozenset[str]:
    """Return digests of the folders that a job's images lie in; the folders themselves are nobody's business."""
    paths = [os.path.realpath(os.path.expanduser(given)) for given in job.inputs]
    folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in paths]
    return frozenset(hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest() for folder in folders)


def settings_of(job: BatchJob) -> dict[str, Any]:
    """Return everything of a job that changes its results, by the names that people know; where it runs is no part of it.

    Raises
    ------
    ModelError
        If a model is not there.
    """
    from napari_tileseg.models.registry import find_spec

    specs = [find_spec(ref) for ref in job.models]
    options = job.options.model_dump(mode="json", exclude={"device", "memory_limit"})
    return {
        "models": [spec.name for spec in specs],
        "weights": [spec.weights_sha256 for spec in specs],
        **options,
        **{name: getattr(job, name) for name in ("axes", "channels", "series", "level", "format", "template")},
    }


def _shareable(job: BatchJob) -> dict[str, Any]:
    """Return the job without absolute paths: those tell who and where."""
    return job.model_dump(mode="json", exclude={"inputs", "output"}) | {"models": [Path(ref).name for ref in job.models]}


class _Batch:
    """One run of a batch, while it goes on."""

    def __init__(
        self,
        job: BatchJob,
        listing: Listing,
        ledger: Ledger,
        on_event: Callable[[BatchEvent], None],
        cancel: Callable[[], bool],
        paused: Callable[[], bool],
    ) -> None:
        self._began = time.monotonic()
        self._job, self._listing, self._ledger = job, listing, ledger
        self._on_event, self._cancel, self._paused = on_event, cancel, paused
        self._output = output_folder(job)
        self._keys = {task.number: key_of(task, self._output) for task in listing.tasks}
        self._telling = threading.RLock()
        self._countdown = Countdown({task.number: task.size for task in listing.tasks})
        self._before: set[int] = set()

    def run(self, executor: Executor | None, *, retry_failed: bool | Collection[str], last: bool) -> Report:
        from napari_tileseg.batch.executor import LocalExecutor

        tasks = self._listing.tasks
        self._ledger.take_up((self._keys[task.number], task) for task in tasks)
        waiting = self._waiting(retry_failed=retry_failed)
        self._tell_start(waiting)
        for parent in {Path(task.journal).parent for task in waiting}:
            parent.mkdir(parents=True, exist_ok=True)
        if waiting:
            self._countdown.start()
            runs = (executor or LocalExecutor()).run(waiting, tell=self._tell, cancel=self._cancel, paused=self._is_paused)
            try:
                for task, outcome in runs:
                    self._finish(task, outcome)
            finally:  # at once, not when nobody holds it any more: its threads write into the folder
                if isinstance(runs, Generator):
                    runs.close()
        return self._report(last=last)

    def _waiting(self, *, retry_failed: bool | Collection[str]) -> list[Task]:
        """Return the tasks that are to be done; forget what is left of those that are done."""
        rows = self._ledger.rows()
        self._check_origin(rows)
        waiting = []
        for task in self._listing.tasks:
            row = rows[self._keys[task.number]]
            if self._stands(task, row, retry_failed=retry_failed):
                self._before.add(task.number)
                forget(task)
            else:
                waiting.append(task)
        self._ledger.wait(self._keys[task.number] for task in waiting)
        return waiting

    def _check_origin(self, rows: Mapping[str, Row]) -> None:
        """Refuse to replace results by those of other images that have the same names.

        Raises
        ------
        OutputError
        """
        places = origins(self._job)
        others = not places & self._ledger.origins(places)
        if others and any(standing(task, rows[self._keys[task.number]]) == "changed" for task in self._done(rows)):
            raise OutputError(
                f'The results in "{self._output}" were made from images in another folder that have the same names. '
                "Choose another output folder."
            )

    def _done(self, rows: Mapping[str, Row]) -> list[Task]:
        return [task for task in self._listing.tasks if rows[self._keys[task.number]].state == "done"]

    def _stands(self, task: Task, row: Row, *, retry_failed: bool | Collection[str]) -> bool:
        """Say whether what an earlier run noted of a task still holds."""
        match standing(task, row):
            case "failed":
                return not _is_wanted(task, retry_failed)
            case "touched":
                return self._is_same(task, row)
            case found:
                return found in ("done", "skipped")

    def _is_same(self, task: Task, row: Row) -> bool:
        """Compare a result that somebody has moved or copied with what was noted."""
        output = Path(task.output)
        try:
            stamp = output_stamp(output)
            if digest(output) != row.digest:
                return False
        except OSError:
            return False
        self._ledger.touch(row.key, stamp)
        return standing(task, replace(row, output_stamp=stamp)) == "done"

    def _finish(self, task: Task, outcome: Outcome) -> None:
        key = self._keys[task.number]
        try:
            stamp = output_stamp(Path(task.output)) if outcome.state == "done" else ""
        except OSError as error:  # somebody takes away what is written
            stamp, outcome = "", failed(task, error, outcome.seconds)
        self._ledger.finish(key, outcome, output_stamp=stamp)
        if outcome.state == "done" or not unfinished(task):
            forget(task)
        self._tell_end(task, outcome)

    # What is told

    def _tell_start(self, waiting: list[Task]) -> None:
        tasks = self._listing.tasks
        names = tuple(task.name for task in tasks)
        rows = self._ledger.rows()
        done = sum(rows[self._keys[number]].state == "done" for number in self._before)
        self._send(BatchStarted(names, tuple(self._listing.left_out), done, str(self._output)))
        for task in tasks:
            if task.number in self._before:
                self._tell_end(task, rows[self._keys[task.number]], before=True)

    def _tell_end(self, task: Task, end: Outcome | Row, *, before: bool = False) -> None:
        done = end.state == "done"
        output, facts = task.output if done else "", (end.state, end.message, end.counts, end.instances)
        with self._telling:
            self._countdown.end(task.number, counted=done and not before)
            self._send(TaskEnded(task.number, task.name, *facts, end.seconds, before, output, end.anomaly))
            self._send(self._progress())

    def _tell(self, event: BatchEvent) -> None:
        """Pass on what an executor tells, with what only the ledger and the clock know."""
        with self._telling:
            match event:
                case TaskStarted(number):
                    event = replace(event, attempt=self._ledger.start(self._keys[number]))
                case TaskProgress(number, done, total):
                    self._countdown.advance(number, done / total if total else 1.0)
            self._send(event)
            if isinstance(event, TaskProgress):
                self._send(self._progress())

    def _progress(self) -> BatchProgress:
        return BatchProgress(self._countdown.over, len(self._listing.tasks), self._countdown.seconds_left, self._countdown.paused)

    def _is_paused(self) -> bool:
        """Ask whether to pause, and stop the clock meanwhile."""
        paused = self._paused()
        with self._telling:
            if paused != self._countdown.paused:
                self._countdown.pause(paused)
                self._send(self._progress())
        return paused

    def _send(self, event: BatchEvent) -> None:
        with self._telling:
            self._on_event(event)

    def _report(self, *, last: bool) -> Report:
        self._ledger.stop()
        rows = self._ledger.rows()
        mine = tuple(rows[self._keys[task.number]] for task in self._listing.tasks)
        waiting = sum(row.state not in OVER for row in mine)
        before = sum(rows[self._keys[number]].state == "done" for number in self._before)
        cancelled = waiting > 0 and self._cancel()
        seconds = time.monotonic() - self._began
        tasks, left_out = self._listing.tasks, self._listing.left_out
        report = sum_up(self._job, tasks, mine, left_out, before=before, seconds=seconds, cancelled=cancelled, last=last)
        self._send(finished(report))
        return report


def sum_up(
    job: BatchJob,
    tasks: Sequence[Task],
    rows: tuple[Row, ...],
    left_out: Sequence[tuple[str, str]],
    *,
    before: int,
    seconds: float,
    cancelled: bool,
    last: bool = True,
) -> Report:
    """Count how the tasks of a batch have ended; at last, write the report and what else is made of all results, if wanted."""
    count = {state: sum(row.state == state for row in rows) for state in OVER}
    waiting = len(rows) - sum(count.values())
    page = finish_batch(job, output_folder(job), tasks, rows, left_out=left_out, seconds=seconds) if last else None
    path = str(page) if page is not None else ""
    return Report(count["done"], count["skipped"], count["failed"], waiting, before, seconds, rows, tuple(left_out), path, cancelled)


def finished(report: Report) -> BatchFinished:
    """Return the event that says the same."""
    counts = (report.done, report.skipped, report.failed, report.waiting, report.before)
    return BatchFinished(*counts, report.seconds, report=report.report, cancelled=report.cancelled)


def _is_wanted(task: Task, retry: bool | Collection[str]) -> bool:
    return retry if isinstance(retry, bool) else task.name in retry
