"""What napari's process and the model's process tell each other: frozen records, one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.batch import events as batch_events
from napari_tileseg.engine.events import Event, from_dict
from napari_tileseg.training import events as training_events

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.training.events import TrainEvent

__all__ = [
    "Begin",
    "BeginBatch",
    "BeginProbe",
    "BeginTraining",
    "Block",
    "BlockError",
    "CancelledRun",
    "Died",
    "Done",
    "Envelope",
    "Evented",
    "Failed",
    "Loaded",
    "Loading",
    "Message",
    "Pause",
    "Queued",
    "Read",
    "Ready",
    "Stop",
    "from_line",
    "to_line",
]


@dataclass(frozen=True)
class Queued:
    """The run waits; `position` runs go before it, the one that is running counted."""

    position: int


@dataclass(frozen=True)
class Loading:
    """The model is being loaded."""

    model: str


@dataclass(frozen=True)
class Loaded:
    """The model is in memory.

    Parameters
    ----------
    model : str
        Its name for people.
    device : str
        Where it is: ``"cpu"``, ``"cuda:0"`` or ``"mps"``.
    bytes : int
        What unloading it gives back: memory of the device, or of the process where the device is the CPU.
    """

    model: str
    device: str
    bytes: int


@dataclass(frozen=True)
class Evented:
    """The engine, a batch or a training reported something."""

    event: Event | BatchEvent | TrainEvent


@dataclass(frozen=True)
class Done:
    """The whole result is in the labels.

    Parameters
    ----------
    provenance : dict
        What can be stored beside the labels.
    counts : dict of str to int
        Number of objects, or of pixels per class.
    seconds : float
        Wall time of the run, without the loading of the model.
    warnings : tuple of str
        Sentences.
    """

    provenance: dict[str, Any]
    counts: dict[str, int]
    seconds: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CancelledRun:
    """The run has stopped because somebody asked; `done` of `total` tiles, or files of a batch, are there (0 of 0 before the first)."""

    done: int
    total: int


@dataclass(frozen=True)
class Failed:
    """The run has stopped at an error; the model's process goes on.

    Parameters
    ----------
    kind : str
        Name of the error's class.
    message : str
        A sentence to show.
    details : str
        Traceback and the end of the process's log.
    """

    kind: str
    message: str
    details: str = ""


@dataclass(frozen=True)
class Died:
    """The model's process has ended by itself in the middle of the run.

    Parameters
    ----------
    message : str
        Sentences to show.
    done, total : int
        Tiles, or files of a batch, whose labels are kept, and all of them.
    details : str
        Exit status and the end of the process's log.
    """

    message: str
    done: int
    total: int
    details: str = ""


Message = Queued | Loading | Loaded | Evented | Done | CancelledRun | Failed | Died
"""What the supervisor's callback gets."""


@dataclass(frozen=True)
class Ready:
    """Child to parent, once: the process listens; `version` and `root` say which napari-tileseg it runs."""

    pid: int
    version: str
    root: str


@dataclass(frozen=True)
class Read:
    """Child to parent: please put a box of the image into the exchange file; one (start, stop, step) per axis, steps positive.

    `level` is the resolution, 0 the finest.
    """

    request: int
    box: tuple[tuple[int, int, int], ...]
    level: int = 0


@dataclass(frozen=True)
class Begin:
    """Parent to child: run this job.

    Parameters
    ----------
    job : dict
        A ``Job`` as JSON.
    model : str
        What ``load_model`` takes; paths are absolute, since the child stands in another folder.
    axes, shape, dtype, affine, units, name, channel_names, metadata
        The volume, without its data.
    levels : tuple of tuple of int
        Shapes of its coarser resolutions, the finest first.
    labels, scores, uncertainty : str
        Files (``.npy``) that are to be filled; all but `labels` are empty where they are not wanted.
    journal : str
        Folder for the run's journal; what an interrupted run has left there is continued.
    backend : str
        Module with ``segment`` and ``load_model`` to use instead of the program's own; for tests.
    """

    job: dict[str, Any]
    model: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    affine: tuple[tuple[float, ...], ...]
    units: tuple[str, ...]
    name: str
    channel_names: tuple[str, ...]
    metadata: dict[str, Any]
    labels: str
    levels: tuple[tuple[int, ...], ...] = ()
    scores: str = ""
    uncertainty: str = ""
    journal: str = ""
    backend: str = ""


