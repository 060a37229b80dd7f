"""What the Batch dock shows, as pure functions of what the form holds and how the batch stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_tileseg.batch.events import BatchFinished, BatchProgress, BatchStarted
from napari_tileseg.widgets.course import Course, View, moved, over, press
from napari_tileseg.widgets.states import Action, Bar, Message, Phase, Prospect, duration, queue_bar
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Evented, Failed, Loaded, Loading, Queued

if TYPE_CHECKING:
    from napari_tileseg.widgets.batch.rows import Row
    from napari_tileseg.worker.messages import Message as Told

__all__ = ["Batch", "advance", "row_message", "view"]


@dataclass(frozen=True)
class Batch(Course):
    """How the latest batch stands; `done` and `total` count files.

    Parameters
    ----------
    before : int
        Files that an earlier run had done.
    paused : bool
        No file is under way any more.
    result : BatchFinished or None
    """

    before: int = 0
    paused: bool = False
    result: BatchFinished | None = None


def advance(batch: Batch, told: Told) -> Batch:
    """Return the batch after a message of the supervisor; one that is being cancelled keeps saying so."""
    match told:
        case Queued(position):
            return moved(batch, Phase.QUEUED, waiting=position)
        case Loading() | Loaded():
            return moved(batch, Phase.LOADING, task="")
        case Evented(BatchStarted(names, before=before)):
            return moved(batch, Phase.RUNNING, total=len(names), before=before, done=before, task="")
        case Evented(BatchProgress(done, total, seconds_left, paused)):
            return moved(batch, Phase.RUNNING, done=done, total=total, seconds_left=seconds_left, paused=paused)
        case Evented(BatchFinished() as result):
            return replace(batch, result=result, done=result.done + result.skipped + result.failed)
        case Done():
            return over(batch, Phase.DONE, seconds_left=None, paused=False)
        case CancelledRun(done, total):
            return over(batch, Phase.CANCELLED, done=done, total=total or batch.total, paused=False)
        case Failed(_, sentence, details):
            return over(batch, Phase.FAILED, sentence=sentence, details=details, paused=False)
        case Died(sentence, done, total, details):
            dead = over(batch, Phase.DIED, sentence=sentence, details=details, paused=False)
            return replace(dead, done=done, total=total or batch.total)
    return batch


def view(prospect: Prospect, batch: Batch) -> View:
    """Put the state into words."""
    deed = press(prospect, batch)
    words = {"start": "Start", "cancel": "Cancel", "continue": "Continue", "new": "New batch", "nothing": "Start"}
    return View(
        button="Cancelling..." if batch.phase is Phase.CANCELLING else words[deed],
        enabled=deed != "nothing",
        primary=deed in ("start", "continue"),
        second=_second(batch),
        folded=batch.folded,
        setup=batch.title,
        box=_box(prospect, batch),
        bar=_bar(batch),
        message=_message(batch),
    )


def row_message(row: Row | None, *, active: bool) -> Message | None:
    """Say what is to be said of the selected file.

    Parameters
    ----------
    row : Row or None
    active : bool
        Whether a batch goes on.
    """
    if row is None:
        return None
    if row.again:
        return Message("info", f"{row.name} is tried again when the other files are done.", (Action.OPEN, Action.SHOW))
    if row.state == "failed":
        return Message("error", row.message or f"{row.name} failed.", (Action.RETRY, Action.OPEN, Action.SHOW))
    if row.state == "skipped" and row.message:
        return Message("info", row.message, (Action.OPEN, Action.SHOW))
    if row.state == "waiting" and row.message and not active:
        return Message("warning", f"This file will fail. {row.message}", (Action.OPEN, Action.SHOW))
    if row.state == "done" and row.message:
        return Message("warning", row.message.replace("\n", " "), (Action.SHOW,))
    return None


def _box(prospect: Prospect, batch: Batch) -> str:
    if batch.phase.active:
        return f"{batch.title} goes on. Changes apply to the next batch."
    return "New batch takes what the fields hold." if batch.folded else prospect.box


def _second(batch: Batch) -> str:
    if batch.phase in (Phase.QUEUED, Phase.LOADING, Phase.RUNNING):
        return "Resume" if batch.pausing else "Pause"
    return "New batch" if batch.phase.resumable else ""


def _bar(batch: Batch) -> Bar | None:
    files = f"{batch.done} of {batch.total} files"
    match batch.phase:
        case Phase.QUEUED:
            return queue_bar(batch.waiting)
        case Phase.LOADING:
            return Bar(batch.task or "Starting")
        case Phase.RUNNING if batch.paused:
            return Bar(f"Paused after {files}", batch.share)
        case Phase.RUNNING if batch.pausing:
            return Bar("Finishing what is under way", batch.share)
        case Phase.RUNNING:
            left = f", {duration(batch.seconds_left)} left" if batch.seconds_left is not None else ""
            return Bar(files + left, batch.share)
        case Phase.CANCELLING:
            return Bar("Finishing the current tile", batch.share)
    return None


def _message(batch: Batch) -> Message | None:
    before = f"{batch.before} of {batch.total} were done before." if batch.before else ""
    match batch.phase:
        case Phase.RUNNING if before:
            return Message("info", before)
        case Phase.CANCELLED:
            left = f"{batch.done} of {batch.total} files are done; Continue does the others." if batch.total else "No file was begun."
            return Message("warning", f"Cancelled. {left}", (Action.FOLDER, Action.DETAILS) if batch.done else ())
        case Phase.FAILED:
            return Message("error", batch.sentence, (Action.HELP, Action.COPY) if batch.details else (Action.HELP,))
        case Phase.DIED:
            return Message("error", batch.sentence, (Action.FOLDER, Action.COPY))
        case Phase.DONE if batch.result is not None:
            return _result(batch.result, before)
    return None


def _result(result: BatchFinished, before: str) -> Message:
    """Say how a batch ended: ``"94 done, 1 skipped, 1 failed in 5 min."``."""
    parts = [
        f"{result.done} done",
        *[f"{count} {word}" for count, word in ((result.skipped, "skipped"), (result.failed, "failed")) if count],
    ]
    text = f"{', '.join(parts)} in {duration(result.seconds)}."
    report = (Action.REPORT,) if result.report else ()
    retry = (Action.RETRY_FAILED,) if result.failed else ()
    links = (*retry, *report, Action.FOLDER, Action.DETAILS)
    return Message("warning" if result.failed else "done", " ".join(part for part in (text, before) if part), links)
