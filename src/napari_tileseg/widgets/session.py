"""One viewer's runs: started, followed, cancelled, carried on; they outlive the dock that started them."""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_tileseg.engine.events import SlabDone
from napari_tileseg.errors import TileSegError
from napari_tileseg.provenance import signature
from napari_tileseg.widgets.activity import Activity
from napari_tileseg.widgets.bridge import Bridge, existing_supervisor, supervisor
from napari_tileseg.widgets.docks import Docks
from napari_tileseg.widgets.objects import objects_table
from napari_tileseg.widgets.plan import SPEEDS
from napari_tileseg.widgets.progress import advance
from napari_tileseg.widgets.pyramid import Window, looks_at
from napari_tileseg.widgets.regions import meant
from napari_tileseg.widgets.result import IN_MEMORY, Result, finished_features
from napari_tileseg.widgets.states import Phase, Run, summary
from napari_tileseg.widgets.waiting import ask_before_closing
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Evented, Failed, Loaded

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Image, Layer

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.job import Job
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["Order", "Session", "real_viewer", "session_of", "tell_models_changed"]

_LOG = logging.getLogger(__name__)
_Beside = TypeVar("_Beside")
_TICK = 200
"""Milliseconds between two drawings while a run goes on."""

_CALM = 0.5
"""Seconds after the start in which Cancel ignores clicks: the second one of a double click."""


@dataclass(frozen=True, eq=False)
class Order:
    """Everything a run is made of, frozen when the button was pressed."""

    job: Job
    volume: Volume
    image: Image
    axis_map: AxisMap
    spec: ModelSpec
    objects: bool = False
    keep: str = "auto"


