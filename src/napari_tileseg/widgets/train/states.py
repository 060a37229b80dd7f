"""What the Train dock shows, as pure functions of what the form holds and how the training stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from napari_tileseg.training.events import EpochEnded, Noted, StepEnded, TrainingEnded, TrainingStarted
from napari_tileseg.widgets.course import Course, Press, View, moved, over, press
from napari_tileseg.widgets.states import Action, Bar, Message, Phase, Prospect, duration, queue_bar
from napari_tileseg.widgets.train.words import in_words
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Evented, Failed, Loaded, Loading, Queued

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_tileseg.worker.messages import Message as Told

__all__ = ["Training", "advance", "view"]

_STAGES = ("generator", "encoder")
"""What is said to learn; an autoencoder has nothing else that learns."""


@dataclass(frozen=True)
class Training(Course):
    """How the latest training stands; `done` and `total` count steps.

    Parameters
    ----------
    name : str
        Of the model.
    measure : str
        What its score is: ``"Dice"`` or ``"AP"``.
    epoch, epochs : int
        The epoch under way, from 1, and all; 0 of 0 where steps alone are counted.
    stage : str
        What learns now, where several things learn one after the other.
    notes : tuple of str
        What the user should know, the latest last.
    best_epoch : int
        The one whose weights are kept; 0 before the first is over.
    score : float or None
        Of that epoch.
    result : TrainingEnded or None
        The model is written.
    """

    while_active: ClassVar[Press] = "pause"

    name: str = ""
    measure: str = "Dice"
    stage: str = ""
    epoch: int = 0
    epochs: int = 0
    notes: tuple[str, ...] = ()
    best_epoch: int = 0
    score: float | None = None
    result: TrainingEnded | None = None

    @property
    def folded(self) -> bool:
        """Whether the form makes room for curves and table: also for those of a training that failed after a model was written."""
        return super().folded or (self.phase is Phase.FAILED and self.result is not None)


def advance(training: Training, told: Told) -> Training:
    """Return the training after a message of the supervisor; one that is being stopped keeps saying so."""
    match told:
        case Queued(position):
            return moved(training, Phase.QUEUED, waiting=position)
        case Loading() | Loaded():
            return moved(training, Phase.LOADING, task="Looking at the images")
        case Evented(TrainingStarted(epochs=epochs, settings=settings)):
            return moved(training, Phase.RUNNING, epochs=epochs, epoch=max(training.epoch, 1), measure=_measure(settings), task="")
        case Evented(StepEnded(step, steps, seconds_left=left, stage=stage)):
            epoch = 1 + (step - 1) * training.epochs // steps if steps else training.epoch
            return moved(training, Phase.RUNNING, done=step, total=steps, seconds_left=left, epoch=epoch, stage=stage)
        case Evented(EpochEnded() as ended):
            kept = {"best_epoch": ended.epoch, "score": ended.score} if ended.best else {}
            following = min(ended.epoch + 1, ended.epochs)
            return moved(training, Phase.RUNNING, epoch=following, epochs=ended.epochs, seconds_left=ended.seconds_left, **kept)
        case Evented(Noted(text)):
            return replace(training, notes=(*training.notes, text))
        case Evented(TrainingEnded() as result):
            return replace(training, result=result, best_epoch=result.epoch, score=result.score)
        case Done():
            stopped = training.result is not None and training.result.reason == "stopped"
            return over(training, Phase.CANCELLED if stopped else Phase.DONE)
        case CancelledRun():
            return over(training, Phase.CANCELLED)
        case Failed(_, sentence, details):
            return over(training, Phase.FAILED, sentence=in_words(sentence), details=details)
        case Died(sentence, _, _, details):
            return over(training, Phase.DIED, sentence=sentence, details=details)
    return training


def _measure(settings: Mapping[str, Any]) -> str:
    return "AP" if settings.get("task") == "instances" else "Dice"


def view(prospect: Prospect, training: Training) -> View:
    """Put the state into words."""
    deed = press(prospect, training)
    pause = "Resume" if training.pausing else "Pause"
    words = {"start": "Train", "pause": pause, "continue": "Continue", "new": "New training", "nothing": "Train"}
    stopping = training.phase is Phase.CANCELLING
    second = "Stop and keep" if training.phase.active else "New training" if training.phase.resumable else ""
    return View(
        button=pause if stopping else words[deed],
        enabled=deed != "nothing",
        primary=deed in ("start", "continue"),
        second="Stopping..." if stopping else second,
        second_enabled=not stopping,
        folded=training.folded,
        setup=training.title,
        box="" if training.folded else prospect.box,
        bar=_bar(training),
        message=_message(training),
    )


def _bar(training: Training) -> Bar | None:
    place = f"epoch {training.epoch} of {training.epochs}" if training.epochs else f"step {training.done} of {training.total}"
    place = f"{training.stage}, {place}" if training.stage in _STAGES else place
    match training.phase:
        case Phase.QUEUED:
            return queue_bar(training.waiting)
        case Phase.LOADING:
            return Bar(training.task or "Starting")
        case Phase.RUNNING if training.pausing:
            return Bar(f"Paused in {place}", training.share)
        case Phase.RUNNING if not training.total:
            return Bar("Preparing the images")
        case Phase.RUNNING:
            left = f", {duration(training.seconds_left)} left" if training.seconds_left is not None else ""
            return Bar(f"{place[0].upper()}{place[1:]}{left}", training.share)
        case Phase.CANCELLING:
            return Bar("Finishing the current step", training.share)
    return None


def _message(training: Training) -> Message | None:
    score = f", {training.measure} {training.score:.2f}" if training.score is not None else ""
    kept = f"Epoch {training.best_epoch} is kept{score}." if training.best_epoch else "No epoch was over yet."
    if not training.epochs and training.result is not None:
        kept = f"What was learnt so far is in {training.name}."
        if training.stage == "generator":
            kept += " It makes images; what is strange it does not know before its encoder has learnt."
    elif not training.epochs:
        kept = "Nothing was learnt yet." if not training.done else "What was learnt is kept."
    use = (Action.USE,) if training.result is not None else ()
    match training.phase:
        case Phase.RUNNING if training.notes:
            return Message("info", training.notes[-1])
        case Phase.DONE:
            more = " It did not get better any more." if training.result is not None and training.result.reason == "early" else ""
            if training.score == 0:
                more += " Nothing that it finds in the validation images is right: train longer, or look at the labels."
            return Message("warning" if training.score == 0 else "done", f"{training.name} is ready{score}.{more}", (*use, Action.CARD))
        case Phase.CANCELLED:
            return Message("warning", f"Stopped. {kept} Continue goes on from there.", (*use, *((Action.CARD,) if use else ())))
        case Phase.FAILED:
            text = f"{training.sentence} {kept}" if training.result is not None else training.sentence
            return Message("error", text, (*use, Action.HELP, *((Action.COPY,) if training.details else ())))
        case Phase.DIED:
            return Message("error", training.sentence, (Action.COPY,))
    return None
