"""What a batch tells while it goes on: plain frozen records that travel as JSON, like those of a single run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from napari_tileseg.engine.events import Record
from napari_tileseg.errors import InputError

__all__ = ["KINDS", "BatchEvent", "BatchFinished", "BatchProgress", "BatchStarted", "TaskEnded", "TaskProgress", "TaskStarted", "from_dict"]


@dataclass(frozen=True)
class BatchStarted(Record):
    """The list is made.

    Parameters
    ----------
    names : tuple of str
        Of the tasks, in the order of their numbers.
    left_out : tuple of (str, str)
        Files that are no task, each with the reason.
    before : int
        Tasks that an earlier run has done.
    output : str
        The folder of the results.
    """

    kind: ClassVar[str] = "batch started"
    names: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    before: int = 0
    output: str = ""


@dataclass(frozen=True)
class TaskStarted(Record):
    """Work on a task begins; `attempt` counts from 1."""

    kind: ClassVar[str] = "task started"
    number: int
    name: str
    attempt: int = 1


@dataclass(frozen=True)
class TaskProgress(Record):
    """`done` of `total` tiles of a task are computed."""

    kind: ClassVar[str] = "task progress"
    number: int
    done: int
    total: int


@dataclass(frozen=True)
class TaskEnded(Record):
    """A task is over; the fields are those of `batch.task.Outcome`. `before`: an earlier run has done it."""

    kind: ClassVar[str] = "task ended"
    number: int
    name: str
    state: str
    message: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    instances: bool = False
    seconds: float = 0.0
    before: bool = False
    output: str = ""
    anomaly: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchProgress(Record):
    """`done` of `total` tasks are over; `seconds_left` is None while nothing is known about the speed."""

    kind: ClassVar[str] = "batch progress"
    done: int
    total: int
    seconds_left: float | None = None
    paused: bool = False


@dataclass(frozen=True)
class BatchFinished(Record):
    """The batch is over, by itself or because it was cancelled.

    Parameters
    ----------
    done, skipped, failed, waiting : int
        Tasks in each state; `before` of the done ones are an earlier run's.
    seconds : float
        Wall time of this run.
    report : str
        Path of ``report.html``; empty if there is none.
    cancelled : bool
        Whether somebody stopped it.
    """

    kind: ClassVar[str] = "batch finished"
    done: int
    skipped: int
    failed: int
    waiting: int
    before: int
    seconds: float
    report: str = ""
    cancelled: bool = False


BatchEvent = BatchStarted | TaskStarted | TaskProgress | TaskEnded | BatchProgress | BatchFinished
"""Any event of a batch."""

KINDS: dict[str, type[Record]] = {
    record.kind: record for record in (BatchStarted, TaskStarted, TaskProgress, TaskEnded, BatchProgress, BatchFinished)
}
"""Each by the word that its dictionary holds at ``"event"``."""


def from_dict(data: dict[str, Any]) -> BatchEvent:
    """Return the event that ``to_dict`` made `data` of.

    Raises
    ------
    InputError
        If ``data["event"]`` names no event of a batch.
    """
    kind = data.get("event")
    if kind not in KINDS:
        raise InputError(f"{kind!r} is no event of a batch. Known are {', '.join(KINDS)}.")
    event: BatchEvent = KINDS[kind].from_dict(data)
    return event
