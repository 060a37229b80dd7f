"""``BatchRun``: one batch in the hands of the supervisor; the files behind its results are the output folder's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.batch.events import BatchProgress, BatchStarted, TaskEnded
from napari_tileseg.errors import ModelError
from napari_tileseg.models.ensemble import join, split
from napari_tileseg.models.registry import BUNDLED, absolute, model_folder, resolve
from napari_tileseg.worker.messages import BeginBatch, Evented
from napari_tileseg.worker.turn import Pausable, Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.worker.messages import Message

__all__ = ["BatchRun", "rooted"]


class BatchRun(Pausable):
    """One batch: queued, running or over.

    Parameters
    ----------
    job : BatchJob
        With absolute paths: the model's process stands in another folder.
    retry_failed : bool or tuple of str
        Whether files that failed before are tried again: all of them, or those of these names.
    workers : int
        Processes on this computer.
    cluster : str
        Address of a Dask scheduler; empty for this computer.
    """

    def __init__(
        self,
        number: int,
        job: BatchJob,
        *,
        on_message: Callable[[Message], None],
        on_cancel: Callable[[Turn], None],
        retry_failed: bool | tuple[str, ...] = False,
        workers: int = 1,
        cluster: str = "",
    ) -> None:
        super().__init__(number, on_message=on_message, on_cancel=on_cancel)
        self.job = job
        self.retry_failed = retry_failed
        self.workers = workers
        self.cluster = cluster
        self._total = 0
        self._safe: set[int] = set()

    def __repr__(self) -> str:
        done, total = self.tiles
        return f"<BatchRun {self.number} of {', '.join(self.job.models)}: {self.state}, {done} of {total} files>"

    @property
    def tiles(self) -> tuple[int, int]:
        """Files whose results are in place, and files there are; (0, 0) before the list is made."""
        return len(self._safe), self._total

    @property
    def left(self) -> str:
        done, total = self.tiles
        if total == 0:
            return "No file was begun yet."
        if done == 0:
            return f"None of the {total} files is done yet."
        return f"{done} of {total} files {'is' if done == 1 else 'are'} safe."

    def begin(self, backend: str) -> BeginBatch:
        return BeginBatch(
            job=self.job.model_dump(mode="json"),
            retry_failed=self.retry_failed,
            workers=self.workers,
            cluster=self.cluster,
            paused=self.paused,
            backend=backend,
        )

    def note(self, message: Message) -> None:
        super().note(message)
        match message:
            case Evented(BatchStarted(names)):
                self._total = len(names)
            case Evented(BatchProgress(_, total)):
                self._total = total
            case Evented(TaskEnded(number, state="done" | "skipped")):
                self._safe.add(number)


def rooted(job: BatchJob) -> BatchJob:
    """Return a job that means the same in every folder: paths absolute; names of models stay names, as the ledger knows them."""
    paths = {"inputs": tuple(_full(path) for path in job.inputs), "output": _full(job.output)}
    return job.model_copy(update=paths | {"models": tuple(_model(model) for model in job.models)})


def _full(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _model(ref: str) -> str:
    if members := split(ref):
        return join(_model(member) for member in members)
    try:
        by_name = resolve(ref).parent in (BUNDLED, model_folder()) and not Path(ref).expanduser().exists()
    except ModelError:
        return ref  # the batch says so
    return ref if by_name else absolute(ref)
