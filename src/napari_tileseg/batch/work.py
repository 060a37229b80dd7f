"""``process``: one image with one model, from the file to the labels at their place; the same here and on a cluster.

A task can be cut off anywhere and begun again. Its result stands in the journal's folder before it takes its place, together
with ``outcome.json``, so that nothing is computed again that was once written::

    read -> segment (journal where it takes long) -> labels, extras, outcome.json in the journal's folder -> result at its place
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.batch.events import TaskProgress
from napari_tileseg.batch.place import announce, make_way, put
from napari_tileseg.batch.stamps import digest, input_stamp
from napari_tileseg.batch.task import Outcome
from napari_tileseg.batch.trouble import failed
from napari_tileseg.errors import Cancelled, DeviceMemoryError, InputError, OutputError
from napari_tileseg.io import registry
from napari_tileseg.io.own_labels import is_label_place, stage_own_labels
from napari_tileseg.io.registry import has_more_files, parts_of, suffix_of
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.batch.task import Task
    from napari_tileseg.engine.events import Event
    from napari_tileseg.engine.protocols import Predictor
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.segmentation import Segmentation
    from napari_tileseg.volume import Volume

__all__ = [
    "Computed",
    "Loaded",
    "Models",
    "check_axes",
    "compute",
    "failed",
    "forget",
    "process",
    "read",
    "recover",
    "staged_name",
    "store",
    "unfinished",
]

_OUTCOME = "outcome.json"

_JOURNAL_TILES = 64
"""Images of so many tiles get a journal however quick the model is."""

_JOURNAL_SECONDS = 2.0
"""So do those that take longer than this."""

_LARGE = 1 << 28
"""Images that need more bytes are computed alone."""

_TILE_SECONDS = 0.1
"""What a tile is taken to need before one was timed."""


class Models:
    """The models of a batch, each loaded when it is first asked for, and kept.

    Parameters
    ----------
    load : callable, optional
        Takes a reference and a device and returns a predictor; `load_model` by default.

    Attributes
    ----------
    loads : int
        How many were loaded.
    """

    def __init__(self, load: Callable[[str, str], Predictor] | None = None) -> None:
        self._load = load or _load_model
        self._kept: dict[tuple[str, str], Predictor] = {}
        self._seconds: dict[str, float] = {}
        self._lock = threading.Lock()
        self.loads = 0

    def get(self, ref: str, device: str = "auto") -> Predictor:
        """Return a model.

        Raises
        ------
        ModelError, OptionsError, DeviceMemoryError
            If it cannot be loaded.
        """
        with self._lock:
            if (ref, device) not in self._kept:
                self._kept[ref, device] = self._load(ref, device)
                self.loads += 1
            return self._kept[ref, device]

    def timed(self, ref: str, seconds: float) -> None:
        """Note how long a tile took."""
        self._seconds[ref] = seconds

    def tile_seconds(self, ref: str) -> float:
        """Return how long a tile takes, as far as is known."""
        return self._seconds.get(ref, _TILE_SECONDS)


def _load_model(ref: str, device: str) -> Predictor:
    from napari_tileseg.models.predictor import load_model

    return load_model(ref, device=device)


@dataclass(frozen=True)
class Loaded:
    """An image that is open, and how its file looked before."""

    volume: Volume
    stamp: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Computed:
    """What a model has found in an image; `staged` where the labels stand already, if they went to the disk meanwhile."""

    segmentation: Segmentation
    stamp: str
    seconds: float
    spec: ModelSpec
    staged: Path | None = None


def process(
    task: Task,
    models: Models,
    *,
    tell: Callable[[BatchEvent], None] = lambda event: None,
    cancel: Callable[[], bool] = lambda: False,
    image: Loaded | None = None,
) -> Outcome:
    """Do one task.

    Parameters
    ----------
    task : Task
        The folder that holds its journal's folder must be there.
    models : Models
        Kept from task to task.
    tell : callable
        Receives `TaskProgress`.
    cancel : callable
        Asked before every tile.
    image : Loaded, optional
        The image, if somebody has read it already.

    Returns
    -------
    Outcome
        ``"done"``, or ``"failed"`` with the sentence. `forget` the task as soon as that is noted.

    Raises
    ------
    Cancelled
        If `cancel` said so; what was finished stands in the journal.
    OutputError
        If nothing can be written any more: the disk is full, or the output folder is gone. All other tasks would fail too.
    ModelError, OptionsError, DeviceMemoryError
        If the model cannot be loaded.
    """
    began = time.monotonic()
    predictor = models.get(task.model, task.options.device)
    try:
        found = recover(task)
        if found is not None:
            return found
        image = image or read(task)
        return store(task, compute(task, image, models, predictor, tell=tell, cancel=cancel))
    except Cancelled:
        raise
    except Exception as error:
        return failed(task, error, time.monotonic() - began)


def read(task: Task) -> Loaded:
    """Open the image of a task; up to 64 MB are read at once, more where it is indexed.

    Raises
    ------
    InputError, OSError, MemoryError
        If that does not work.
    """
    from napari_tileseg.io import read_volume

    began = time.monotonic()
    path = Path(task.input)
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe would be waited for
            raise InputError(f'"{path.name}" is no file but a pipe or a device. Choose an image.')
        stamp = input_stamp(path)  # before it is read, so that a later change is seen
    except FileNotFoundError:
        raise InputError(f'There is no file "{path.name}" any more. Check whether somebody has moved it.') from None
    volume = read_volume(path, series=task.series, level=task.level, partial=task.options.unreadable == "skip")
    if task.axes is not None:
        volume = volume.with_axes(task.axes)
    return Loaded(volume, stamp, time.monotonic() - began)


def compute(
    task: Task,
    image: Loaded,
    models: Models,
    predictor: Predictor,
    *,
    tell: Callable[[BatchEvent], None] = lambda event: None,
    cancel: Callable[[], bool] = lambda: False,
    gate: Callable[[bool], AbstractContextManager[None]] | None = None,
) -> Computed:
    """Segment an image; where that takes long, with a journal, so that it can be cut off.

    Parameters
    ----------
    task, image, models, predictor, tell, cancel
        As for `process`.
    gate : callable, optional
        Told whether the image is to be alone at the device; the run goes on inside the context that it returns.

    Raises
    ------
    TileSegError, OSError, MemoryError
        Of the run; Cancelled among them.
    """
    from napari_tileseg.engine.events import Progress
    from napari_tileseg.pipeline import estimate, segment

    folder = Path(task.journal)
    check_axes(task, image.volume, predictor.spec)
    needs = estimate(image.volume, predictor.spec, options=task.options, channels=task.channels)
    memory = needs.host_bytes + needs.device_bytes + needs.disk_bytes
    _check_memory(task, needs.host_bytes + (needs.device_bytes if predictor.device == "cpu" else 0))
    seconds = needs.tiles * models.tile_seconds(task.model)
    long = unfinished(task) or needs.tiles > _JOURNAL_TILES or (needs.tiles > 1 and seconds > _JOURNAL_SECONDS)
    staged: Path | None = None
    progressed = False

    def listen(event: Event) -> None:
        nonlocal progressed
        if isinstance(event, Progress):
            progressed = True
            tell(TaskProgress(task.number, event.done, event.total))

    more: dict[str, Any] = {"options": task.options, "channels": task.channels, "on_event": listen, "cancel": cancel}
    if long:
        _make(folder)
        streamed = staged_name(task).endswith(".zarr") and not is_label_place(Path(task.output))
        staged = folder / staged_name(task) if streamed else None
        more |= {"journal": folder, "out": staged, "keep_journal": True}
    elif folder.exists():
        shutil.rmtree(folder)
    large = long or memory > _LARGE

    def run() -> Segmentation:
        try:
            return segment(image.volume, predictor, **more)
        except OutputError:
            if not long or progressed:
                raise
            # The journal is that of another image, or damaged.
            return segment(image.volume, predictor, resume=False, **more)

    try:
        with gate(large) if gate else nullcontext():
            began = time.monotonic()
            result = run()
    except DeviceMemoryError:
        if large or gate is None:
            raise
        with gate(True):  # without another image beside it there may be enough
            began = time.monotonic()
            result = run()
    seconds = time.monotonic() - began - getattr(predictor, "waited", 0.0)
    if result.windows:
        models.timed(task.model, seconds / result.windows)
    return Computed(result, image.stamp, image.seconds + seconds, predictor.spec, staged)


def store(task: Task, computed: Computed) -> Outcome:
    """Bring a result to its place, with everything that is wanted beside it.

    Raises
    ------
    OutputError, OSError
        If it cannot be written.
    """
    from napari_tileseg.batch.extras import write_extras

    began = time.monotonic()
    folder, result = Path(task.journal), computed.segmentation
    _make(folder)
    staged = computed.staged
    if staged is None:
        staged = _stage(task, result, folder / staged_name(task))
        for part in parts_of(staged):
            _bring_to_disk(part)
    write_extras(task, result, computed.spec)
    outcome = Outcome(
        "done",
        "\n".join(result.warnings),
        {name: count for name, count in result.counts.items() if name in computed.spec.foreground_classes},
        instances=computed.spec.finds_objects,
        anomaly=dict(result.anomaly),
        seconds=computed.seconds + time.monotonic() - began,
        digest=digest(staged),
        input_digest=computed.stamp,
    )
    _note(folder, outcome)
    make_way(task, Path(task.output))
    put(staged, Path(task.output))
    return outcome


def recover(task: Task) -> Outcome | None:
    """Return the outcome of a task that was cut off after its result was written, and bring that to its place if it is not there.

    None where there is none, or the image has changed since.

    Raises
    ------
    OSError, OutputError
        If the result cannot be brought to its place.
    """
    folder, output = Path(task.journal), Path(task.output)
    try:
        outcome = Outcome.from_dict(json.loads((folder / _OUTCOME).read_text(encoding="utf-8")))
        if outcome.input_digest != input_stamp(Path(task.input)):
            return None
    except (OSError, ValueError, TypeError):
        return None
    staged = folder / staged_name(task)
    if staged.exists() and _digest_halfway(staged, output) == outcome.digest:
        make_way(task, output)
        put(staged, output)
        return outcome
    if not output.exists() or digest(output) != outcome.digest:
        return None
    announce(output)
    return outcome


def _digest_halfway(staged: Path, output: Path) -> str:
    """Return the digest of a result of which a part may be in its place already."""
    pairs = zip(parts_of(staged)[1:], parts_of(output)[1:], strict=True)
    parts = [part if part.exists() else place for part, place in pairs]
    return digest(staged, [part for part in parts if part.exists()])


def forget(task: Task) -> None:
    """Delete what a task has left in its journal's folder; to be called when its outcome is noted."""
    shutil.rmtree(task.journal, ignore_errors=True)


