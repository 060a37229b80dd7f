"""The child's side: takes jobs from the pipe, runs them with a model that stays loaded, reports, and never outlives its parent."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import queue
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import psutil

import napari_tileseg
from napari_tileseg import errors
from napari_tileseg.batch.events import BatchProgress, TaskProgress
from napari_tileseg.batch.job import BatchJob
from napari_tileseg.engine.events import Progress, SlabDone
from napari_tileseg.errors import Cancelled, TileSegError
from napari_tileseg.job import Job, SegmentOptions
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.events import StepEnded, TrainingEnded
from napari_tileseg.training.unsupervised.config import UnsupervisedConfig
from napari_tileseg.volume import Volume
from napari_tileseg.worker.messages import (
    Begin,
    BeginBatch,
    BeginProbe,
    BeginTraining,
    Block,
    BlockError,
    CancelledRun,
    Done,
    Evented,
    Failed,
    Loaded,
    Loading,
    Pause,
    Ready,
    Stop,
    from_line,
    to_line,
)
from napari_tileseg.worker.remote import RemoteArray, RemoteReadError
from napari_tileseg.worker.streams import shorten_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.engine.events import Event
    from napari_tileseg.training.events import TrainEvent

__all__ = ["Service", "Sparing", "failure", "serve"]

_NICE = 10
_OOM_SCORE = "500"
_FLUSH_SECONDS = 1.0
"""Slabs of a large result are brought to the disk this often, so that they can be seen; each time, open chunks are written again."""


_SPARING_SECONDS = 0.1


def serve(incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Serve one parent; returns never, the process ends with `incoming`."""
    yield_to_others()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C in the terminal reaches the whole group; the parent decides
    service = Service(outgoing)
    threading.Thread(target=service.listen, args=(incoming,), name="tileseg-listen", daemon=True).start()
    threading.Thread(target=_watch, args=(os.getppid(),), name="tileseg-watch", daemon=True).start()
    service.send(Ready(os.getpid(), napari_tileseg.__version__, str(Path(napari_tileseg.__file__).parent)))
    service.work()


def yield_to_others() -> None:
    """Lower this process's claim on the processor, and offer it first when the system runs out of memory.

    On Windows the parent has set the priority when it started the process.
    """
    if sys.platform != "win32":
        with contextlib.suppress(OSError):
            os.nice(_NICE)
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # better the model than the viewer
            Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="utf-8")


