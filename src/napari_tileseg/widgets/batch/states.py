"""What the Batch dock shows, as pure functions of what the form holds and how the batch stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from napari_tileseg.batch.events import BatchFinished, BatchProgress, BatchStarted
from napari_tileseg.widgets.states import Action, Bar, Message, Phase, Prospect, duration
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Evented, Failed, Loaded, Loading, Queued

if TYPE_CHECKING:
    from napari_tileseg.widgets.batch.rows import Row
    from napari_tileseg.worker.messages import Message as Told

__all__ = ["Batch", "View", "advance", "press", "row_message", "view"]

Press = Literal["start", "cancel", "continue", "new", "nothing"]

_OVER = (Phase.DONE, Phase.CANCELLED, Phase.DIED)


@dataclass(frozen=True)
class Batch:
    """How the latest batch stands.

    Parameters
    ----------
    phase : Phase
    title : str
        ``"raw → labels, Nuclei 2D"``.
    done, total : int
        Files that are over, and all files.
    before : int
        Files that an earlier run had done.
    seconds_left : float or None
    pausing, paused : bool
        Somebody has asked for a pause; no file is under way any more.
    waiting : int
        Runs before this one.
    task : str
        What is done before the first file: ``"Saving layer 1 of 2"``.
    result : BatchFinished or None
    sentence, details : str
        What went wrong.
    """

    phase: Phase = Phase.NONE
    title: str = ""
    done: int = 0
    total: int = 0
    before: int = 0
    seconds_left: float | None = None
    pausing: bool = False
    paused: bool = False
    waiting: int = 0
    task: str = ""
    result: BatchFinished | None = None
    sentence: str = ""
    details: str = ""

    @property
    def folded(self) -> bool:
        """Whether the form makes room for the table."""
        return self.phase.active or self.phase in _OVER


@dataclass(frozen=True)
class View:
    """Everything around the table, ready to be shown; an empty `second` hides the second button."""

    button: str
    enabled: bool
    primary: bool
    second: str
    folded: bool
    setup: str
    box: str
    bar: Bar | None = None
    message: Message | None = None


def advance(batch: Batch, told: Told) -> Batch:
    """Return the batch after a message of the supervisor; one that is being cancelled keeps saying so."""
    match told:
        case Queued(position):
            return _step(batch, Phase.QUEUED, waiting=position)
        case Loading() | Loaded():
            return _step(batch, Phase.LOADING, task="")
        case Evented(BatchStarted(names, before=before)):
            return _step(batch, Phase.RUNNING, total=len(names), before=before, done=before, task="")
        case Evented(BatchProgress(done, total, seconds_left, paused)):
            return _step(batch, Phase.RUNNING, done=done, total=total, seconds_left=seconds_left, paused=paused)
        case Evented(BatchFinished() as result):
            return replace(batch, result=result, done=result.done + result.skipped + result.failed)
        case Done():
            return replace(batch, phase=Phase.DONE, seconds_left=None, pausing=False, paused=False)
        case CancelledRun(done, total):
            return replace(batch, phase=Phase.CANCELLED, done=done, total=total or batch.total, pausing=False, paused=False)
        case Failed(_, sentence, details):
            return replace(batch, phase=Phase.FAILED, sentence=sentence, details=details, pausing=False, paused=False)
        case Died(sentence, done, total, details):
            dead = replace(batch, phase=Phase.DIED, sentence=sentence, details=details, pausing=False, paused=False)
            return replace(dead, done=done, total=total or batch.total)
    return batch


def _step(batch: Batch, phase: Phase, **values: object) -> Batch:
    kept = batch.phase is Phase.CANCELLING
    return replace(batch, phase=batch.phase if kept else phase, **values)  # type: ignore[arg-type]


def press(prospect: Prospect, batch: Batch) -> Press:
    """Say what the primary button does now."""
    if batch.phase is Phase.CANCELLING:
        return "nothing"
    if batch.phase.active:
        return "cancel"
    if batch.phase.resumable:
        return "continue"
    if batch.phase is Phase.DONE:
        return "new"
    return "start" if prospect.ready else "nothing"


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
    share = batch.done / batch.total if batch.total else None
    files = f"{batch.done} of {batch.total} files"
    match batch.phase:
        case Phase.QUEUED:
            before = "another run" if batch.waiting <= 1 else f"{batch.waiting} other runs"
            return Bar(f"Waiting for {before}")
        case Phase.LOADING:
            return Bar(batch.task or "Starting")
        case Phase.RUNNING if batch.paused:
            return Bar(f"Paused after {files}", share)
        case Phase.RUNNING if batch.pausing:
            return Bar("Finishing what is under way", share)
        case Phase.RUNNING:
            left = f", {duration(batch.seconds_left)} left" if batch.seconds_left is not None else ""
            return Bar(files + left, share)
        case Phase.CANCELLING:
            return Bar("Finishing the current tile", share)
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
