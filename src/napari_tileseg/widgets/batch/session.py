"""One viewer's batch: started, followed, paused, cancelled, carried on; it outlives the dock that started it."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_tileseg.batch.events import BatchStarted
from napari_tileseg.batch.listing import list_tasks
from napari_tileseg.errors import TileSegError
from napari_tileseg.widgets.activity import Activity
from napari_tileseg.widgets.batch.outlook import rows_of
from napari_tileseg.widgets.batch.pair import Pair, read_pair
from napari_tileseg.widgets.batch.rows import Row
from napari_tileseg.widgets.batch.states import Batch, advance, view
from napari_tileseg.widgets.batch.table import FileTable
from napari_tileseg.widgets.bridge import Bridge, supervisor
from napari_tileseg.widgets.docks import Docks
from napari_tileseg.widgets.session import session_of
from napari_tileseg.widgets.states import Phase, Prospect
from napari_tileseg.widgets.waiting import ask_before_closing
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Evented, Failed

if TYPE_CHECKING:
    import napari

    from napari_tileseg.widgets.batch.outlook import Order
    from napari_tileseg.widgets.batch.pair import Shown
    from napari_tileseg.widgets.session import Session
    from napari_tileseg.worker.batch_run import BatchRun

__all__ = ["BatchSession", "batch_session_of"]

_LOG = logging.getLogger(__name__)

_TICK = 200
"""Milliseconds between two drawings while a batch goes on."""

_CALM = 0.5
"""Seconds after the start in which Cancel ignores clicks: the second one of a double click."""


class BatchSession(QObject):
    """The batch of one viewer, and its files.

    Signals
    -------
    changed
        The state, or a row, is another one: draw it.
    ended
        A batch came to its end.
    told
        A file was opened; what could not be shown of it is said in a sentence, which may be empty.
    """

    changed = Signal()
    ended = Signal()
    told = Signal(str)

    def __init__(self, segment: Session) -> None:
        super().__init__()
        self._segment = segment
        self.state = Batch()
        self.order: Order | None = None
        self.table = FileTable()
        self.docks = Docks(segment.close)
        self._bridge = Bridge(self)
        self._token: object = None
        self._run: BatchRun | None = None
        self._began = 0.0
        self._again: set[str] = set()
        self._asked = 0
        self._activity = Activity()
        self._tick = QTimer(self)
        self._tick.setSingleShot(True)
        self._tick.setInterval(_TICK)
        self._tick.timeout.connect(self._draw)
        self._closed = False
        viewer = segment.viewer
        self.pair = Pair(viewer) if viewer is not None else None
        segment.closing.connect(self.close)

    @property
    def viewer(self) -> napari.viewer.Viewer | None:
        return self._segment.viewer

    @property
    def active(self) -> bool:
        return self.state.phase.active

    # -- deeds -----------------------------------------------------------------------------------------------------

    def look_at(self, rows: list[Row] | tuple[Row, ...]) -> None:
        """Show the files that a batch would consist of."""
        if not self.state.folded:
            self.table.fill(rows, idle=True)

    def start(self, order: Order, *, retry: bool | tuple[str, ...] = False) -> None:
        """Start a batch, or go on with one.

        Parameters
        ----------
        order : Order
        retry : bool or tuple of str
            Whether files that failed before are tried again: all of them, or those of these names.
        """
        if self.active or self._closed:
            return
        self.order, self._token, self._run = order, object(), None
        self._again.clear()
        self._began = time.monotonic()
        if [row.name for row in self.table.rows] != [task.name for task in order.tasks]:
            self.table.fill(rows_of(order.tasks), idle=False)
        self.table.begin()
        self._become(Batch(Phase.LOADING, title=order.title, total=len(order.tasks)))
        QTimer.singleShot(0, self._open_activity)  # later, because it lets Qt handle messages
        self._save(0, retry)

    def carry_on(self) -> None:
        """Go on with a batch that was cancelled, or whose process died."""
        if self.order is not None and self.state.phase.resumable:
            self.start(self.order)

    def retry(self, number: int | None = None) -> None:
        """Try a file again, or all that failed; while a batch goes on, as soon as it is over."""
        if self.order is None:
            return
        if not self.active:
            self.start(self.order, retry=True if number is None else (self.table.rows[number].name,))
            return
        rows = self.table.rows if number is None else [self.table.rows[number]]
        for row in rows:
            if row.state == "failed":
                row.again = True
                self._again.add(row.name)
        self._draw()

    def cancel(self) -> None:
        """Ask the batch to stop after the current tile."""
        if not self.active or self.state.phase is Phase.CANCELLING or time.monotonic() - self._began < _CALM:
            return
        self._again.clear()
        if self._run is None:  # layers are still being saved
            self._receive((self._token, CancelledRun(0, 0)))
            return
        self._become(replace(self.state, phase=Phase.CANCELLING))
        self._run.cancel()

    def pause(self) -> None:
        """Pause, or go on."""
        if self._run is not None and self.active:
            paused = not self.state.pausing
            self._run.pause(paused)
            self._become(replace(self.state, pausing=paused))

    def forget(self) -> None:
        """Put the last batch away: a new one is to be set up."""
        if not self.active:
            self.order, self._run, self._token = None, None, None
            self.table.fill((), idle=True)
            self._become(Batch())

    def open(self, number: int) -> None:
        """Show image and result of a file, in the place of those of the last one."""
        viewer = self.viewer
        if viewer is None or self.pair is None or not 0 <= number < len(self.table.rows):
            return
        row = replace(self.table.rows[number])
        mine = self.pair.layers
        open_already = any(self._is_image(layer, row) for layer in viewer.layers if layer not in mine)
        self._asked += 1
        asked = self._asked
        self._bridge.background(lambda: read_pair(row, image=not open_already), lambda answer: self._show(asked, answer))

    def close(self) -> None:
        """Stop the batch: the viewer is gone. The ledger stays, and the same batch goes on later."""
        if self._closed:
            return
        self._closed = True
        self._bridge.close()
        self._tick.stop()
        self._activity.close()
        if self._run is not None and self.active:
            self._run.cancel()
        _SESSIONS.pop(id(self._segment), None)

    # -- a batch's way ---------------------------------------------------------------------------------------------

    def _save(self, number: int, retry: bool | tuple[str, ...]) -> None:
        """Save the layers that have no file, one after the other; then launch."""
        order, token = self.order, self._token
        assert order is not None
        saved = order.sources.saved if order.sources is not None else ()
        if number >= len(saved):
            self._launch(order, retry)
            return
        sources = order.sources
        assert sources is not None
        self._become(replace(self.state, task=f"Saving layer {number + 1} of {len(saved)}"))
        self._bridge.background(lambda: sources.save(number), lambda answer: self._on_saved(token, number, retry, answer))

    def _on_saved(self, token: object, number: int, retry: bool | tuple[str, ...], answer: Any) -> None:
        if token is not self._token or not self.active:
            return
        if isinstance(answer, Exception):
            told = str(answer) if isinstance(answer, TileSegError) else f"The layer could not be saved: {answer}."
            self._receive((token, Failed(type(answer).__name__, told)))
            return
        self._save(number + 1, retry)

    def _launch(self, order: Order, retry: bool | tuple[str, ...]) -> None:
        deliver, token = self._bridge.stream(self._receive), self._token
        try:
            run = supervisor().start_batch(
                order.job,
                on_message=lambda message: deliver((token, message)),
                retry_failed=retry,
                workers=order.workers,
                cluster=order.cluster,
            )
        except TileSegError as error:
            self._receive((token, Failed(type(error).__name__, str(error))))
            return
        self._run = run
        ask_before_closing(run, f"batch {order.title}")
        if not order.tasks:  # layers were only now saved
            self._bridge.background(lambda: list_tasks(order.job), lambda answer: self._on_listed(token, answer))

    def _on_listed(self, token: object, answer: Any) -> None:
        if token is self._token and not isinstance(answer, Exception):
            for row, fresh in zip(self.table.rows, rows_of(answer.tasks), strict=False):
                row.input, row.output, row.series, row.model = fresh.input, row.output or fresh.output, fresh.series, fresh.model

    def _receive(self, content: tuple[object, Any]) -> None:
        token, message = content
        if self._closed or token is not self._token:
            return
        before = self.state.phase
        self.state = advance(self.state, message)
        match message:
            case Evented(BatchStarted() as started):
                self._begin(started)
            case Evented(event):
                self.table.hear(event)
            case Done() | CancelledRun() | Failed() | Died():
                self._end(message)
                return
        if self.state.phase is not before:
            self.changed.emit()
        if not self._tick.isActive():
            self._tick.start()

    def _begin(self, started: BatchStarted) -> None:
        """Make the rows those that the batch has really begun with."""
        known = {row.name: row for row in self.table.rows}
        if list(known) != list(started.names):
            self.table.fill([known.get(name) or Row(name) for name in started.names], idle=False)
        self.table.begin(anew=True)

    def _end(self, message: Done | CancelledRun | Failed | Died) -> None:
        self._activity.close()
        self.table.settle()
        self._become(self.state)
        self.ended.emit()
        order, again = self.order, tuple(self._again)
        if isinstance(message, Done) and again and order is not None:
            self.start(order, retry=again)
        elif self.docks.hidden:
            self._announce()

    def _draw(self) -> None:
        if self._closed:
            return
        self.table.flush()
        self.changed.emit()
        self._activity.update(self.state)  # last: it lets Qt handle other events

    def _open_activity(self) -> None:
        if self.active and not self._closed:
            self._activity.open(self.state.title)

    def _announce(self) -> None:
        """Tell the outcome in a notification of napari, because no dock shows it."""
        message = view(Prospect(), self.state).message
        if message is not None and self.state.phase is not Phase.CANCELLED:
            (show_error if message.kind == "error" else show_info)(f"{self.state.title}: {message.text}")

    def _is_image(self, layer: Any, row: Row) -> bool:
        """Whether a layer of the user's own shows the image of a row already."""
        path = getattr(layer.source, "path", None)
        if path and row.input and Path(path) == Path(row.input):
            return True
        saved = self.order.sources.saved if self.order is not None and self.order.sources is not None else ()
        return any(str(place) == row.input and volume.name == layer.name for place, volume in saved)

    def _show(self, asked: int, answer: Shown | Exception) -> None:
        if self._closed or asked != self._asked or self.pair is None:
            return
        if isinstance(answer, Exception):
            _LOG.error("a file of the batch could not be opened", exc_info=answer)
            self.told.emit(f"The file could not be opened: {answer}.")
            return
        self.pair.show(answer)
        self.told.emit(answer.problem)

    def _become(self, state: Batch) -> None:
        self.state = state
        self.changed.emit()


_SESSIONS: dict[int, BatchSession] = {}


def batch_session_of(viewer: napari.viewer.Viewer) -> BatchSession:
    """Return the batch session of a viewer; docks come and go, the session stays."""
    segment = session_of(viewer)
    if id(segment) not in _SESSIONS:
        _SESSIONS[id(segment)] = BatchSession(segment)
    return _SESSIONS[id(segment)]