class Service:
    """Runs jobs one after the other on the main thread; a second thread listens meanwhile.

    Parameters
    ----------
    outgoing : binary stream
        Messages to the parent go here.
    """

    def __init__(self, outgoing: BinaryIO) -> None:
        self._outgoing = outgoing
        self._sending = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[int, Begin | BeginBatch | BeginProbe | BeginTraining]] = queue.SimpleQueue()
        self._stopped: set[int] = set()
        self._paused: set[int] = set()
        self._reading: RemoteArray | None = None
        self._model = _LoadedModel()

    def send(self, body: Any, run: int = 0) -> None:
        """Send a message; ends the process where nobody listens any more."""
        line = to_line(body, run)
        try:
            with self._sending:
                self._outgoing.write(line)
                self._outgoing.flush()
        except OSError:
            _exit()

    def listen(self, incoming: BinaryIO) -> None:
        """Take the parent's messages until it closes the pipe; then end the process at once, even amid a tile."""
        try:
            for line in incoming:
                self._take(line)
        finally:
            _exit()

    def work(self) -> None:
        """Run jobs as they come."""
        while True:
            number, begin = self._jobs.get()
            self.run(number, begin)
            self._reading = None
            gc.collect()  # tracebacks hold the maps of the result, and Windows deletes no mapped file

    def run(self, number: int, begin: Begin | BeginBatch | BeginProbe | BeginTraining) -> None:
        """Run one job, a batch, a training or a probe, and report how it ended."""
        progress: Progress | BatchProgress = Progress(0, 0)

        def tell(event: Event | BatchEvent | TrainEvent) -> None:
            nonlocal progress
            if isinstance(event, Progress | BatchProgress):
                progress = event
            elif isinstance(event, StepEnded):
                progress = Progress(event.step, event.steps)
            self.send(Evented(event), number)

        ending: Done | CancelledRun | Failed
        try:
            if isinstance(begin, BeginBatch):
                ending = self._execute_batch(number, begin, Sparing(tell))
            elif isinstance(begin, BeginTraining):
                ending = self._execute_training(number, begin, tell)
            elif isinstance(begin, BeginProbe):
                ending = self._execute_probe(number, begin)
            else:
                ending = self._execute(number, begin, tell)
        except BaseException as error:
            ending = CancelledRun(progress.done, progress.total) if _means_cancelled(error) else failure(error)
        self.send(ending, number)

    def _take(self, line: bytes) -> None:
        envelope = from_line(line)
        match envelope.body:
            case Begin() | BeginBatch() | BeginProbe() | BeginTraining():
                if isinstance(envelope.body, BeginBatch | BeginTraining) and envelope.body.paused:
                    self._paused.add(envelope.run)
                self._jobs.put((envelope.run, envelope.body))
            case Pause(paused):
                (self._paused.add if paused else self._paused.discard)(envelope.run)
            case Stop():
                self._stopped.add(envelope.run)
                if self._reading is not None:
                    self._reading.wake()
            case Block() | BlockError() if self._reading is not None:
                self._reading.answer(envelope.body)

    def _execute(self, number: int, begin: Begin, tell: Callable[[Event], None]) -> Done | CancelledRun:
        job = Job.model_validate(begin.job)
        segment, load_model = _backend(begin.backend)
        predictor = self._loaded(number, begin.model, job.options.device, load_model)
        if number in self._stopped:
            return CancelledRun(0, 0)
        volume = self._volume(number, begin)
        with _opened(begin.labels, tell) as (labels, told):
            result = segment(
                volume,
                predictor,
                options=job.options,
                axes=job.axes,
                channels=job.channels,
                region=job.region,
                out=labels,
                scores_out=np.load(begin.scores, mmap_mode="r+") if begin.scores else None,
                **({"uncertainty_out": np.load(begin.uncertainty, mmap_mode="r+")} if begin.uncertainty else {}),
                journal=begin.journal or None,
                on_event=told,
                cancel=lambda: number in self._stopped,
            )
        return Done(dict(result.provenance), dict(result.counts), result.seconds, tuple(result.warnings))

    def _execute_probe(self, number: int, begin: BeginProbe) -> Done | CancelledRun:
        from napari_tileseg.engine.precision import probe

        options = SegmentOptions.model_validate(begin.options)
        predictor = self._loaded(number, begin.model, options.device, _backend(begin.backend)[1])
        if number in self._stopped:
            return CancelledRun(0, 0)
        return Done({}, {}, probe(predictor, options))

    def _loaded(self, number: int, model: str, device: str, load_model: Callable[..., Any]) -> Any:
        """Return a model's predictor, and tell of its loading."""
        self.send(Loading(self._model.label(model)), number)
        predictor = self._model.get(model, device, load_model)
        self.send(Loaded(predictor.spec.label, predictor.device, footprint(predictor.device)), number)
        return predictor

    def _execute_batch(self, number: int, begin: BeginBatch, tell: Callable[[BatchEvent], None]) -> Done | CancelledRun:
        job = BatchJob.model_validate(begin.job)
        self._model.forget()  # the batch loads what it needs
        self.send(Loading(", ".join(self._model.label(model) for model in job.models)), number)
        report = _batch_backend(begin.backend)(
            job,
            on_event=tell,
            cancel=lambda: number in self._stopped,
            paused=lambda: number in self._paused,
            retry_failed=begin.retry_failed,
            executor=_executor(job, begin),
        )
        done, total = report.done, report.done + report.skipped + report.failed + report.waiting
        return CancelledRun(done, total) if report.cancelled else Done({}, {}, report.seconds)

    def _execute_training(self, number: int, begin: BeginTraining, tell: Callable[[TrainEvent], None]) -> Done | CancelledRun:
        labelled = begin.config.get("kind") != "unsupervised"
        config = (TrainConfig if labelled else UnsupervisedConfig).model_validate(begin.config)
        train, preview = _training_backend(begin.backend, labelled=labelled)
        data = begin.data or None
        if begin.dry:
            if labelled:
                preview(config, data, cancel=lambda: number in self._stopped, on_event=tell)
            else:
                tell(preview(config, data, cancel=lambda: number in self._stopped))
            return Done({}, {}, 0.0)
        self._model.forget()
        name = config.name or Path(config.output).name
        self.send(Loading(name), number)
        began = time.perf_counter()
        stopped = False

        def told(event: TrainEvent) -> None:
            nonlocal stopped
            stopped = stopped or (isinstance(event, TrainingEnded) and event.reason == "stopped")
            tell(event)

        spec = train(
            config,
            data,
            on_event=told,
            cancel=lambda: number in self._stopped,
            paused=lambda: number in self._paused,
            resume=begin.resume,
            overwrite=begin.overwrite,
            views=Path(begin.views) if begin.views else None,
        )
        gc.collect()
        return CancelledRun(0, 0) if stopped else Done({"model": spec.name}, {}, time.perf_counter() - began)

    def _volume(self, number: int, begin: Begin) -> Volume:
        array = RemoteArray(begin.shape, begin.dtype, ask=lambda read: self.send(read, number), cancelled=lambda: number in self._stopped)
        self._reading = array
        volume = Volume(array, begin.axes, np.array(begin.affine), begin.units, begin.name, begin.channel_names, begin.metadata)
        return volume.with_levels([array.level(number, shape) for number, shape in enumerate(begin.levels, start=1)])


