"""``perform_batch``: a batch on a console, from the arguments to the exit status."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from napari_tileseg.cli.console import complain, interrupts
from napari_tileseg.cli.fetching import bring
from napari_tileseg.cli.progress import progress
from napari_tileseg.cli.sentences import ending
from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.batch.executor import Executor
    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.batch.run import Report as BatchReport

__all__ = ["How", "perform_batch"]


@dataclass(frozen=True)
class How:
    """What belongs to one call of a batch and not to the job: where it runs, what is tried again, when it ends.

    Parameters
    ----------
    dry_run : bool
        Only say what would be done.
    retry_failed : bool
        Try images again that an earlier run has failed at.
    workers : int
        Processes that work side by side.
    scheduler : str
        Address or file of a Dask scheduler; empty for none.
    split : bool
        Spread a large image over the workers, where that is quicker.
    watch : bool
        Go on with images that appear.
    settle : float
        Seconds for which an image must not have changed before it is taken.
    until_idle : float or None
        Seconds without a new image after which watching ends; None: never.
    """

    dry_run: bool = False
    retry_failed: bool = False
    workers: int = 1
    scheduler: str = ""
    split: bool = True
    watch: bool = False
    settle: float = 10.0
    until_idle: float | None = None


def perform_batch(job: BatchJob, how: How, *, json_lines: bool) -> None:
    """Run a batch, tell how it goes, and end with 0 (all done), 1 (some failed) or 130 (stopped)."""
    if how.dry_run and how.watch:
        raise OptionsError("--dry-run looks once and --watch goes on looking. Give one of them.")
    bring(*job.models)
    if how.dry_run:
        from napari_tileseg.cli.preview import tell_preview

        return tell_preview(job, retry_failed=how.retry_failed, json_lines=json_lines)
    # Before torch is there: the model's threads must not spin while another image is read, decoded or written.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    with interrupts() as cancel, progress(json_lines, cancel) as tell:
        end = _run(job, how, tell, cancel, json_lines=json_lines)
    if not json_lines:
        typer.echo(ending(end))
        if end.report:
            typer.echo(f"Report: {end.report}")
    if end.cancelled:
        complain("Stopped. The same command goes on from here.")
        raise typer.Exit(130)
    if end.failed:
        raise typer.Exit(1)


def _run(job: BatchJob, how: How, tell: Callable[[BatchEvent], None], cancel: Callable[[], bool], *, json_lines: bool) -> BatchReport:
    """Run it once, or again and again."""
    from napari_tileseg.batch.cluster import kept

    with kept(_executor(job, how)) as executor:
        if not how.watch:
            from napari_tileseg.batch.run import run_batch

            return run_batch(job, on_event=tell, cancel=cancel, retry_failed=how.retry_failed, executor=executor)
        from napari_tileseg.batch.watch import watch_batch

        if not json_lines:
            complain("Watching for images; Ctrl-C ends it." if how.until_idle is None else "Watching for images.")
        return watch_batch(
            job,
            settle=how.settle,
            until_idle=how.until_idle,
            on_event=tell,
            cancel=cancel,
            retry_failed=how.retry_failed,
            executor=executor,
        )


def _executor(job: BatchJob, how: How) -> Executor:
    """Return what does the tasks; one worker needs no cluster."""
    from napari_tileseg.batch.cluster import make_executor

    workers = 0 if how.workers == 1 else how.workers
    return make_executor(job, workers=workers, scheduler=how.scheduler, divide=how.split)
