"""``Row``: what the table knows of one file, and how the events of a batch change it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from napari_tileseg.batch.events import TaskEnded, TaskProgress, TaskStarted
from napari_tileseg.widgets.states import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_tileseg.batch.task import State

__all__ = ["SHOWN", "Glyph", "Row", "counted", "found_words", "glyph", "heard", "state_words"]

Glyph = Literal["", "check", "error", "long_right_arrow", "right_arrow", "warning"]
"""Name of one of napari's icons."""

SHOWN: dict[str, str] = {
    "": "All",
    "waiting": "Waiting",
    "running": "Running",
    "done": "Done",
    "skipped": "Skipped",
    "failed": "Failed",
}
"""What the table can show, and how it is called."""


@dataclass(slots=True)
class Row:
    """One file with one model.

    Parameters
    ----------
    name : str
        What people read.
    state : str
        As in ``batch.task``.
    before : bool
        An earlier run has done it.
    again : bool
        It is tried once more when the run that goes on is over.
    done, total : int
        Tiles.
    counts : dict of str to int
        Objects, or pixels of each class.
    instances : bool
        Whether `counts` are objects.
    seconds : float
    message : str
        Why it failed or was skipped; warnings where it was done.
    input, output : str
        Paths; empty while they are not known.
    series : int
        Which image of the file.
    model : str
        Name of the model.
    """

    name: str
    state: State = "waiting"
    before: bool = False
    again: bool = False
    done: int = 0
    total: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    instances: bool = False
    seconds: float = 0.0
    message: str = ""
    input: str = ""
    output: str = ""
    series: int = 0
    model: str = ""


def heard(rows: Sequence[Row], event: object) -> int | None:
    """Take an event into its row; return the row's number, or None if the event is about none."""
    if not isinstance(event, TaskStarted | TaskProgress | TaskEnded) or not 0 <= event.number < len(rows):
        return None
    row = rows[event.number]
    match event:
        case TaskStarted():
            row.state, row.message, row.done, row.total = "running", "", 0, 0
        case TaskProgress(_, done, total) if row.state in ("waiting", "running"):
            row.state, row.done, row.total = "running", done, total
        case TaskEnded():
            row.state = event.state if event.state in SHOWN else "failed"  # type: ignore[assignment]
            row.before, row.message, row.seconds = event.before, event.message, event.seconds
            row.counts, row.instances = dict(event.counts), event.instances
            row.output = event.output or row.output
    return event.number


def state_words(row: Row, *, idle: bool = False) -> str:
    """Say how a file stands: ``"86 objects, 2.9 s"``, ``"5 of 12 tiles"``.

    Parameters
    ----------
    row : Row
    idle : bool
        Whether no batch has begun: what waits is then ready.
    """
    if row.again:
        return "failed, will be retried"
    match row.state:
        case "waiting":
            return "waiting" if not idle else "will fail" if row.message else "ready"
        case "running":
            return f"{row.done} of {row.total} tiles" if row.total else "running"
        case "done" if row.before:
            return "done before"
        case "done":
            return f"{found_words(row)}, {duration(row.seconds)}"
    return row.state


def found_words(row: Row) -> str:
    """Say what was found in a file: ``"86 objects"``, ``"2 classes"``; nothing where it is not done."""
    if row.state != "done":
        return ""
    if row.instances:
        total = sum(row.counts.values())
        return f"{total} object{'s' * (total != 1)}"
    classes = sum(1 for count in row.counts.values() if count)
    return f"{classes} class{'es' * (classes != 1)}"


def glyph(row: Row) -> Glyph:
    """Return the icon that stands before a file's name."""
    match row.state:
        case "done" if row.before:
            return "long_right_arrow"
        case "done":
            return "warning" if row.message else "check"
        case "skipped":
            return "long_right_arrow"
        case "failed":
            return "error"
        case "running":
            return "right_arrow"
        case "waiting" if row.message:
            return "warning"
    return ""


def counted(rows: Iterable[Row]) -> Counter[str]:
    """Count the rows in each state, and all of them under ``""``."""
    counts = Counter(str(row.state) for row in rows)
    counts[""] = counts.total()
    return counts
