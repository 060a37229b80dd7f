"""``Supervisor``: owns the model's process and the queue of runs; what napari talks to."""

from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import napari_tileseg
from napari_tileseg.engine.events import Finished, Progress
from napari_tileseg.worker.batch_run import BatchRun
from napari_tileseg.worker.exchange import BlockServer
from napari_tileseg.worker.messages import (
    CancelledRun,
    Died,
    Done,
    Envelope,
    Evented,
    Failed,
    Loaded,
    Loading,
    Message,
    Queued,
    Read,
    Ready,
    Stop,
)
from napari_tileseg.worker.obituary import cause_of_death, obituary
from napari_tileseg.worker.process import ModelProcess
from napari_tileseg.worker.reception import Reception
from napari_tileseg.worker.run import Run
from napari_tileseg.worker.scratch import Scratch, free_bytes
from napari_tileseg.worker.training_run import TrainingRun
from napari_tileseg.worker.turn import OVER, Turn

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CANCEL_SECONDS", "PROGRESS_SECONDS", "Supervisor"]

_LOG = logging.getLogger(__name__)

CANCEL_SECONDS = 20.0
"""A run that has not stopped this long after it was asked to is ended with its process."""

PROGRESS_SECONDS = 0.05
"""Progress reaches the callback at most this often; the last one always does."""

_Item = tuple[ModelProcess, Envelope | None] | Turn | None


