"""``tileseg run``: a saved job, of one image or of many; or the job that a saved result came from."""

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
from napari_tileseg.cli.console import complain, guarded
from napari_tileseg.cli.many import How, perform_batch
from napari_tileseg.cli.program import app
from napari_tileseg.cli.single import perform
from napari_tileseg.errors import OptionsError
from napari_tileseg.io.files import zarr_root
from napari_tileseg.io.registry import read_volume
from napari_tileseg.job import Job
from napari_tileseg.replay import differences, find_image, read_provenance, recall

__all__ = ["run"]


@app.command()
def run(
    job: Annotated[
        Path,
        typer.Argument(
            metavar="JOB",
            help="A job exported from a widget or written by hand, labels that this program saved, or the output folder of a batch.",
        ),
    ],
    image: Annotated[Path | None, typer.Option("--input", metavar="IN", help="Another image, or folder, than the job's.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="OUT", help="Another place for the labels.")] = None,
    model: Annotated[str, typer.Option("--model", metavar="REF", help="Another model than the job's.")] = "",
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
    """Do exactly what a saved job says, or go on with it; a batch too. Given saved labels, make them again."""
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
        loaded = _load(job, image, model)
        if isinstance(loaded, BatchJob):
            if model:
                raise OptionsError(
                    f'"{job.name}" is a batch, whose results are of its own model. Start another with tileseg batch --model.'
                )
            if overwrite or not resume:
                raise OptionsError(f'"{job.name}" is a batch, which goes on where it stopped. To begin anew, give another folder with -o.')
            places: dict[str, Any] = {"inputs": (str(image),) if image else None, "output": str(output) if output else None}
            many = loaded.model_copy(update={key: value for key, value in places.items() if value})
            return perform_batch(many, how, json_lines=json_lines)
        if how != How(settle=settle):
            raise OptionsError(f'"{job.name}" is the job of one image. Workers, watching, --dry-run and --retry-failed are for batches.')
        given = {"input": str(image) if image else None, "output": str(output) if output else None}
        single = loaded.model_copy(update={key: value for key, value in given.items() if value})
        for field, words, option in (("input", "image", "--input"), ("output", "new result", "-o")):
            if not getattr(single, field):
                raise OptionsError(f'"{job.name}" does not say where the {words} is. Give it with {option}.')
        perform(single, overwrite=overwrite, resume=resume, json_lines=json_lines)


def _load(path: Path, image: Path | None, model: str) -> Job | BatchJob:
    """Read a job, a batch, or the job that a saved result came from; say what will not be as it was."""
    if path.is_dir() and zarr_root(path) is None:
        return load_saved(path)
    if path.suffix.lower() == ".json" and not _says_provenance(path):
        found = _load_job(path)
        return found.model_copy(update={"model": model}) if model and isinstance(found, Job) else found
    provenance = read_provenance(path)
    again = recall(provenance, model=model)
    place = image or find_image(path, again.image)
    if place is None:
        raise OptionsError(f'"{path.name}" was made from the image "{again.image}", which does not lie beside it. Give it with --input.')
    there = read_volume(place, series=again.job.series, level=again.job.level)
    for note in (*again.notes, *differences(provenance, there)):
        complain(note)
    # Another image may have axes of its own.
    axes = again.job.axes if len(there.shape) == len(again.job.axes or "") else None
    return again.job.model_copy(update={"input": str(place), "axes": axes})


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
    return _object(text).get("kind") == "batch"


def _says_provenance(path: Path) -> bool:
    """Say whether a file of JSON holds a provenance rather than a job."""
    try:
        found = _object(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return False
    return "provenance" in found or isinstance(found.get("model"), dict)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