class Sparing:
    """Passes the events of a batch on, progress within files ten times a second at most: several files may be under way."""

    def __init__(self, tell: Callable[[BatchEvent], None]) -> None:
        self._tell = tell
        self._last = 0.0

    def __call__(self, event: BatchEvent) -> None:
        if isinstance(event, TaskProgress):
            if time.monotonic() - self._last < _SPARING_SECONDS:
                return
            self._last = time.monotonic()
        self._tell(event)


@contextlib.contextmanager
def _opened(path: str, tell: Callable[[Event], None]) -> Iterator[tuple[Any, Callable[[Event], None]]]:
    """Open the array for the labels; before a slab is told of, a pyramid of chunks brings it to the disk, though not too often."""
    if not path.endswith(".zarr"):
        yield np.load(path, mmap_mode="r+"), tell
        return
    from napari_tileseg.io.zarr_store import ZarrLabels

    labels = ZarrLabels.open_unfinished(path)
    flushed = 0.0

    def told(event: Event) -> None:
        nonlocal flushed
        if isinstance(event, SlabDone) and time.monotonic() - flushed > _FLUSH_SECONDS:
            labels.flush()
            flushed = time.monotonic()
        tell(event)

    try:
        yield labels, told
    finally:
        labels.flush()


class _LoadedModel:
    """The one model in memory, and what it was loaded from."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._predictor: Any = None

    def label(self, ref: str) -> str:
        from napari_tileseg.models.registry import find_spec

        return find_spec(ref).label

    def get(self, ref: str, device: str, load_model: Callable[..., Any]) -> Any:
        """Return the predictor, loaded anew where the model's files, or the device, are others than before."""
        from napari_tileseg.models.registry import stamp

        key = (stamp(ref), device)
        if key != self._key:
            self.forget()
            self._predictor = load_model(ref, device=device)
            self._key = key
        return self._predictor

    def forget(self) -> None:
        """Free the old model first: two might not fit."""
        self._key = self._predictor = None
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def footprint(device: str) -> int:
    """Return the bytes that ending this process gives back: of the device, or of the computer's memory for the CPU."""
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda"):
        return int(torch.cuda.memory_reserved(device))
    if torch is not None and device.startswith("mps"):
        return int(torch.mps.driver_allocated_memory())
    return int(psutil.Process().memory_info().rss)


def failure(error: BaseException) -> Failed:
    """Say what went wrong: our own errors by their sentence, others as what they are."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, RemoteReadError):
        details += f"\nIn napari's process:\n{error.details}"
    if isinstance(error, TileSegError):
        kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == errors.__name__)
        return Failed(kind, str(error), details)
    if isinstance(error, MemoryError):
        text = "The computer has no memory left for the next tile. Choose a smaller window or close other programs."
        return Failed("DeviceMemoryError", text, details)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return Failed(type(error).__name__, f"The model stopped with an unexpected error: {text.rstrip('.')}. The details say where.", details)


def _means_cancelled(error: BaseException | None) -> bool:
    """Tell whether an error is, or comes from, a cancelled run."""
    while error is not None:
        if isinstance(error, Cancelled):
            return True
        error = error.__cause__
    return False


def _backend(name: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    if name:
        module = importlib.import_module(name)
        return module.segment, module.load_model
    from napari_tileseg.models.predictor import load_model
    from napari_tileseg.pipeline import segment

    return segment, load_model


def _batch_backend(name: str) -> Callable[..., Any]:
    run_batch: Callable[..., Any] = importlib.import_module(name or "napari_tileseg.batch.run").run_batch
    return run_batch


def _training_backend(name: str, *, labelled: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what trains, and what says beforehand what would be learnt."""
    if not labelled:
        from napari_tileseg.training.unsupervised.live import preview_live, train_live

        return train_live, preview_live
    from napari_tileseg.training.train import preview, train

    return (importlib.import_module(name).train if name else train), preview


def _executor(job: BatchJob, begin: BeginBatch) -> Any:
    """Return what sends the files elsewhere; None for this process."""
    if begin.workers <= 1 and not begin.cluster:
        return None
    from napari_tileseg.batch.cluster import make_executor

    return make_executor(job, workers=begin.workers if begin.workers > 1 else 0, scheduler=begin.cluster)


def _watch(parent: int) -> None:
    """End with the parent even where a copy of its pipe lives on in another process; keep the log short."""
    while True:
        time.sleep(0.5)
        if sys.platform != "win32" and os.getppid() != parent:
            _exit()
        shorten_log()


def _exit() -> None:
    """End now. What was written to mapped files is the system's already and needs no flush."""
    os._exit(0)