class Session(QObject):
    """The run of one viewer, and its result.

    Signals
    -------
    changed
        The state is another one: draw it.
    ended
        A run came to its end.
    altered
        The fields of a dock hold something else.
    models_changed
        There are other models on this computer, or others are trusted.
    closing
        The viewer is gone.
    """

    changed = Signal()
    ended = Signal()
    altered = Signal()
    models_changed = Signal()
    closing = Signal()

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.state = Run()
        self.order: Order | None = None
        self.result: Result | None = None
        self.provenance: dict[str, Any] = {}
        self.loaded: Loaded | None = None
        self.last_model = ""
        self.docks = Docks(self.close)
        self._bridge = Bridge(self)
        self._token: object = None
        self._run: Any = None
        self._began = 0.0
        self._slabs = False
        self._activity = Activity()
        self._tick = QTimer(self)
        self._tick.setSingleShot(True)
        self._tick.setInterval(_TICK)
        self._tick.timeout.connect(self._draw)
        self._closed = False
        self._window: Window | None = None
        self._beside: dict[Any, Any] = {}
        viewer.layers.events.removed.connect(self._on_removed)

    @property
    def viewer(self) -> napari.viewer.Viewer | None:
        return self._viewer()

    @property
    def active(self) -> bool:
        return self.state.phase.active

    @property
    def region(self) -> Layer | None:
        """The layer of the region of a large result that is open; None where none is."""
        return self._window.layer if self._window is not None else None

    def beside(self, kind: Callable[..., _Beside], *arguments: Any) -> _Beside:
        """Return what the viewer has beside its runs, a batch or a training; it is made when it is first asked for."""
        if kind not in self._beside:
            self._beside[kind] = kind(self, *arguments)
        found: _Beside = self._beside[kind]
        return found

    def start(self, order: Order) -> None:
        """Start a run; the one before it keeps its layer.

        Raises
        ------
        TileSegError
            If it cannot be started; nothing has changed then.
        """
        viewer = self.viewer
        if viewer is None or self.active:
            return
        self._begin(order, Result(viewer, order.image, order.volume, order.axis_map, order.spec), previous=None)

    def carry_on(self) -> None:
        """Continue the run that was cancelled, or whose process died."""
        if self.order is None or self._run is None or not self.state.phase.resumable:
            return
        if self.result is not None:
            self._begin(self.order, self.result, previous=self._run)

    def again(self) -> None:
        """Start the same run from its beginning; the unfinished layer goes."""
        order = self.order
        if order is None or self.active:
            return
        self.remove()
        self.start(order)

    def cancel(self) -> None:
        """Ask the run to stop after the current tile."""
        if self.active and self.state.phase is not Phase.CANCELLING and time.monotonic() - self._began >= _CALM:
            self._stop(Phase.CANCELLING)

    def remove(self) -> None:
        """Take the result of a run that stopped half-way out of the viewer."""
        if self.active:
            return
        result, self.result = self.result, None
        if result is not None:
            result.remove()
        self._drop_run()
        self._become(Run())

    def restore(self) -> None:
        """Bring a removed result back."""
        if self.result is None or self.state.phase is not Phase.REMOVED:
            return
        self.result.restore()
        if self.provenance:
            self._become(replace(self.state, phase=Phase.DONE, layer=True))
            return
        self.result.unlock()
        self._become(replace(self.state, phase=Phase.CANCELLED, layer=True))

    def forget(self) -> None:
        """Put the message of a run away that can be carried on no more: another image or model was chosen."""
        if not self.active and self.state.phase is not Phase.NONE:
            self._token = None  # a run whose result was removed may still be finishing its tile
            self._activity.close()
            self._drop_run()
            self._become(Run())

    def unload(self) -> None:
        """End the model's process and give its memory back."""
        owner = existing_supervisor()
        if owner is not None and not self.active:
            owner.unload()
        self.loaded = None
        self.changed.emit()

    def take_loaded(self, loaded: Loaded) -> None:
        """Take note that a model is in memory."""
        self.loaded = loaded
        self.changed.emit()

    def close(self) -> None:
        """Stop the run and close what is open: the viewer is gone."""
        if self._closed:
            return
        self._closed = True
        self.closing.emit()
        self._beside.clear()
        self._bridge.close()
        self._tick.stop()
        self._activity.close()
        if self._run is not None and self.active:
            self._run.cancel()
        _SESSIONS.pop(id(self), None)
        if not _SESSIONS:
            owner = existing_supervisor()
            if owner is not None:
                owner.unload()
        self._drop_run()

    # -- a run's way -----------------------------------------------------------------------------------------------

    def _begin(self, order: Order, result: Result, previous: Any) -> None:
        deliver = self._bridge.carry(self._receive)
        token = object()
        run = supervisor().start(order.job, order.volume, on_message=lambda message: deliver((token, message)), previous=previous)
        if previous is None:
            self._drop_run()
        self._token, self._run, self._slabs = token, run, False
        self.order, self.result, self.provenance = order, result, {}
        self._began = time.monotonic()
        self.last_model = order.spec.name
        if result.shown:
            result.follow(run.labels)
        self._become(Run(Phase.LOADING, image=order.volume.name, model=order.spec.label, layer=result.shown))
        ask_before_closing(run, f"segmentation of {order.volume.name} with {order.spec.label}")
        QTimer.singleShot(0, self._open_activity)  # later, because it lets Qt handle messages

    def _open_activity(self) -> None:
        if self.active and not self._closed:
            self._activity.open(f"{self.state.image} with {self.state.model}")

    def _receive(self, content: tuple[object, Any]) -> None:
        token, message = content
        if self._closed or token is not self._token:
            return
        before = self.state.phase
        self.state = advance(self.state, message)
        match message:
            case Evented(SlabDone()):
                self._slabs = True
                if self.result is not None and not self.result.layers and self.state.phase is not Phase.REMOVED:
                    self.result.make(self._run.labels)
                    QTimer.singleShot(0, self._show)
            case Loaded():
                self.loaded = message
            case Done():
                self._finish(message)
                return
            case CancelledRun() | Failed() | Died():
                self._halt(message)
                return
        if self.state.phase is not before:
            self.changed.emit()
        if not self._tick.isActive():
            self._tick.start()

    def _show(self) -> None:
        """Put the result into the viewer, once."""
        if self._closed or self.result is None or self.result.shown or self._run is None:
            return
        self.result.show(self._run.labels)
        self._become(replace(self.state, layer=True))

    def _draw(self) -> None:
        if self._closed:
            return
        if self._slabs and self.result is not None and self.result.locked:
            self._slabs = False
            self.result.refresh()
        self.changed.emit()
        self._activity.update(self.state)  # last: it lets Qt handle other events

    def _stop(self, phase: Phase, sentence: str = "") -> None:
        self._become(replace(self.state, phase=phase, sentence=sentence))
        if self._run is not None:
            self._run.cancel()

    def _halt(self, message: CancelledRun | Failed | Died) -> None:
        """Give what is finished of a run that stopped before its end to the user."""
        self._activity.close()
        if isinstance(message, Died):
            self.loaded = None
        if self.result is not None and self.result.layers:
            self._show()
            self.result.refresh()
            self.result.unlock()
        if isinstance(message, Failed) and self.result is not None:
            self.result.detach()
            self._drop_run()
        self._become(self.state)
        self._end()

    def _finish(self, message: Done) -> None:
        """Take the complete labels off the scratch file, and measure objects, in another thread."""
        assert self.result is not None
        self.provenance = {**message.provenance, "run": signature(message.seconds)}
        self._show()
        order, run, result, token = self.order, self._run, self.result, self._token
        assert order is not None
        self.state = replace(self.state, phase=Phase.RUNNING)
        self._bridge.background(lambda: _completed(order, run), lambda answer: self._complete(message, result, token, answer))

    def _complete(self, message: Done, result: Result, token: object, answer: Any) -> None:
        if self._closed or token is not self._token or result is not self.result:
            return
        self._activity.close()
        order = self.order
        assert order is not None
        if isinstance(answer, Exception):
            _LOG.error("the objects could not be measured", exc_info=answer)
            labels, features, scores, unsure = self._run.labels, {}, None, None
        else:
            labels, features, scores, unsure = answer
        result.finish(labels, features, self.provenance)
        large = result.store is not None
        if scores is not None:
            result.show_scores(scores, self.provenance)
        if unsure is not None:
            result.show_uncertainty(unsure, self.provenance)
        if not large and not isinstance(labels, np.memmap):
            self._drop_run()
        objects = order.spec.finds_objects
        background = "" if order.spec.output == "sigmoid" else order.spec.classes[0]
        words = summary(message.counts, objects=objects, seconds=message.seconds, background=background)
        phase = Phase.REMOVED if result.missing else Phase.DONE
        options = order.job.options
        SPEEDS.learn(order.spec.name, options, self.state.total, options.window or order.spec.window, message.seconds)
        self._become(replace(self.state, phase=phase, layer=not result.missing, sentence=words, done=self.state.total, large=large))
        self._end()

    def edit_region(self) -> None:
        """Open the part of a large result that is in view, or in rectangles of the active Shapes layer, as a layer to paint on.

        Raises
        ------
        OptionsError
            If nothing of it is there, or it is too large.
        """
        viewer, result = self.viewer, self.result
        if viewer is None or result is None or result.store is None or self._window is not None:
            return
        number = next((place for place, layer in enumerate(result.layers) if layer is viewer.layers.selection.active), 0)
        self._window = Window(result, result.store, number, meant(viewer, result.layers[number], result.axis_map))
        viewer.add_layer(self._window.layer)
        self._become(replace(self.state, editing=True))

    def put_back(self) -> None:
        """Close the region that is open; what was painted goes into the result.

        Raises
        ------
        OutputError
            If the disk refuses; the region stays open.
        """
        viewer, window = self.viewer, self._window
        if window is None:
            return
        window.put_back()
        self._window = None
        if viewer is not None and window.layer in viewer.layers:
            viewer.layers.remove(window.layer)
        self._become(replace(self.state, editing=False))

    def _end(self) -> None:
        self.ended.emit()
        if self.docks.hidden:
            self._announce()

    def _announce(self) -> None:
        """Tell the outcome in a notification of napari, because no dock shows it."""
        if self.state.phase in (Phase.FAILED, Phase.DIED):
            show_error(self.state.sentence)
        elif self.state.phase is Phase.DONE:
            show_info(f"{self.state.image}: {self.state.sentence}")

    def _on_removed(self, event: Any) -> None:
        layer: Layer = event.value
        if self._closed:
            return
        if self._window is not None and layer is self._window.layer:
            self._close_window(layer)
        if self.result is not None and self.result.owns(layer):
            if self.active:
                self._stop(Phase.REMOVED)
            elif self.state.phase in (Phase.DONE, Phase.CANCELLED, Phase.DIED):
                self._become(replace(self.state, phase=Phase.REMOVED, layer=False))
        elif self.order is not None and layer is self.order.image and self.active:
            self._become(replace(self.state, image_gone=True))

    def _close_window(self, layer: Layer) -> None:
        """Put back what was painted in a region that the user has closed; open it again where that fails."""
        try:
            self.put_back()
        except TileSegError as error:
            show_error(str(error))
            if self.viewer is not None:
                self.viewer.add_layer(layer)

    def _drop_run(self) -> None:
        """Let go of a run and its scratch files, once no layer looks at them any more."""
        run, self._run = self._run, None
        if run is None:
            return
        if self.result is not None:
            self.result.detach()
        with contextlib.suppress(TileSegError, OSError):  # a run that was carried on has given its arrays away
            if not _looked_at(self.viewer, run.labels):
                run.remove()

    def _become(self, state: Run) -> None:
        self.state = state
        self.changed.emit()


