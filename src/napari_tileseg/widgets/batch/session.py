"""One viewer's batch: started, followed, paused, cancelled, carried on; it outlives the dock that started it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.batch.events import BatchStarted
from napari_tileseg.batch.listing import list_tasks
from napari_tileseg.widgets.batch.outlook import rows_of
from napari_tileseg.widgets.batch.pair import Pair, read_pair
from napari_tileseg.widgets.batch.rows import Row
from napari_tileseg.widgets.batch.states import Batch, advance, view
from napari_tileseg.widgets.batch.table import FileTable
from napari_tileseg.widgets.bridge import supervisor
from napari_tileseg.widgets.followed import Followed
from napari_tileseg.widgets.session import session_of
from napari_tileseg.widgets.states import Phase, Prospect
from napari_tileseg.worker.messages import Done

if TYPE_CHECKING:
    import napari

    from napari_tileseg.widgets.batch.outlook import Order
    from napari_tileseg.widgets.batch.pair import Shown
    from napari_tileseg.widgets.session import Session
    from napari_tileseg.widgets.states import Message

__all__ = ["BatchSession", "batch_session_of"]

_LOG = logging.getLogger(__name__)


class BatchSession(Followed):
    """The batch of one viewer, and its files; `told` speaks of the one that was opened."""

    state: Batch

    def __init__(self, segment: Session) -> None:
        super().__init__(segment, Batch())
        self.order: Order | None = None
        self.table = FileTable()
        self._again: set[str] = set()
        self._asked = 0
        viewer = segment.viewer
        self.pair = Pair(viewer) if viewer is not None else None

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
        self.order = order
        self._again.clear()
        if [row.name for row in self.table.rows] != [task.name for task in order.tasks]:
            self.table.fill(rows_of(order.tasks), idle=False)
        self.table.begin()
        self._set_out(Batch(Phase.LOADING, title=order.title, total=len(order.tasks)))
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
        """Ask the batch to stop after the current tile; no file is tried again then."""
        super().cancel()
        if not self.active or self.state.phase is Phase.CANCELLING:
            self._again.clear()

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

    # -- a batch's way ---------------------------------------------------------------------------------------------

    def _save(self, number: int, retry: bool | tuple[str, ...]) -> None:
        """Save the layers that have no file, one after the other; then launch."""
        order, token = self.order, self._token
        assert order is not None
        saved = order.sources.saved if order.sources is not None else ()
        if number >= len(saved):
            self._hand_over(order, retry)
            return
        sources = order.sources
        assert sources is not None
        self._become(replace(self.state, task=f"Saving layer {number + 1} of {len(saved)}"))
        self._bridge.background(lambda: sources.save(number), lambda answer: self._on_saved(token, number, retry, answer))

    def _on_saved(self, token: object, number: int, retry: bool | tuple[str, ...], answer: Any) -> None:
        if token is not self._token or not self.active:
            return
        if isinstance(answer, Exception):
            self._fail(answer, "The layer could not be saved")
            return
        self._save(number + 1, retry)

    def _hand_over(self, order: Order, retry: bool | tuple[str, ...]) -> None:
        launched = self._launch(
            lambda receiver: supervisor().start_batch(
                order.job, on_message=receiver, retry_failed=retry, workers=order.workers, cluster=order.cluster
            ),
            f"batch {order.title}",
        )
        if launched and not order.tasks:  # layers were only now saved
            token = self._token
            self._bridge.background(lambda: list_tasks(order.job), lambda answer: self._on_listed(token, answer))

    def _on_listed(self, token: object, answer: Any) -> None:
        if token is self._token and not isinstance(answer, Exception):
            for row, fresh in zip(self.table.rows, rows_of(answer.tasks), strict=False):
                row.input, row.output, row.series, row.model = fresh.input, row.output or fresh.output, fresh.series, fresh.model

    def _advance(self, message: Any) -> Batch:
        return advance(self.state, message)

    def _hear(self, event: Any) -> None:
        if isinstance(event, BatchStarted):
            self._begin(event)
        else:
            self.table.hear(event)

    def _begin(self, started: BatchStarted) -> None:
        """Make the rows those that the batch has really begun with."""
        known = {row.name: row for row in self.table.rows}
        if list(known) != list(started.names):
            self.table.fill([known.get(name) or Row(name) for name in started.names], idle=False)
        self.table.begin(anew=True)

    def _end(self, message: Any) -> None:
        self.table.settle()
        super()._end(message)

    def _go_on(self, message: Any) -> bool:
        order, again = self.order, tuple(self._again)
        if not isinstance(message, Done) or not again or order is None:
            return False
        self.start(order, retry=again)
        return True

    def _outcome(self) -> Message | None:
        message = view(Prospect(), self.state).message
        if message is None or self.state.phase is Phase.CANCELLED:
            return None
        return replace(message, text=f"{self.state.title}: {message.text}")

    def _draw(self) -> None:
        if not self._closed:
            self.table.flush()
            super()._draw()

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


def batch_session_of(viewer: napari.viewer.Viewer) -> BatchSession:
    """Return the batch session of a viewer; docks come and go, the session stays."""
    return session_of(viewer).beside(BatchSession)
