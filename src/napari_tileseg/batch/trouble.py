"""``failed``: what an error means for a task: that its image cannot be done, or that nothing can be written any more."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.batch.place import home_of
from napari_tileseg.batch.stamps import input_stamp
from napari_tileseg.batch.task import Outcome
from napari_tileseg.errors import OutputError, TileSegError
from napari_tileseg.io.output import FULL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_tileseg.batch.task import Task

__all__ = ["failed"]


def failed(task: Task, error: Exception, seconds: float = 0.0) -> Outcome:
    """Return the outcome of a task that has raised an error.

    Raises
    ------
    OutputError
        If the error is none of this task alone: nothing can be written any more.
    """
    if isinstance(error, OutputError | OSError) and (fatal := _fatal(task, error)) is not None:
        raise fatal from error
    return Outcome("failed", _sentence(task, error), seconds=seconds, input_digest=_stamp_or_nothing(task))


def _stamp_or_nothing(task: Task) -> str:
    try:
        return input_stamp(Path(task.input))
    except OSError:
        return ""


def _sentence(task: Task, error: Exception) -> str:
    if isinstance(error, TileSegError):
        return str(error)
    name = Path(task.input).name
    if isinstance(error, MemoryError):
        return f'"{name}" does not fit in memory. Choose a smaller window, or save it in pieces.'
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error).strip().split("\n")[0] or type(error).__name__
    return f'"{name}" could not be segmented: {reason} ({type(error).__name__}).'


def _fatal(task: Task, error: Exception) -> OutputError | None:
    """Return what ends the whole batch, if the disk is full or the output folder cannot be written; None otherwise."""
    folder, own = Path(task.journal), home_of(task)
    if any(isinstance(cause, OSError) and cause.errno in FULL for cause in _causes(error)):
        return _full(own)
    try:
        for place in {folder.parent, Path(task.output).parent} if folder.parent.is_dir() else {folder.parent}:
            if place != folder.parent and not place.exists():
                continue
            probe = place / f".tileseg-{os.getpid()}-{threading.get_ident()}"
            try:
                probe.write_bytes(b"\0" * 4096)
            finally:
                probe.unlink(missing_ok=True)
    except OSError as refused:
        if refused.errno in FULL:
            return _full(own)
        return OutputError(
            f'Nothing can be written in "{own}" any more: {refused.strerror or refused}. '
            "Start the same run again when that is possible: it goes on where it stopped."
        )
    return None


def _full(own: Path) -> OutputError:
    return OutputError(f'The disk that holds "{own}" is full. Free some space and start the same run again: it goes on where it stopped.')


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 20:
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1
