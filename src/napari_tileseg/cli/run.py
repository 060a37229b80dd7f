"""``tileseg run``: a saved job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_tileseg.cli.arguments import (
    Lines,
    Overwrite,
    Resume,
)
from napari_tileseg.cli.console import guarded
from napari_tileseg.cli.program import app
from napari_tileseg.cli.single import perform
from napari_tileseg.errors import OptionsError
from napari_tileseg.job import Job

__all__ = ["run"]


@app.command()
def run(
    job: Annotated[Path, typer.Argument(metavar="JOB.json", help="A job exported from the Segment widget, or written by hand.")],
    image: Annotated[Path | None, typer.Option("--input", metavar="IN", help="Another image than the job's.")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", metavar="OUT", help="Another place for the labels.")] = None,
    overwrite: Overwrite = False,
    resume: Resume = True,
    json_lines: Lines = False,
) -> None:
    """Repeat exactly what a saved job says."""
    with guarded(json_lines):
        given = {"input": str(image) if image else None, "output": str(output) if output else None}
        loaded = load_job(job).model_copy(update={key: value for key, value in given.items() if value})
        for field, option in (("input", "--input"), ("output", "-o")):
            if not getattr(loaded, field):
                raise OptionsError(f'"{job.name}" names no {field}. Give it with {option}.')
        perform(loaded, overwrite=overwrite, resume=resume, json_lines=json_lines)


def load_job(path: Path) -> Job:
    from pydantic import ValidationError

    from napari_tileseg.job import sentence

    try:
        return Job.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionsError(f'The job "{path}" could not be read: {error.strerror}.') from None
    except (ValidationError, UnicodeDecodeError) as error:
        reason = sentence(error) if isinstance(error, ValidationError) else "it is no text file."
        raise OptionsError(f'"{path.name}" is no job: {reason}') from None