@dataclass(frozen=True)
class BeginBatch:
    """Parent to child: run this batch; what an earlier run of it has done is not done again.

    Parameters
    ----------
    job : dict
        A ``BatchJob`` as JSON, its paths absolute.
    retry_failed : bool or tuple of str
        Whether files that failed before are tried again: all of them, or those of these names.
    workers : int
        Processes to run on.
    cluster : str
        Address of a Dask scheduler; empty for this computer.
    paused : bool
        Whether it begins with a pause.
    backend : str
        Module with ``run_batch`` to use instead of the program's own; for tests.
    """

    job: dict[str, Any]
    retry_failed: bool | tuple[str, ...] = False
    workers: int = 1
    cluster: str = ""
    paused: bool = False
    backend: str = ""


@dataclass(frozen=True)
class BeginTraining:
    """Parent to child: train this; what an earlier one has left is gone on with.

    Parameters
    ----------
    config : dict
        A ``TrainConfig`` or ``UnsupervisedConfig`` as JSON, as its ``"kind"`` says; its paths absolute.
    data : tuple of (str, str)
        Images and labels (empty where none are needed), instead of the config's folders; empty for those.
    dry : bool
        Whether nothing is learnt: one ``TrainingStarted`` says what would be.
    resume : bool
    overwrite : bool
        Whether a model that stands there is replaced.
    views : str
        Folder for the labels of validation images; empty if nobody wants to see them.
    paused : bool
        Whether it begins with a pause.
    backend : str
        Module with ``train`` to use instead of the program's own; for tests.
    """

    config: dict[str, Any]
    data: tuple[tuple[str, str], ...] = ()
    dry: bool = False
    resume: bool = True
    overwrite: bool = False
    views: str = ""
    paused: bool = False
    backend: str = ""


@dataclass(frozen=True)
class BeginProbe:
    """Parent to child: time one tile.

    Parameters
    ----------
    model : str
        What ``load_model`` takes.
    options : dict
        ``SegmentOptions`` as JSON.
    backend : str
        As of `Begin`.
    """

    model: str
    options: dict[str, Any]
    backend: str = ""


@dataclass(frozen=True)
class Stop:
    """Parent to child: stop the run after the current tile."""


@dataclass(frozen=True)
class Pause:
    """Parent to child: wait before the next tile of the batch, or after the step of the training, or go on where `paused` is False."""

    paused: bool = True


@dataclass(frozen=True)
class Block:
    """Parent to child: the box that was asked for lies at the start of this file, in C order."""

    request: int
    path: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class BlockError:
    """Parent to child: the box could not be read; `message` is a sentence, `details` the traceback."""

    request: int
    message: str
    details: str = ""


@dataclass(frozen=True)
class Envelope:
    """A message and the number of the run it belongs to (0: none)."""

    body: Any
    run: int = field(default=0)


_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Queued, Loading, Loaded, Evented, Done, CancelledRun, Failed, Died),
        *(Ready, Read, Begin, BeginBatch, BeginProbe, BeginTraining, Stop, Pause, Block, BlockError),
    )
}


def to_line(body: Any, run: int = 0) -> bytes:
    """Return a message as one line of JSON, UTF-8, newline included."""
    content = {item.name: getattr(body, item.name) for item in fields(body)}
    if isinstance(body, Evented):
        content["event"] = body.event.to_dict()
    # ASCII keeps every newline inside strings escaped, so that a line is a message.
    return json.dumps({"message": type(body).__name__, "run": run, "content": content}, default=_plain).encode("ascii") + b"\n"


def from_line(line: bytes) -> Envelope:
    """Return the message that `to_line` made.

    Raises
    ------
    ValueError
        If the line is no message.
    """
    try:
        record = json.loads(line)
        kind, run, content = _KINDS[record["message"]], int(record["run"]), record["content"]
        if kind is Evented:
            return Envelope(Evented(_reader(content["event"]["event"])(content["event"])), run)
        return Envelope(kind(**{name: _frozen(value) for name, value in content.items()}), run)
    except Exception as error:
        raise ValueError(f"no message: {line[:200]!r}") from error


def _reader(kind: str) -> Callable[[dict[str, Any]], Any]:
    if kind in batch_events.KINDS:
        return batch_events.from_dict
    return training_events.from_dict if kind in training_events.KINDS else from_dict


def _frozen(value: Any) -> Any:
    """Turn lists into tuples; what is inside of dictionaries stays as JSON has it."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Say in JSON's words what provenance and metadata may hold besides."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, PurePath):
        return value.name
    return str(value)
