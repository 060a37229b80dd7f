"""What a training tells while it goes on: plain frozen records that travel as JSON, like those of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from napari_tileseg.engine.events import Record
from napari_tileseg.errors import InputError

__all__ = [
    "KINDS",
    "EpochEnded",
    "Noted",
    "SamplesMade",
    "StepEnded",
    "TrainEvent",
    "TrainingEnded",
    "TrainingExpected",
    "TrainingStarted",
    "from_dict",
]


@dataclass(frozen=True)
class TrainingStarted(Record):
    """The data is looked through, and all that follows from it is settled.

    Parameters
    ----------
    train, val : int
        Images to learn from and to validate on.
    report : tuple of str
        What was found, a sentence each.
    warnings : tuple of str
        What the user should know of it.
    settings : dict
        What the config left open, as it was chosen.
    epochs : int
        0 for a training without labels, which counts steps only.
    step : int
        Steps that an earlier run has done.
    """

    kind: ClassVar[str] = "training started"
    train: int
    val: int
    report: tuple[str, ...]
    warnings: tuple[str, ...]
    settings: dict[str, Any]
    epochs: int
    step: int = 0


@dataclass(frozen=True)
class TrainingExpected(Record):
    """What a training is going to take, measured on a few steps and one validation image.

    Parameters
    ----------
    step_seconds, validation_seconds, epoch_seconds, seconds : float
        Of a step, of all validation images, of an epoch, and of all epochs, if it does not stop early.
    memory : int
        Bytes; those of the device where it has its own.
    device : str
    size : int
        Crops that are learnt at once, where the device has no memory for the batch; 0 where it has.
    """

    kind: ClassVar[str] = "expected"
    step_seconds: float
    validation_seconds: float
    epoch_seconds: float
    seconds: float
    memory: int
    device: str = "cpu"
    size: int = 0


@dataclass(frozen=True)
class StepEnded(Record):
    """Batches were learnt; `loss` is the mean since the last event.

    `losses` holds the parts of the loss by name, where it has several; without labels, `stage` says what learns now.
    """

    kind: ClassVar[str] = "step"
    step: int
    steps: int
    loss: float
    rate: float
    seconds: float
    seconds_left: float | None = None
    stage: str = ""
    losses: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplesMade(Record):
    """What a model that learns without labels makes now.

    Parameters
    ----------
    stage : str
        What learns.
    step : int
    path : str
        File (``.npy``) with pictures (N, C, Y, X) from 0 to 1; the next ones take its place.
    pairs : bool
        Whether every second picture is what came back of the one before it; made from nothing otherwise.
    """

    kind: ClassVar[str] = "samples"
    stage: str
    step: int
    path: str
    pairs: bool


@dataclass(frozen=True)
class EpochEnded(Record):
    """An epoch is over and validated.

    Parameters
    ----------
    epoch, epochs : int
        Counted from 1.
    loss : float
        Mean of the epoch.
    score : float or None
        By which the best epoch is chosen: mean Dice of the classes, or AP of objects at an overlap of one half; None without validation.
    scores : dict of str to float
        Means over the validation images.
    best : bool
        Whether it is the best so far.
    preview, preview_path : str
        Name of the validation image that is shown, and the file (``.npy``) with its labels; empty where there is none.
    images : tuple of dict
        Where the epoch is the best and somebody wants to look at its results: each validation image by ``"name"``, its ``"scores"`` by
        name, the paths of ``"image"``, ``"truth"`` and ``"labels"`` (``.npy``), and the ``"box"`` of the region that counts, if it is one.
    losses : dict of str to float
        Means of the parts of the loss, where it has several: segmentation, adversarial, discriminator.
    """

    kind: ClassVar[str] = "epoch"
    epoch: int
    epochs: int
    loss: float
    score: float | None
    scores: dict[str, float] = field(default_factory=dict)
    best: bool = False
    rate: float = 0.0
    seconds: float = 0.0
    seconds_left: float | None = None
    preview: str = ""
    preview_path: str = ""
    images: tuple[dict[str, Any], ...] = ()
    losses: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Noted(Record):
    """Something that the user should know: the batch was halved, an image is gone."""

    kind: ClassVar[str] = "note"
    message: str


@dataclass(frozen=True)
class TrainingEnded(Record):
    """The model is written.

    Parameters
    ----------
    output : str
        Its folder.
    epoch : int
        The one whose weights it has.
    score : float or None
    reason : {"done", "early", "stopped"}
        All epochs are over; no better score for long; somebody stopped it, and the same call goes on from here.
    """

    kind: ClassVar[str] = "training ended"
    output: str
    epoch: int
    score: float | None
    reason: str
    seconds: float


TrainEvent = TrainingStarted | TrainingExpected | StepEnded | SamplesMade | EpochEnded | Noted | TrainingEnded
"""Any event of a training."""

_RECORDS = (TrainingStarted, TrainingExpected, StepEnded, SamplesMade, EpochEnded, Noted, TrainingEnded)

KINDS: dict[str, type[Record]] = {record.kind: record for record in _RECORDS}
"""Each by the word that its dictionary holds at ``"event"``."""


def from_dict(data: dict[str, Any]) -> TrainEvent:
    """Return the event that ``to_dict`` made `data` of.

    Raises
    ------
    InputError
        If ``data["event"]`` names no event of a training.
    """
    kind = data.get("event")
    if kind not in KINDS:
        raise InputError(f"{kind!r} is no event of a training. Known are {', '.join(KINDS)}.")
    event: TrainEvent = KINDS[kind].from_dict(data)
    return event
