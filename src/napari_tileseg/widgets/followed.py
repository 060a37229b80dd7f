"""``Followed``: a batch or a training of one viewer, from its start to its end; it outlives the dock that started it."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_tileseg.errors import TileSegError
from napari_tileseg.widgets.activity import Activity
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.docks import Docks
from napari_tileseg.widgets.late import soon
from napari_tileseg.widgets.states import Phase
from napari_tileseg.widgets.waiting import ask_before_closing
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Evented, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_tileseg.widgets.course import Course
    from napari_tileseg.widgets.session import Session
    from napari_tileseg.widgets.states import Message

__all__ = ["Followed"]

_TICK = 200
"""Milliseconds between two drawings while something goes on."""

_CALM = 0.5
"""Seconds after the start in which Cancel ignores clicks: the second one of a double click."""


class Followed(QObject):
    """What goes on in the model's process, and how it stands.

    A subclass starts it with `_set_out` and `_launch`, and says what a message changes (`_advance`), what an event
    brings (`_hear`) and how it ended (`_outcome`).

    Signals
    -------
    changed
        The state is another one: draw it.
    ended
        It came to its end.
    told
        A sentence about an image that could not be shown; it may be empty.

    Parameters
    ----------
    segment : Session
        The runs of the same viewer.
    state : Course
        How it stands before there has been any.
    """

    changed = Signal()
    ended = Signal()
    told = Signal(str)

    def __init__(self, segment: Session, state: Course) -> None:
        super().__init__()
        self._segment = segment
        self.state = state
        self.docks = Docks(segment.close)
        self._bridge = Bridge(self)
        self._token: object = None
        self._run: Any = None
        self._began = 0.0
        self._activity = Activity()
        self._tick = soon(self, _TICK, self._draw)
        self._closed = False
        segment.closing.connect(self.close)

    @property
    def viewer(self) -> napari.viewer.Viewer | None:
        return self._segment.viewer

    @property
    def active(self) -> bool:
        return self.state.phase.active

    # -- deeds -----------------------------------------------------------------------------------------------------

    def carry_on(self) -> None:
        """Go on with one that was cancelled, or whose process died."""
        raise NotImplementedError

    def pause(self) -> None:
        """Pause, or go on."""
        if self._run is not None and self.active and self.state.phase is not Phase.CANCELLING:
            paused = not self.state.pausing
            self._run.pause(paused)
            self._become(replace(self.state, pausing=paused))

    def cancel(self) -> None:
        """Ask it to stop after the current tile or step; what is done by then is kept."""
        if not self.active or self.state.phase is Phase.CANCELLING or time.monotonic() - self._began < _CALM:
            return
        if self._run is None:  # layers are still being saved
            self._receive((self._token, CancelledRun(0, 0)))
            return
        self._become(replace(self.state, phase=Phase.CANCELLING, pausing=False))
        self._run.cancel()

    def close(self) -> None:
        """Stop it: the viewer is gone. What is needed to go on stays, and the same work goes on later."""
        if self._closed:
            return
        self._closed = True
        self._bridge.close()
        self._tick.stop()
        self._activity.close()
        if self._run is not None and self.active:
            self._run.cancel()

    # -- what a subclass says --------------------------------------------------------------------------------------

    def _advance(self, message: Any) -> Course:
        """Return the state after a message of the supervisor."""
        raise NotImplementedError

    def _hear(self, event: Any) -> None:
        """Take an event in, which the state knows already."""
        raise NotImplementedError

    def _outcome(self) -> Message | None:
        """Return what a notification of napari tells of the end, where no dock shows it."""
        raise NotImplementedError

    def _go_on(self, message: Any) -> bool:
        """Begin once more after the message that ended it, where that was asked for; True where it did."""
        return False

    # -- its way ---------------------------------------------------------------------------------------------------

    def _set_out(self, state: Course) -> object:
        """Begin: messages of the one before do not count any more. Returns what its own messages are known by."""
        self._run, self._token = None, object()
        self._began = time.monotonic()
        self._become(state)
        QTimer.singleShot(0, self._open_activity)  # later, because it lets Qt handle messages
        return self._token

    def _launch(self, start: Callable[[Callable[[Any], None]], Any], words: str) -> bool:
        """Hand it to the supervisor; False where that refuses.

        Parameters
        ----------
        start : callable
            Takes a receiver of messages and returns the run.
        words : str
            What goes on, for napari's question before it closes.
        """
        deliver, token = self._bridge.stream(self._receive), self._token
        try:
            run = start(lambda message: deliver((token, message)))
        except TileSegError as error:
            self._fail(error)
            return False
        self._run = run
        ask_before_closing(run, words)
        return True

    def _fail(self, error: Exception, what: str = "") -> None:
        """End it before it has begun; `what` could not be done where the error has no sentence of its own."""
        sentence = str(error) if isinstance(error, TileSegError) else f"{what}: {error}."
        self._receive((self._token, Failed(type(error).__name__, sentence)))

    def _receive(self, content: tuple[object, Any]) -> None:
        token, message = content
        if self._closed or token is not self._token:
            return
        before = self.state.phase
        self.state = self._advance(message)
        match message:
            case Evented(event):
                self._hear(event)
            case Done() | CancelledRun() | Failed() | Died():
                self._end(message)
                return
        if self.state.phase is not before:
            self.changed.emit()
        if not self._tick.isActive():
            self._tick.start()

    def _end(self, message: Done | CancelledRun | Failed | Died) -> None:
        self._activity.close()
        self._become(self.state)
        self.ended.emit()
        if not self._go_on(message) and self.docks.hidden:
            self._announce()

    def _announce(self) -> None:
        """Tell the outcome in a notification of napari, because no dock shows it."""
        message = self._outcome()
        if message is not None:
            (show_error if message.kind == "error" else show_info)(message.text)

    def _draw(self) -> None:
        if self._closed:
            return
        self.changed.emit()
        self._activity.update(self.state)  # last: it lets Qt handle other events

    def _open_activity(self) -> None:
        if self.active and not self._closed:
            self._activity.open(self.state.title)

    def _become(self, state: Course) -> None:
        self.state = state
        self.changed.emit()
