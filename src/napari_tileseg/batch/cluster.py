"""``DaskExecutor``: the tasks of a batch on the workers of a Dask cluster, on this computer or on many.

The ledger stays where the batch was started. A task goes to a worker as a dictionary and comes back as one; the worker keeps its
models. If it dies, another one gets its tasks; a file over which several have died is the cause, and fails. ::

    run_batch --- DaskExecutor --- Crew ---- scheduler -+-- worker 1: model, one image at a time
      ledger        tasks            orders             +-- worker 2: model, one image at a time
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.batch.connection import check_greetings, connect, wait_for_workers
from napari_tileseg.batch.crew import Crew
from napari_tileseg.batch.events import TaskProgress, TaskStarted
from napari_tileseg.batch.executor import in_disk_order
from napari_tileseg.batch.stamps import input_stamp
from napari_tileseg.batch.task import Outcome
from napari_tileseg.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Client

    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.batch.executor import Executor
    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.batch.task import Task

__all__ = ["DaskExecutor", "kept", "make_executor"]


def make_executor(job: BatchJob, *, workers: int = 0, scheduler: str = "", divide: bool = True) -> Executor:
    """Return what does the tasks of a job: this program, or the workers of a cluster.

    Parameters
    ----------
    job : BatchJob
        Its device decides whether processes on this computer share out its GPUs.
    workers : int
        Processes on this computer; 0 for none, unless a scheduler is named.
    scheduler : str
        Address of a Dask scheduler, or the file that one has written; it knows its workers, so 1 beside it says nothing.
    divide : bool
        Whether an image may be done by all workers together, see `DaskExecutor`.
    """
    if not workers and not scheduler:
        from napari_tileseg.batch.executor import LocalExecutor

        return LocalExecutor()
    count = 0 if scheduler and workers == 1 else workers
    return DaskExecutor(workers=count, scheduler=scheduler, device=job.options.device, divide=divide)


@contextlib.contextmanager
def kept(executor: Executor) -> Iterator[Executor]:
    """Keep what an executor has started (processes, and the models in them) from one batch to the next, until the block ends."""
    if not isinstance(executor, DaskExecutor):
        yield executor
        return
    with contextlib.ExitStack() as stack:
        executor._stack, executor._client = stack, None
        try:
            yield executor
        finally:
            executor._stack = executor._client = None


@dataclass
class DaskExecutor:
    """Does tasks on a cluster, which is there for one run, or for several inside `kept`.

    Parameters
    ----------
    workers : int
        Processes on this computer, if no scheduler is named.
    scheduler : str
        Address of a scheduler, or the file that one has written.
    device : str
        What the models are to run on.
    divide : bool
        Whether an image is done by all workers together where `regions.worth_dividing` says so; each is one worker's otherwise.
    loads : dict of str to int
        For each process that has worked, how many models it has loaded in its life.
    """

    workers: int = 0
    scheduler: str = ""
    device: str = "auto"
    divide: bool = True
    loads: dict[str, int] = field(default_factory=dict)
    _stack: contextlib.ExitStack | None = field(default=None, repr=False, compare=False)
    _client: Client | None = field(default=None, repr=False, compare=False)

    def run(
        self,
        tasks: Iterable[Task],
        *,
        tell: Callable[[BatchEvent], None],
        cancel: Callable[[], bool],
        paused: Callable[[], bool],
    ) -> Iterator[tuple[Task, Outcome]]:
        """See `Executor.run`.

        Raises
        ------
        OptionsError
            If the cluster cannot be used: it does not answer, has another version, or does not see the files.
        """
        listed = in_disk_order(tasks)
        with self._connected() as client:
            crew = Crew(client, loads=self.loads)
            try:
                wait_for_workers(client, cancel=cancel)
                check_greetings(client, _folders(listed))
                yield from self._run(crew, listed, tell, cancel, paused)
            except Cancelled:
                return

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Client]:
        there = connect(workers=self.workers, scheduler=self.scheduler, device=self.device)
        if self._stack is None:
            with there as client:
                yield client
            return
        if self._client is None or self._client.status != "running":
            self._client = self._stack.enter_context(there)
        yield self._client

    def _run(
        self, crew: Crew, tasks: list[Task], tell: Callable[[BatchEvent], None], cancel: Callable[[], bool], paused: Callable[[], bool]
    ) -> Iterator[tuple[Task, Outcome]]:
        from napari_tileseg.batch.regions import segment_task, worth_dividing

        workers = max(self.workers, crew.size())
        large = [task for task in tasks if self.divide and worth_dividing(task, tasks=len(tasks), workers=workers)]
        numbers = {task.number for task in large}
        by_number = {task.number: task for task in tasks}
        started: set[int] = set()

        def hear(message: dict[str, Any]) -> None:
            task = by_number[message["number"]]
            if message.get("started"):
                started.add(task.number)
                tell(TaskStarted(task.number, task.name))
            else:
                tell(TaskProgress(task.number, message["done"], message["total"]))

        orders = ({"number": t.number, "kind": "task", "model": t.model, "task": t.to_dict()} for t in tasks if t.number not in numbers)
        for answer in crew.do(orders, hear=hear, cancel=cancel, paused=paused):
            task = by_number[answer["number"]]
            if task.number not in started:  # its answer was quicker than what it said before
                tell(TaskStarted(task.number, task.name))
            yield task, _outcome(task, answer)
        for task in large:
            tell(TaskStarted(task.number, task.name))
            yield task, segment_task(task, crew, tell=tell, cancel=cancel, paused=paused)


def _outcome(task: Task, answer: dict[str, Any]) -> Outcome:
    name = Path(task.input).name
    if answer.get("killed"):
        return Outcome(
            "failed",
            f'"{name}" has ended several workers, one after the other, perhaps for want of memory. Try it alone, with a smaller window.',
            input_digest=input_stamp(Path(task.input)) if Path(task.input).exists() else "",
        )
    if answer.get("cancelled"):
        return Outcome("failed", f'"{name}" was stopped by the cluster, not by you. Try it again.')
    outcome = Outcome.from_dict(answer["outcome"])
    if outcome.state == "failed" and answer["unseen"] and Path(task.input).exists():
        return Outcome(
            "failed",
            f'"{name}" is here, but not on {answer["host"]}, where a worker has looked for it. Images and results must lie on a disk '
            "that this program and all workers see under the same path.",
            seconds=outcome.seconds,
        )
    return outcome


def _folders(tasks: list[Task]) -> list[str]:
    """Return the folders that workers must see: those of the images, as far as they have one in common, and of the journals."""
    inputs = {os.path.dirname(task.input) for task in tasks}
    journals = {os.path.dirname(task.journal) for task in tasks}
    try:
        common = os.path.commonpath(sorted(inputs)) if inputs else ""
    except ValueError:  # on several drives
        common = ""
    wanted = {common} if common and len(inputs) > 1 else inputs
    return sorted({*(folder for folder in wanted if folder and os.path.isdir(folder)), *journals})
