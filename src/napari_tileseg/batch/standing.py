"""``standing``: whether what the ledger says of a task still holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from napari_tileseg.batch.stamps import input_stamp, output_stamp
from napari_tileseg.batch.task import OVER

if TYPE_CHECKING:
    from napari_tileseg.batch.ledger import Row
    from napari_tileseg.batch.task import Task

__all__ = ["Standing", "standing"]

Standing = Literal["new", "done", "skipped", "failed", "changed", "gone", "touched"]
"""``changed``: the image has. ``gone``: the result, or what is wanted beside it. ``touched``: the result may be another one."""


def standing(task: Task, row: Row | None) -> Standing:
    """Say where a task stands; nothing but sizes and times of files is looked at.

    Parameters
    ----------
    task : Task
    row : Row or None
        What the ledger knows of it.
    """
    if row is None or row.state not in OVER:
        return "new"
    try:
        if input_stamp(Path(task.input)) != row.input_digest:
            return "changed"
    except OSError:
        return "failed" if row.state == "failed" and not row.input_digest else "changed"
    if row.state != "done":
        return "failed" if row.state == "failed" else "skipped"
    try:
        if output_stamp(Path(task.output)) != row.output_stamp:
            return "touched"
    except OSError:
        return "gone"
    beside = (task.objects, task.overlay, task.scores, task.uncertainty)
    return "done" if all(Path(path).exists() for path in beside if path) else "gone"
