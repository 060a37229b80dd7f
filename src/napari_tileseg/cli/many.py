"""``perform_batch``: a batch on a console, from the arguments to the exit status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from napari_tileseg.cli.console import complain, interrupts
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
    workers : int or None
        Processes that work side by side; None: this one.
    scheduler : str or None
        Address or file of a Dask scheduler.
    split : bool
        Spread each large image over the workers.
    watch : bool
        Go on with images that appear.
    settle : float
        Seconds for which an image must not have changed before it is taken.
    until_idle : float or None
        Seconds without a new image after which watching ends; None: never.
    """

    dry_run: bool = False
    retry_failed: bool = False
    workers: int | None = None
    scheduler: str | None = None
    split: bool = False
    watch: bool = False
    settle: float = 10.0
    until_idle: float | None = None


def perform_batch(job: BatchJob, how: How, *, json_lines: bool) -> None:
    """Run a batch, tell how it goes, and end with 0 (all done), 1 (some failed) or 130 (stopped)."""
    if how.dry_run and how.watch:
        raise OptionsError("--dry-run looks once and --watch goes on looking. Give one of them.")
    if how.dry_run:
        from napari_tileseg.cli.preview import tell_preview

        return tell_preview(job, json_lines=json_lines)
    with interrupts() as cancel, progress(json_lines, cancel) as tell:
        end = _run(job, how, tell, cancel)
    if not json_lines:
        typer.echo(ending(end))
        if end.report:
            typer.echo(f"Report: {end.report}")
    if end.cancelled:
        complain("Stopped. The same command goes on from here.")
        raise typer.Exit(130)
    if end.failed:
        raise typer.Exit(1)


def _run(job: BatchJob, how: How, tell: Callable[[BatchEvent], None], cancel: Callable[[], bool]) -> BatchReport:
    """Run it once, or again and again."""
    executor = _executor(job, how)
    if not how.watch:
        from napari_tileseg.batch.run import run_batch

        return run_batch(job, on_event=tell, cancel=cancel, retry_failed=how.retry_failed, executor=executor)
    from napari_tileseg.batch.watch import watch_batch

    return watch_batch(
        job,
        settle=how.settle,
        until_idle=how.until_idle,
        on_event=tell,
        cancel=cancel,
        retry_failed=how.retry_failed,
        executor=executor,
    )


def _executor(job: BatchJob, how: How) -> Executor | None:
    """Return what does the tasks elsewhere; None where this program does them."""
    if how.scheduler is None and how.workers in (None, 1):
        if how.split:
            raise OptionsError("--split spreads an image over workers. Give their number (--workers), or a cluster (--scheduler).")
        return None
    from napari_tileseg.batch.cluster import make_executor

    return make_executor(job, workers=how.workers, scheduler=how.scheduler)
