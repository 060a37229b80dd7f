"""``put``: a result takes its place at once, be it a file, several that belong together, a store, or labels inside a store."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.batch.ledger import FOLDER
from napari_tileseg.io.output import take_place
from napari_tileseg.io.own_labels import enlist, is_label_place
from napari_tileseg.io.registry import check_writable, parts_of

if TYPE_CHECKING:
    from napari_tileseg.batch.task import Task

__all__ = ["announce", "home_of", "make_way", "put"]


def home_of(task: Task) -> Path:
    """Return the output folder of a task's batch."""
    folder = Path(task.journal)
    return next((parent.parent for parent in folder.parents if parent.name == FOLDER), folder.parent)


def make_way(task: Task, path: Path) -> None:
    """Make the folders for a file of a task, but never the output folder itself: somebody has taken it away, and it would be another.

    Raises
    ------
    OSError
        If that does not work; FileNotFoundError if the output folder is gone.
    """
    home = home_of(task)
    missing = [folder for folder in path.parents if folder.is_relative_to(home) and folder != home]
    for folder in reversed(missing or [path.parent]):
        folder.mkdir(exist_ok=True)


def put(staged: Path, output: Path) -> None:
    """Move a file or folder to its place; what stood there goes when it is replaced. `make_way` first.

    Of files that belong together the one that names the others comes last, so that it never stands beside those of an earlier result.

    Raises
    ------
    OSError
        If the system refuses; `staged` is still there then.
    OutputError
        If voxels would take the place of a file that is no part of an earlier result.
    """
    moves = [(part, place) for part, place in zip(parts_of(staged), parts_of(output), strict=True) if part.exists()]
    if len(moves) > 1:  # fewer where `put` was cut off
        check_writable(output, overwrite=True)
        output.unlink(missing_ok=True)
    for part, place in reversed(moves):
        _move(part, place)
    announce(output)


def _move(staged: Path, output: Path) -> None:
    try:
        take_place(staged, output)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _carry(staged, output)


def announce(output: Path) -> None:
    """Have labels in the store of their image listed there; of others nobody has to be told.

    Raises
    ------
    OutputError
        If the system refuses.
    """
    if is_label_place(output):
        enlist(output)


def _carry(staged: Path, output: Path) -> None:
    """Copy to another disk under a temporary name first."""
    beside = output.with_name(f".{secrets.token_hex(6)}.{output.name}")
    try:
        if staged.is_dir():
            shutil.copytree(staged, beside)
        else:
            shutil.copy2(staged, beside)
        take_place(beside, output)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True) if beside.is_dir() else beside.unlink(missing_ok=True)
        raise
    if not staged.is_dir():
        os.unlink(staged)