_SESSIONS: dict[int, Session] = {}


def real_viewer(viewer: Any) -> napari.viewer.Viewer:
    """Return the viewer itself: plugins get a new proxy each time, and layers are told apart here by identity."""
    found: napari.viewer.Viewer = getattr(viewer, "__wrapped__", viewer)
    return found


def session_of(viewer: napari.viewer.Viewer) -> Session:
    """Return the session of a viewer; docks come and go, the session stays."""
    viewer = real_viewer(viewer)
    for session in _SESSIONS.values():
        if session.viewer is viewer:
            return session
    session = Session(viewer)
    _SESSIONS[id(session)] = session
    return session


def tell_models_changed() -> None:
    """Have every viewer's docks list the models again."""
    for session in list(_SESSIONS.values()):
        if session.viewer is not None:
            session.models_changed.emit()


def _completed(order: Order, run: Any) -> tuple[Any, dict[str, Any], Any, Any]:
    """Return labels, features, scores and uncertainty of a finished run; called in another thread."""
    if run.store.large:
        labels = run.store.reopen()
        return labels, finished_features(order.spec, labels, None), run.scores, run.uncertainty
    labels = run.labels
    if order.keep == "memory" or (order.keep == "auto" and labels.nbytes <= IN_MEMORY):
        labels = np.array(labels)
    table = None
    if order.objects and order.spec.output != "sigmoid":
        axes, affine_axes = order.axis_map.grid_axes, order.volume
        table = objects_table(np.asarray(labels), axes, order.axis_map.spatial, affine_axes.spacing, affine_axes.unit)
    taken = [
        None if array is None else (array if isinstance(labels, np.memmap) else np.array(array)) for array in (run.scores, run.uncertainty)
    ]
    return labels, finished_features(order.spec, labels, table), *taken


def _looked_at(viewer: napari.viewer.Viewer | None, labels: Any) -> bool:
    """Whether a layer still draws from a scratch file."""
    if viewer is None or labels is None:
        return False
    if not isinstance(labels, np.ndarray):
        return any(looks_at(layer, labels) for layer in viewer.layers)
    return any(isinstance(getattr(layer, "data", None), np.ndarray) and np.may_share_memory(layer.data, labels) for layer in viewer.layers)
