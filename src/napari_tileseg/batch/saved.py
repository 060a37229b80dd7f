"""The job of a batch in its own output folder, so that ``tileseg run FOLDER`` goes on with it.

Paths in it are relative to the output folder: it may be moved together with the images. Where that would name the user's own folder,
nothing is saved.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.ledger import FOLDER
from napari_tileseg.errors import OptionsError
from napari_tileseg.io.output import put_in_place
from napari_tileseg.job import sentence

__all__ = ["load_saved", "save_job"]

_NAME = "job.json"


def save_job(job: BatchJob, output: Path) -> None:
    """Keep a job for later.

    Parameters
    ----------
    job : BatchJob
    output : Path
        Its output folder, absolute, with the folder for all that is no result in it.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    inputs = [_relative(path, output) for path in job.inputs]
    models = [_relative(ref, output) if Path(ref).expanduser().exists() else ref for ref in job.models]
    path = output / FOLDER / _NAME
    if None in inputs or any(model is None or os.path.isabs(model.partition(":")[2]) for model in models):
        path.unlink(missing_ok=True)  # that of an earlier run would be another job
        return
    kept = job.model_copy(update={"inputs": tuple(inputs), "models": tuple(models), "output": "."})
    with put_in_place(path, overwrite=True) as temporary:
        temporary.write_text(kept.model_dump_json(indent=2) + "\n", encoding="utf-8", errors="surrogateescape")


def load_saved(output: Path) -> BatchJob:
    """Return the job that an output folder holds, with paths that lead to where its images are.

    Raises
    ------
    OptionsError
        If there is none, or it cannot be used.
    """
    path = output / FOLDER / _NAME
    try:
        job = BatchJob.model_validate_json(path.read_text(encoding="utf-8", errors="surrogateescape"))
    except FileNotFoundError:
        raise OptionsError(f'"{output}" holds no job of a batch. Give the job\'s own file, or start with tileseg batch.') from None
    except (OSError, ValidationError) as error:
        reason = sentence(error) if isinstance(error, ValidationError) else f"{error.strerror}."
        raise OptionsError(f'The job in "{output}" cannot be used: {reason}') from None
    folder = Path(os.path.abspath(output.expanduser()))
    inputs = tuple(os.path.normpath(folder / name) for name in job.inputs)
    models = tuple(os.path.normpath(folder / ref) if (folder / ref).exists() else ref for ref in job.models)
    return job.model_copy(update={"inputs": inputs, "models": models, "output": str(folder)})


def _relative(path: str, output: Path) -> str | None:
    """Return the way from the output folder to a path; None where there is none, or it would name the user's own folder."""
    try:
        way = os.path.relpath(os.path.expanduser(path), output)
    except ValueError:  # another drive
        return None
    return None if Path.home().name in Path(way).parts else Path(way).as_posix()