class Supervisor(Reception):
    """Runs jobs one after the other in a process of their own, which keeps the model loaded in between.

    Nothing here blocks for long but `close` and `unload` (two seconds at most). The process starts with the first run.

    Parameters
    ----------
    python : str, optional
        The interpreter of the model's process; this one by default.
    scratch : Path, optional
        Where to make the scratch folder; the system's folder for temporary files by default.
    backend : str
        Module with ``segment`` and ``load_model`` to use instead of the program's own; for tests.
    """

    def __init__(self, python: str | None = None, scratch: Path | None = None, *, backend: str = "") -> None:
        super().__init__(python)
        self._base = scratch
        self._backend = backend
        self._scratch: Scratch | None = None
        self._lock = threading.RLock()
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._waiting: deque[Turn] = deque()
        self._active: Turn | None = None
        self._server: BlockServer | None = None
        self._process: ModelProcess | None = None
        self._loaded: Loaded | None = None
        self._overdue: float | None = None
        self._held: tuple[Turn, Evented] | None = None
        self._progressed = 0.0
        self._owner = os.getpid()

    @property
    def loaded(self) -> Loaded | None:
        """The model in memory, its device and the bytes that `unload` gives back."""
        return self._loaded

    @property
    def busy(self) -> bool:
        """Whether a run goes on or waits."""
        return self._active is not None or bool(self._waiting)

    @property
    def pid(self) -> int | None:
        """Id of the model's process; None while there is none."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    def _queue(self, run: Turn) -> None:
        with self._lock:
            self._waiting.append(run)
            if self._thread is None:
                self._thread = threading.Thread(target=self._dispatch, name="tileseg-supervisor", daemon=True)
                self._thread.start()
                atexit.register(self.close)
        self._inbox.put(run)

    def unload(self) -> None:
        """End the model's process and so free its memory; a run that goes on is cancelled, those that wait start a new one."""
        with self._lock:
            process, self._process, self._loaded = self._process, None, None
            if process is not None and self._active is not None and self._active.state not in OVER:
                self._active.state = "cancelling"
        if process is not None:
            process.end()

    def close(self) -> None:
        """End everything and delete the scratch folder; no message is delivered any more."""
        if self._owner != os.getpid():  # a fork of the program that owns all this
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
            process, self._process, self._loaded = self._process, None, None
            runs = [*self._waiting, *([self._active] if self._active is not None else [])]
            self._waiting.clear()
            for run in runs:
                if run.state not in OVER:
                    run.state = "cancelling"  # so that the end of the process is not taken for a death
        atexit.unregister(self.close)
        if process is not None:
            process.end()
        self._inbox.put(None)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(0.2)
        for run in runs:
            if run.state not in OVER:
                run.state = "cancelled"
            run.finish()
        if self._scratch is not None:
            self._scratch.close()

    def _folder(self) -> Scratch:
        with self._lock:
            if self._scratch is None:
                self._scratch = Scratch(self._base)
            return self._scratch

    # Everything below runs on the dispatching thread, but for `_cancel` and `_deliver`.

    def _dispatch(self) -> None:
        while not self._closed:
            try:
                item = self._inbox.get(timeout=self._patience())
            except queue.Empty:
                item = None
            try:
                if isinstance(item, tuple):
                    self._receive(*item)
                elif item is not None and item.state == "cancelling" and item is not self._active:
                    self._finish(item, CancelledRun(0, 0))
                self._kill_if_overdue()
                self._pass_on_progress()
                self._advance()
            except Exception:
                _LOG.exception("the supervisor met an unexpected error")

    def _patience(self) -> float | None:
        """Return the seconds until something is due that no message announces."""
        due = [self._progressed + PROGRESS_SECONDS] if self._held is not None else []
        due += [self._overdue] if self._overdue is not None else []
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _deliver(self, process: ModelProcess, envelope: Envelope | None) -> None:
        """Take a message from the process's own thread; reads do not wait for callbacks."""
        if envelope is not None and isinstance(envelope.body, Read):
            with self._lock:
                server = self._server if self._active is not None and self._active.number == envelope.run else None
            if server is not None:
                server.ask(envelope.body)
            return
        self._inbox.put((process, envelope))

    def _cancel(self, run: Turn) -> None:
        with self._lock:
            if run.state in OVER or self._closed:
                return
            process = self._process if run is self._active else None
            if run.state == "cancelling":
                if process is not None:
                    process.kill()
                return
            run.state = "cancelling"
            if run is self._active:
                self._overdue = time.monotonic() + (run.patience or CANCEL_SECONDS)
            elif run in self._waiting:
                self._waiting.remove(run)
        if process is not None:
            process.send(Stop(), run.number)
        self._inbox.put(run)

    def _advance(self) -> None:
        """Start the next run if there is room for it; tell the others where they stand."""
        with self._lock:
            if self._closed or self._active is not None or not self._waiting:
                self._announce()
                return
            run = self._waiting.popleft()
            self._active = run
            run.state = "loading"
        self._announce()
        try:
            self._begin(run)
        except Exception as error:
            self._finish(run, Failed(type(error).__name__, f"The model's process could not be started: {error}."))

    def _announce(self) -> None:
        for position, run in enumerate(list(self._waiting), start=1):
            if run.announced != position:
                run.announced = position
                self._tell(run, Queued(position))

    def _begin(self, run: Turn) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            process = ModelProcess(str(self._python), self._folder().folder("process"), self._deliver)
        server = None
        if isinstance(run, Run):
            server = BlockServer(run.volume, run.store.folder / "exchange", lambda answer: process.send(answer, run.number))
        with self._lock:
            self._server, run.process = server, process
            self._process = None if self._closed else process
        if self._closed:  # while the process was being started
            process.end()
            return
        process.send(run.begin(self._backend), run.number)
        if run.state == "cancelling":  # asked for while the process was being started
            process.send(Stop(), run.number)

    def _receive(self, process: ModelProcess, envelope: Envelope | None) -> None:
        run = self._active if self._active is not None and self._active.process is process else None
        if envelope is None:
            self._bury(process, run)
        elif isinstance(envelope.body, Ready):
            self._check(process, envelope.body, run)
        elif run is not None and envelope.run == run.number:
            self._hear(process, run, envelope.body)

    def _hear(self, process: ModelProcess, run: Turn, body: Any) -> None:
        """Take a message of the run that goes on."""
        match body:
            case Loaded():
                with self._lock:
                    self._loaded = body if process is self._process else None
                self._tell(run, body)
            case Loading() if isinstance(run, BatchRun | TrainingRun):
                with self._lock:
                    self._loaded = None  # these load models themselves, and the one of the last run has made room for them
                self._tell(run, body)
            case Evented(Progress()):
                run.note(body)
                self._held = (run, body)
            case Evented(Finished()):
                self._pass_on_progress(now=True)
                self._tell(run, body)
            case CancelledRun():
                self._finish(run, CancelledRun(*run.tiles))
            case Failed() if run.removed:
                self._finish(run, CancelledRun(*run.tiles))
            case Failed(kind, message, details):
                log = process.log_tail()
                self._finish(run, Failed(kind, message, f"{details}\nLog of the model's process:\n{log}" if log else details))
            case Done():
                self._finish(run, body)
            case _:
                self._tell(run, body)

    def _check(self, process: ModelProcess, ready: Ready, run: Turn | None) -> None:
        """End a process that runs another version of this program."""
        if ready.version == napari_tileseg.__version__:
            return
        text = (
            f"The model's process runs napari-tileseg {ready.version}, this program {napari_tileseg.__version__}. "
            "Restart napari; if that does not help, install napari-tileseg again."
        )
        with self._lock:
            self._process = None if process is self._process else self._process
        process.kill()
        if run is not None:
            self._finish(run, Failed("RunError", text, ready.root))

    def _bury(self, process: ModelProcess, run: Turn | None) -> None:
        """Take note that a process has ended, and tell what is left of its run."""
        with self._lock:
            if process is self._process:
                self._process, self._loaded = None, None
        log = process.log_tail()
        self._folder().discard(process.folder)
        if run is None:
            return
        if run.state == "cancelling":
            self._finish(run, CancelledRun(*run.tiles))
            return
        code, folder = process.returncode or 0, self._folder().path
        cause = cause_of_death(code, folder, free_bytes(folder))
        self._finish(run, obituary(cause, run.left, *run.tiles, f"Exit status {code}.\n{log}".strip()))

    def _finish(self, run: Turn, message: CancelledRun | Done | Failed | Died) -> None:
        """End a run: the message that says how is its last."""
        with self._lock:
            if run is self._active:
                if self._server is not None:
                    self._server.close()
                self._active, self._server, self._overdue = None, None, None
        if self._held is not None and self._held[0] is run:
            self._pass_on_progress(now=True)
        self._tell(run, message)
        run.finish()

    def _tell(self, run: Turn, message: Message) -> None:
        run.note(message)
        self._call(run, message)

    def _call(self, run: Turn, message: Message) -> None:
        if self._closed:
            return
        try:
            run.on_message(message)
        except Exception:
            _LOG.exception("a callback failed on %s", type(message).__name__)

    def _pass_on_progress(self, *, now: bool = False) -> None:
        """Hand the latest progress on, unless the one before it was only just handed on."""
        if self._held is None or not (now or time.monotonic() - self._progressed >= PROGRESS_SECONDS):
            return
        (run, message), self._held = self._held, None
        self._progressed = time.monotonic()
        self._call(run, message)

    def _kill_if_overdue(self) -> None:
        if self._overdue is not None and time.monotonic() >= self._overdue:
            self._overdue = None
            process = self._process
            if process is not None:
                process.kill()