def unfinished(task: Task) -> bool:
    """Say whether a task that was cut off can go on in the middle of its image."""
    return (Path(task.journal) / "journal.json").exists()


def _check_memory(task: Task, needed: int) -> None:
    """Refuse an image for which the computer has too little memory; a limit of the user's is looked at by the engine."""
    from napari_tileseg.engine.memory import free_memory

    free = free_memory("cpu")
    if needed > free:
        raise InputError(
            f'"{Path(task.input).name}" needs about {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free. '
            "Choose a smaller window, or save it in pieces."
        )


def check_axes(task: Task, volume: Volume, spec: ModelSpec) -> None:
    """Refuse an image whose axes are guesswork, or labels that their format cannot hold."""
    from napari_tileseg.engine.axes import map_axes
    from napari_tileseg.image import refuse_guesses

    if task.axes is None:
        refuse_guesses(volume, Path(task.input).name, spec, how="Name the axes of the images")
    registry.check_fits(task.output, volume)
    registry.check_axes(task.output, map_axes(volume.axes, volume.shape, spec, channels=task.channels).result_axes)


def _make(folder: Path) -> None:
    """Make a journal's folder; not those above it, which are gone if somebody has taken the output folder away."""
    folder.mkdir(exist_ok=True)


def _bring_to_disk(path: Path) -> None:
    """Wait until a file is on the disk: it must not be less durable than the note in the ledger. Stores are too many files."""
    if path.is_file():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def staged_name(task: Task) -> str:
    """Return the name of a result in the journal's folder; labels in a plate are a store, whatever they are called.

    Files that belong together name each other: they have their names already.
    """
    if has_more_files(task.output):
        return Path(task.output).name
    return f"result{suffix_of(task.output, purpose='write') or '.ome.zarr'}"


def _note(folder: Path, outcome: Outcome) -> None:
    temporary = folder / f"{_OUTCOME}.new"
    temporary.write_text(json.dumps(outcome.to_dict()), encoding="utf-8")
    move(temporary, folder / _OUTCOME)


def _stage(task: Task, result: Segmentation, path: Path) -> Path:
    """Write labels to the journal's folder, as they have to be at their place."""
    from napari_tileseg.pipeline import save_segmentation

    if not is_label_place(Path(task.output)):
        return save_segmentation(result, path, overwrite=True)
    facts: dict[str, Any] = {"classes": result.classes, "colors": result.colors, "provenance": dict(result.provenance)}
    return stage_own_labels(result.labels_volume(), path, Path(task.output), **facts)
