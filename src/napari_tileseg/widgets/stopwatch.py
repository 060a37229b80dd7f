"""``Stopwatch``: times one tile of a model in its own process, so that a dock can say how long a run will take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_tileseg.widgets.bridge import Bridge, supervisor
from napari_tileseg.widgets.plan import SPEEDS
from napari_tileseg.widgets.states import Message
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Failed, Loaded, Loading, Queued

if TYPE_CHECKING:
    from napari_tileseg.widgets.plan import Plan
    from napari_tileseg.widgets.session import Session

__all__ = ["Stopwatch"]


class Stopwatch(QObject):
    """Measures what a plan's model needs for one tile on its device; the viewer stays free meanwhile.

    Parameters
    ----------
    session : Session
        Learns that the model is loaded.
    parent : QObject
        The dock.

    Signals
    -------
    changed
        `words` are others.
    ended
        A time is known now, or the measuring was stopped.
    told
        A `Message`: why nothing could be measured.
    """

    changed = Signal()
    ended = Signal()
    told = Signal(object)

    def __init__(self, session: Session, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._bridge = Bridge(self)
        self._run: Any = None
        self._plan: Plan | None = None
        self.words = ""

    def start(self, plan: Plan) -> None:
        """Time one tile, unless that is being done already.

        Raises
        ------
        RunError
            If the program is being closed.
        """
        if self._run is not None:
            return
        deliver, token = self._bridge.carry(self._receive), object()
        self._run = (token, supervisor().start_probe(plan.job, on_message=lambda message: deliver((token, message))))
        self._plan = plan
        self._say("Loading the model")

    def stop(self) -> None:
        """Measure no more."""
        if self._run is not None:
            self._say("Stopping")
            self._run[1].cancel()

    def _receive(self, content: tuple[object, Any]) -> None:
        token, message = content
        plan = self._plan
        if self._run is None or plan is None or token is not self._run[0]:
            return
        match message:
            case Queued():
                self._say("Waiting for another run")
            case Loading():
                self._say(f"Loading {message.model}")
            case Loaded():
                self._session.take_loaded(message)
                self._say("Timing one tile")
            case Done():
                options = plan.job.options
                SPEEDS.learn(plan.spec.name, options, 1, options.window or plan.spec.window, message.seconds)
                self._end()
            case Failed() | Died():
                self._end()
                self.told.emit(Message("error", f"The time could not be measured. {message.message}"))
            case CancelledRun():
                self._end()

    def _end(self) -> None:
        self._run, self._plan = None, None
        self._say("")
        self.ended.emit()

    def _say(self, words: str) -> None:
        self.words = words
        self.changed.emit()
