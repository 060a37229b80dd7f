"""What the Segment dock shows, as a pure function of what the form holds and how the run stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Action",
    "Bar",
    "Form",
    "Link",
    "Message",
    "Phase",
    "Prospect",
    "Run",
    "View",
    "press",
    "progress_words",
    "queue_bar",
    "summary",
    "view",
]

Kind = Literal["info", "done", "warning", "error"]
Press = Literal["segment", "cancel", "continue", "nothing"]


class Phase(Enum):
    """How a run stands. ``NONE``: there has been none, or its message was put away."""

    NONE = "none"
    QUEUED = "queued"
    DOWNLOADING = "downloading"
    LOADING = "loading"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"
    DIED = "died"
    REMOVED = "removed"

    @property
    def active(self) -> bool:
        """The run is under way, or waits for its turn."""
        return self in _ACTIVE

    @property
    def resumable(self) -> bool:
        """The run stopped half-way and its finished part can be carried on."""
        return self in (Phase.CANCELLED, Phase.DIED)


_ACTIVE = {Phase.QUEUED, Phase.DOWNLOADING, Phase.LOADING, Phase.RUNNING, Phase.CANCELLING}


class Action(Enum):
    """What a link asks for."""

    SAMPLE = "Open a sample"
    TIME = "Time"
    DEPTH = "Depth"
    CHANNELS = "Channels"
    AGAIN = "Start again"
    LIKE_THIS = "Run again like this"
    REMOVE = "Remove layer"
    SAVE = "Save..."
    DETAILS = "Details"
    HELP = "How to fix"
    COPY = "Copy details"
    SMALLER = "Smaller window"
    CPU = "Use CPU"
    RESTORE = "Bring it back"
    UNLOAD = "Unload"
    EDIT = "Edit this region"
    PUT_BACK = "Put back"
    RETRY = "Retry"
    RETRY_FAILED = "Retry failed"
    REPORT = "Report"
    FOLDER = "Open folder"
    OPEN = "Open image"
    SHOW = "Show in folder"
    COMMAND = "Copy as command"
    EXPORT = "Export job"
    TRUST = "Trust..."
    REVOKE = "Stop trusting"
    IMPORT = "Import..."
    VERIFY = "Verify"
    GIVE_ON = "Export..."
    DELETE = "Remove"
    TRY = "Try on the active image"
    CARD = "Whole card"
    DRAW = "Generate samples..."
    CODES = "Latent space"
    REFRESH = "Refresh"
    BACK = "Do not import"
    SAY = "Say it"
    LATER = "Not now"
    MEASURE = "Measure the time"
    STOP = "Stop"
    REFINE = "Refine"
    RESUME = "Go on"
    SEGMENT = "Open Segment"
    AGAIN_SCORES = "Run again"
    USE = "Use"
    KEEP = "Keep"
    DISCARD = "Discard"
    OPEN_COPY = "Open a copy"
    WORK_COPY = "Work on a copy"


Link = Action
"""A link is an action; its value is its text."""


@dataclass(frozen=True)
class Message:
    """One sentence and the next steps it offers."""

    kind: Kind
    text: str
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Bar:
    """A progress bar; `share` is None while the end is unknown."""

    text: str
    share: float | None = None


@dataclass(frozen=True)
class Prospect:
    """What the form of a batch or a training says of it before it begins.

    Parameters
    ----------
    ready : bool
        It can be started.
    box : str
        What will happen.
    """

    ready: bool = False
    box: str = ""


@dataclass(frozen=True)
class Form:
    """What the fields say at this moment.

    Parameters
    ----------
    image : str or None
        Name of the chosen image; None when no layer can be segmented.
    problem : str
        One sentence when the fields cannot be run as they are.
    question : str
        What must be asked at Axes before a run.
    estimate : str
        What will happen; empty while it is worked out.
    note : str
        A sentence about layers that are open but are no images.
    timed : bool
        How long the run will take is known.
    measuring : str
        What is done at the moment to find it out; empty where nothing is.
    """

    image: str | None = None
    problem: str = ""
    question: str = ""
    estimate: str = ""
    note: str = ""
    timed: bool = True
    measuring: str = ""

    @property
    def ready(self) -> bool:
        return self.image is not None and not self.problem and not self.question


@dataclass(frozen=True)
class Run:
    """How the latest run stands.

    Parameters
    ----------
    phase : Phase
    image, model : str
        What it works on, in the words of the fields.
    done, total : int
        Tiles.
    seconds_left : float or None
    waiting : int
        Runs before this one.
    megabytes : tuple of float or None
        Downloaded and whole size.
    sentence : str
        The result in words, or what went wrong.
    warnings : tuple of str
    details : str
        Traceback for a bug report.
    error : str
        Class of the error that ended it.
    layer : bool
        The result is in a layer.
    same : bool
        The form still holds the image and model of this run, so it can be carried on.
    image_gone : bool
        The image layer was removed while the run went on.
    large : bool
        The result is a pyramid on the disk, which can be painted region by region only.
    editing : bool
        A region of it is open.
    """

    phase: Phase = Phase.NONE
    image: str = ""
    model: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    waiting: int = 0
    megabytes: tuple[float, float] | None = None
    sentence: str = ""
    warnings: tuple[str, ...] = ()
    details: str = ""
    error: str = ""
    layer: bool = False
    same: bool = True
    image_gone: bool = False
    large: bool = False
    editing: bool = False


@dataclass(frozen=True)
class View:
    """Everything below the form, ready to be shown."""

    button: str
    enabled: bool
    primary: bool
    box: str
    question: str = ""
    bar: Bar | None = None
    message: Message | None = None
    links: tuple[Link, ...] = ()


def press(form: Form, run: Run) -> Press:
    """Say what the primary button does now."""
    if run.phase is Phase.CANCELLING:
        return "nothing"
    if run.phase.active:
        return "cancel"
    if run.phase.resumable and run.same:
        return "continue"
    return "segment" if form.ready else "nothing"


def view(form: Form, run: Run) -> View:
    """Put the state into words.

    Parameters
    ----------
    form : Form
    run : Run

    Returns
    -------
    View
    """
    deed = press(form, run)
    words = {"segment": "Segment", "cancel": "Cancel", "continue": "Continue", "nothing": "Segment"}
    button = "Cancelling..." if run.phase is Phase.CANCELLING else words[deed]
    return View(
        button=button,
        enabled=deed != "nothing",
        primary=deed in ("segment", "continue"),
        box=_box(form, run),
        question=form.question,
        bar=_bar(run),
        message=_message(form, run),
        links=_links(form, run),
    )


def progress_words(run: Run) -> str:
    """Say how far a run is: ``"5 of 12 tiles, 14 s left"``."""
    if run.seconds_left is None:
        return f"{run.done} of {run.total} tiles"
    return f"{run.done} of {run.total} tiles, {duration(run.seconds_left)} left"


def duration(seconds: float) -> str:
    """Write a time as a person would: ``"2.8 s"``, ``"14 s"``, ``"6 min"``, ``"3 h"``."""
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"


def summary(counts: Mapping[str, int], *, objects: bool, seconds: float, background: str = "") -> str:
    """Say what was found: ``"86 objects in 2.8 s."``, ``"2 classes in 1.4 s: anterior, posterior."``.

    Parameters
    ----------
    counts : mapping of str to int
        Objects, or voxels, by class.
    objects : bool
        Whether `counts` counts objects.
    seconds : float
        Wall time.
    background : str
        Class that is not spoken of.
    """
    time = duration(seconds)
    found = {name: count for name, count in counts.items() if name != background and count}
    if objects:
        total = sum(found.values())
        return f"{total} object{'s' * (total != 1)} in {time}." if total else f"No objects were found in {time}."
    if not found:
        return f"Nothing but background was found in {time}."
    return f"{len(found)} class{'es' * (len(found) != 1)} in {time}: {', '.join(found)}."


def _box(form: Form, run: Run) -> str:
    if run.phase.active:
        gone = " Image removed; the run goes on." if run.image_gone else ""
        return f"{run.image} with {run.model}. Changes apply to the next run.{gone}"
    if form.image is None:
        return form.note or "An image becomes labels in one click."
    if form.question:
        return f"Waiting for the meaning of {_subject(form.question)}."
    if form.problem:
        return form.problem
    if form.measuring:
        return f"{form.estimate}\n{form.measuring}".strip()
    return form.estimate or "Working out tiles, time, memory"


def _links(form: Form, run: Run) -> tuple[Link, ...]:
    """Return what can be done about the box."""
    if run.phase.active or not form.ready:
        return ()
    if form.measuring:
        return (Action.STOP,)
    return (Action.MEASURE,) if form.estimate and not form.timed else ()


def _subject(question: str) -> str:
    """Return ``"the first axis"`` of ``"What is the first axis (12 entries)?"``."""
    return question.removeprefix("What is ").split(" (")[0].rstrip("?")


def queue_bar(waiting: int) -> Bar:
    """Say how many runs something waits for."""
    return Bar("Waiting for another run" if waiting <= 1 else f"Waiting for {waiting} other runs")


def _bar(run: Run) -> Bar | None:
    match run.phase:
        case Phase.QUEUED:
            return queue_bar(run.waiting)
        case Phase.DOWNLOADING if run.megabytes:
            got, whole = run.megabytes
            return Bar(f"Downloading {got:.0f} of {whole:.0f} MB", got / whole if whole else None)
        case Phase.LOADING | Phase.DOWNLOADING:
            return Bar("Loading model")
        case Phase.RUNNING if run.total:
            return Bar(progress_words(run), run.done / run.total)
        case Phase.RUNNING:
            return Bar("Preparing the image")
        case Phase.CANCELLING:
            return Bar("Finishing the current tile", run.done / run.total if run.total else None)
    return None


def _message(form: Form, run: Run) -> Message | None:
    if form.image is None and run.phase is Phase.NONE:
        return Message("info", "No image is open.", (Action.SAMPLE,))
    match run.phase:
        case Phase.CANCELLED:
            links = (Action.AGAIN, Action.REMOVE) if run.layer else (Action.AGAIN,)
            where = f" {run.done} of {run.total} tiles are in the layer." if run.layer else " Nothing was finished yet."
            return Message("warning", f"Cancelled.{where}", links)
        case Phase.DONE:
            warned = f" {_sentences(run.warnings)}" if run.warnings else ""
            kind: Kind = "warning" if run.warnings else "done"
            edit = ((Action.PUT_BACK if run.editing else Action.EDIT),) if run.large else ()
            return Message(kind, run.sentence + warned, (Action.REFINE, Action.SAVE, *edit, Action.DETAILS))
        case Phase.FAILED if run.error == "TrustError":
            return Message("error", run.sentence.partition(" Trust it only")[0], (Action.TRUST, Action.COPY))
        case Phase.FAILED:
            links = (Action.HELP, Action.COPY) if run.details else (Action.HELP,)
            return Message("error", run.sentence, links)
        case Phase.DIED:
            return Message("error", run.sentence, (Action.SMALLER, Action.CPU, Action.COPY))
        case Phase.REMOVED:
            return Message("warning", "Result removed." if run.sentence else "Result removed, run cancelled.", (Action.RESTORE,))
    return None


def _sentences(texts: tuple[str, ...]) -> str:
    unique = list(dict.fromkeys(texts))
    return " ".join(text if text.endswith((".", "?", "!")) else f"{text}." for text in unique)
