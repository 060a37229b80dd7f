"""``tileseg run``: a saved job, of one image or of many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.saved import load_saved
from napari_tileseg.cli.arguments import (
    DryRun,
    Lines,
    Overwrite,
    Resume,
    RetryFailed,
    Scheduler,
    Settle,
    Split,
    UntilIdle,
    Watch,
    Workers,
)
from napari_tileseg.cli.console import guarded
from napari_tileseg.cli.many import How, perform_batch
from napari_tileseg.cli.program import app
from napari_tileseg.cli.single import perform
from napari_tileseg.errors import OptionsError
from napari_tileseg.job import Job

__all__ = ["run"]


@app.command()
def run(
    job: Annotated[
        Path, typer.Argument(metavar="JOB", help="A job exported from a widget or written by hand, or the output folder of a batch.")
    ],
    image: Annotated[Path | None, typer.Option("--input", metavar="IN", help="Another image, or folder, than the job's.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="OUT", help="Another place for the labels.")] = None,
    overwrite: Overwrite = False,
    resume: Resume = True,
    dry_run: DryRun = False,
    retry_failed: RetryFailed = False,
    workers: Workers = 1,
    scheduler: Scheduler = "",
    split: Split = True,
    watch: Watch = False,
    settle: Settle = 10.0,
    watch_until_idle: UntilIdle = None,
    json_lines: Lines = False,
) -> None:
    """Do exactly what a saved job says, or go on with it; a batch too."""
    with guarded(json_lines):
        how = How(
            dry_run=dry_run,
            retry_failed=retry_failed,
            workers=workers,
            scheduler=scheduler,
            split=split,
            watch=watch or watch_until_idle is not None,
            settle=settle,
            until_idle=watch_until_idle,
        )
        loaded = load_saved(job) if job.is_dir() else _load_job(job)
        if isinstance(loaded, BatchJob):
            if overwrite or not resume:
                raise OptionsError(f'"{job.name}" is a batch, which goes on where it stopped. To begin anew, give another folder with -o.')
            places: dict[str, Any] = {"inputs": (str(image),) if image else None, "output": str(output) if output else None}
            many = loaded.model_copy(update={key: value for key, value in places.items() if value})
            return perform_batch(many, how, json_lines=json_lines)
        if how != How(settle=settle):
            raise OptionsError(f'"{job.name}" is the job of one image. Workers, watching, --dry-run and --retry-failed are for batches.')
        given = {"input": str(image) if image else None, "output": str(output) if output else None}
        single = loaded.model_copy(update={key: value for key, value in given.items() if value})
        for field, option in (("input", "--input"), ("output", "-o")):
            if not getattr(single, field):
                raise OptionsError(f'"{job.name}" names no {field}. Give it with {option}.')
        perform(single, overwrite=overwrite, resume=resume, json_lines=json_lines)


def _load_job(path: Path) -> Job | BatchJob:
    """Read a job; what it says of its kind decides which one it is."""
    from pydantic import ValidationError

    from napari_tileseg.job import sentence

    try:
        text = path.read_text(encoding="utf-8")
        kind = BatchJob if _says_batch(text) else Job
        return kind.model_validate_json(text)
    except OSError as error:
        raise OptionsError(f'The job "{path}" could not be read: {error.strerror}.') from None
    except (ValidationError, UnicodeDecodeError) as error:
        reason = sentence(error) if isinstance(error, ValidationError) else "it is no text file."
        raise OptionsError(f'"{path.name}" is no job: {reason}') from None


def _says_batch(text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("kind") == "batch"
