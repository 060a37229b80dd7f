"""One viewer's corrections: which labels, which tool, what was done; it outlives the dock."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_tileseg.errors import Cancelled, TileSegError
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.docks import Docks
from napari_tileseg.widgets.keys import CONTROL, pressed
from napari_tileseg.widgets.refine.deeds import Deeds
from napari_tileseg.widgets.refine.keeper import Keeper
from napari_tileseg.widgets.refine.marks import Marks
from napari_tileseg.widgets.refine.mouse import Mouse
from napari_tileseg.widgets.refine.recovery import Recovery
from napari_tileseg.widgets.refine.region import Regions
from napari_tileseg.widgets.refine.sheets import Sheets
from napari_tileseg.widgets.refine.states import Refine
from napari_tileseg.widgets.refine.subject import image_beside, trouble_with
from napari_tileseg.widgets.refine.tools import TOOLS, tool_of
from napari_tileseg.widgets.refine.work import Work
from napari_tileseg.widgets.session import session_of
from napari_tileseg.widgets.states import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari
    from napari.layers import Image, Labels, Layer

    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.widgets.session import Session

__all__ = ["RefineSession", "refine_session_of"]

_LOG = logging.getLogger(__name__)

_CLOCK = 1000
"""Milliseconds between two looks at the clock, for "kept 4 s ago"."""


class RefineSession(QObject):
    """The corrections of one viewer.

    Signals
    -------
    changed
        The state is another one: draw it.
    chosen
        Other labels, or another image, are worked on; or their array was replaced.
    edited
        ``(edit, way)``: a step was ``"done"``, ``"undone"`` or ``"redone"`` in the chosen labels.
    looked
        The objects of the chosen labels are known.

    Attributes
    ----------
    labels, image : Layer or None
        What is worked on; held by identity.
    work : Work or None
        The steps of the chosen labels; None while they cannot be corrected.
    selection : tuple of int
        Objects that were chosen from a list; empty where the selected label of the layer counts.
    act_on : str
        ``"clicked"``, ``"selected"``, ``"class"``, ``"slice"`` or ``"volume"``.
    """

    changed = Signal()
    chosen = Signal()
    edited = Signal(object, str)
    looked = Signal()

    def __init__(self, segment: Session) -> None:
        super().__init__()
        viewer = segment.viewer
        assert viewer is not None  # a session is made for a viewer
        self._segment = segment
        self.state = Refine()
        self.labels: Labels | None = None
        self.image: Image | None = None
        self.work: Work | None = None
        self.selection: tuple[int, ...] = ()
        self.act_on = "clicked"
        self.docks = Docks(segment.close)
        self.deeds = Deeds(self)
        self.marks = Marks(viewer)
        self.mouse = Mouse(self.deeds.click, self.deeds.line)
        self.regions = Regions(self)
        self.recovery = Recovery(self)
        self.keeper = Keeper(self)
        self._works: dict[int, Work] = {}
        self._keys: dict[str, Callable[[], object]] = {tool.key: partial(self.toggle, tool.name) for tool in TOOLS if tool.key}
        self._keys |= {f"{CONTROL}-Z": self.undo, f"{CONTROL}-Shift-Z": self.redo, "Escape": self.escape}
        self._bound: Labels | None = None
        self._bridge = Bridge(self)
        self._stop: threading.Event | None = None
        self._closed = False
        self._clock = QTimer(self)
        self._clock.setInterval(_CLOCK)
        self._clock.timeout.connect(self._tell_time)
        self.sheets = Sheets(self)
        viewer.layers.events.removed.connect(self._on_removed)
        segment.closing.connect(self.close)
        segment.changed.connect(self._on_segment)

    @property
    def viewer(self) -> napari.viewer.Viewer | None:
        return self._segment.viewer

    @property
    def segment(self) -> Session:
        """The session of the Segment dock: the latest run and its layers."""
        return self._segment

    @property
    def busy(self) -> bool:
        return bool(self.state.busy)

    # -- what is worked on -----------------------------------------------------------------------------------------

    def choose(self, labels: Labels | None, image: Image | None = None) -> None:
        """Work on other labels.

        Parameters
        ----------
        labels : Labels or None
        image : Image, optional
            What they are of; guessed by default.
        """
        viewer = self.viewer
        if viewer is None or self._closed:
            return
        same = labels is self.labels
        if not same:
            self.put_away()
            self._unbind()
            self.labels = labels
            self.selection = ()
            if labels is not None:
                labels.events.selected_label.connect(self._on_label)
                labels.events.editable.connect(self._on_altered)
                labels.events.data.connect(self._on_altered)
                self._bind(labels)
        self.image = image or (image_beside(labels, viewer.layers) if labels is not None else None)
        self._take_work()
        self._become(replace(self._fresh(), told=self.state.told if same else None))
        self.chosen.emit()

    def _take_work(self) -> None:
        labels = self.labels
        self.work = None
        if labels is None or labels.multiscale or trouble_with(labels):
            return
        work = self._works.get(id(labels))
        if work is not None and work.canvas.data is not labels.data:
            self.drop(labels)
            work = None
        if work is None:
            try:
                work = Work(labels)
            except TileSegError:
                return
            self._works[id(labels)] = work
            work.stepped.connect(lambda edit, way, work=work: self._on_step(work, edit, way))
            work.looked.connect(self.looked)
            self.keeper.follow(work)
            work.when_looked(lambda: None)  # the first click need not wait for it then
        self.work = work

    def drop(self, labels: Layer) -> None:
        """Forget the steps of a layer."""
        work = self._works.pop(id(labels), None)
        if work is not None:
            self.keeper.leave(work)
            work.close()
            if self.work is work:
                self.work = None

    def bind(self, key: str, deed: Callable[[], object]) -> None:
        """Bind another key on the labels that are worked on, as napari spells it: ``"Shift-N"``."""
        self._keys[key] = deed
        if self._bound is not None:
            self._bound.bind_key(key, pressed(deed), overwrite=True)

    def _bind(self, labels: Labels) -> None:
        for key, deed in self._keys.items():
            if key != "Escape":
                labels.bind_key(key, pressed(deed), overwrite=True)
        self._bound = labels

    def _unbind(self) -> None:
        labels, self._bound = self._bound, None
        if labels is not None:
            for key in self._keys:
                labels.bind_key(key, None)
            labels.events.selected_label.disconnect(self._on_label)
            labels.events.editable.disconnect(self._on_altered)
            labels.events.data.disconnect(self._on_altered)

    # -- tools -----------------------------------------------------------------------------------------------------

    def toggle(self, name: str) -> None:
        """Take a tool up, or put it away if it is held."""
        if self.state.tool == name:
            self.put_away()
        else:
            self.take_up(name)

    def take_up(self, name: str) -> None:
        """Have the mouse do what a tool does."""
        tool = tool_of(name)
        if tool is None or self.labels is None or self.work is None or self.busy or self.viewer is None:
            return
        self.put_away()
        self.viewer.layers.selection.active = self.labels
        if tool.drags:
            self.marks.open(self.labels)
        self.mouse.hold(self.labels, drags=tool.drags)
        self.labels.bind_key("Escape", pressed(self.escape), overwrite=True)
        self.labels.events.mode.connect(self._on_mode)
        self._become(replace(self.state, tool=name, picked="", told=None))

    def put_away(self) -> None:
        """Give the mouse back to napari."""
        self.deeds.forget()
        if not self.state.tool or self.labels is None:
            return
        self.labels.events.mode.disconnect(self._on_mode)
        self.labels.bind_key("Escape", None)
        self.mouse.let_go()
        self.marks.close()
        self._become(replace(self.state, tool="", picked="", told=None))

    def escape(self) -> None:
        """Stop what goes on, else drop what was clicked, else put the tool away."""
        if self.busy:
            self.cancel()
        elif self.state.picked:
            self.deeds.forget()
        else:
            self.put_away()

    def _on_mode(self, event: Any = None) -> None:
        if self.labels is not None and str(self.labels.mode) != "pan_zoom":
            self.put_away()  # the user has taken one of napari's own tools

    # -- steps -----------------------------------------------------------------------------------------------------

    def do(self, edit: Edit) -> bool:
        """Make a step of an edit, now; what cannot be done is told. Returns whether it was done."""
        if self.work is None:
            return False
        return self.guarded(lambda: self._do(edit))

    def attempt(self, make: Callable[[], Edit]) -> bool:
        """Compute an edit here and now, and do it; for what is quick."""
        return self.guarded(lambda: self._do(make()))

    def run(self, words: str, make: Callable[[Callable[[], bool]], Any], receive: Callable[[Any], object] | None = None) -> None:
        """Compute an edit in another thread, and do it.

        Parameters
        ----------
        words : str
            What goes on: ``"Smoothing"``.
        make : callable
            Called as ``make(cancelled)``; it reads the labels and returns an `Edit`.
        receive : callable, optional
            Takes what `make` returns instead, in Qt's thread.
        """
        if self.busy or self.work is None:
            return
        stop, work = threading.Event(), self.work
        self._stop = stop
        self._become(replace(self.state, busy=words, told=None))
        self._bridge.background(lambda: make(stop.is_set), lambda answer: self._on_made(answer, stop, work, receive or self._do))

    def cancel(self) -> None:
        """Stop what goes on in another thread; nothing is changed then."""
        if self._stop is not None:
            self._stop.set()
            self._stop = None
            self._become(replace(self.state, busy="", told=Message("info", "Cancelled. Nothing was changed.")))

    def undo(self) -> None:
        """Take the last step back, whether a tool made it or napari's brush."""
        self._step_back(undo=True)

    def redo(self) -> None:
        """Do a step again."""
        self._step_back(undo=False)

    def tell(self, message: Message | None) -> None:
        """Show a message in the dock."""
        self._become(replace(self.state, told=message))

    def pick(self, words: str) -> None:
        """Say what was clicked with the tool so far; empty for nothing."""
        if words != self.state.picked:
            self._become(replace(self.state, picked=words, told=None))

    def selected_ids(self) -> list[int]:
        """Return the objects that are selected in a list, or else the label that the layer would paint with."""
        if self.selection:
            return list(self.selection)
        return [int(self.labels.selected_label)] if self.labels is not None else []

    def select(self, labels: Sequence[int]) -> None:
        """Select objects from a list; the first one becomes the label that the layer paints with."""
        if self.labels is not None and labels:
            self.selection = tuple(labels)
            self.labels.selected_label = labels[0]
            if self.viewer is not None and self.labels in self.viewer.layers:
                self.viewer.layers.selection.active = self.labels  # where the keys work

    def _on_label(self, event: Any = None) -> None:
        if self.labels is not None and int(self.labels.selected_label) not in self.selection[:1]:
            self.selection = ()  # another one was picked in the layer

    def rename(self) -> None:
        """Take over what the chosen labels are called now."""
        if self.labels is not None and self.labels.name != self.state.labels:
            self._become(replace(self.state, labels=self.labels.name))

    def show_recovered(self, count: int, marks: int) -> None:
        """Ask whether steps and marks that were found are to be kept; none any more at 0."""
        self._become(replace(self.state, recovered=count, recovered_marks=marks))

    def refresh_time(self) -> None:
        """Tell anew when the last step was put on the disk."""
        self._tell_time()

    def set_act_on(self, value: str) -> None:
        """Choose what tools act on."""
        self.act_on = value

    def close(self) -> None:
        """Keep what is not kept yet, and let go of everything: the viewer is gone."""
        if self._closed:
            return
        self._closed = True
        self._clock.stop()
        if self._stop is not None:
            self._stop.set()
        self.keeper.close()
        self.recovery.close()
        self.sheets.close()
        self._bridge.close()
        for work in self._works.values():
            work.close()
        self._works.clear()

    # -- within ----------------------------------------------------------------------------------------------------

    def guarded(self, deed: Callable[[], object]) -> bool:
        """Do something that may be refused with a sentence, which is shown; returns whether it was done."""
        try:
            deed()
        except Cancelled:
            return False
        except TileSegError as error:
            self.tell(Message("error", str(error)))
            return False
        return True

    def _do(self, edit: Edit) -> None:
        if self.work is None:
            return
        if not edit:
            self.tell(Message("info", edit.note or "Nothing was changed."))
            return
        self.work.steps.do(edit)
        self.tell(Message("done", edit.note) if edit.note else None)

    def _on_made(self, answer: Any, stop: threading.Event, work: Work, receive: Callable[[Any], object]) -> None:
        if stop is not self._stop or self._closed:
            return
        self._stop = None
        self._become(replace(self.state, busy=""))
        if isinstance(answer, Cancelled) or work is not self.work:
            return
        if isinstance(answer, TileSegError):
            self.tell(Message("error", str(answer)))
        elif isinstance(answer, Exception):
            _LOG.error("a tool failed", exc_info=answer)
            self.tell(Message("error", f"This could not be done: {answer}. Nothing was changed."))
        else:
            self.guarded(lambda: receive(answer))

    def _step_back(self, *, undo: bool) -> None:
        work = self.work
        if work is None or self.busy:
            return
        self.deeds.forget()

        def move() -> None:
            edit = work.steps.undo() if undo else work.steps.redo()
            words = f"{'Undone' if undo else 'Done again'}: {edit.note or edit.tool}" if edit is not None else ""
            self.tell(Message("info", words or f"There is nothing to {'undo' if undo else 'redo'}."))

        self.guarded(move)

    def _on_step(self, work: Work, edit: Edit, way: str) -> None:
        self.keeper.note(work, edit, way)
        if work is self.work:
            self._become(replace(self.state, edits=work.count, kept=self.keeper.age(work)))
            self.edited.emit(edit, way)
        if not self._clock.isActive():
            self._clock.start()

    def _tell_time(self) -> None:
        work = self.work
        age = self.keeper.age(work) if work is not None else None
        if age != self.state.kept:
            self._become(replace(self.state, kept=age))
        if work is None or (not work.count and age is not None):
            self._clock.stop()

    def _fresh(self) -> Refine:
        """Return how things stand with the chosen labels."""
        labels, work = self.labels, self.work
        if labels is None:
            return Refine(recovered=self.state.recovered, recovered_marks=self.state.recovered_marks)
        return replace(
            self.state,
            labels=labels.name,
            locked=trouble_with(labels) if self.work is None else "",
            large=bool(labels.multiscale),
            only_read=self.regions.none_of(labels),
            window=self.regions.owns(labels),
            edits=work.count if work is not None else 0,
            kept=self.keeper.age(work) if work is not None else None,
            keeps=work is None or self.keeper.keeps(work),
        )

    def _on_altered(self, event: Any = None) -> None:
        """Look again: the array was replaced, or napari has locked the layer, or unlocked it."""
        labels = self.labels
        if labels is None:
            return
        before = self.work
        if trouble_with(labels) or (before is not None and before.canvas.data is not labels.data):
            self.put_away()
        self._take_work()
        self._become(self._fresh())
        if self.work is not before:
            self.chosen.emit()

    def _on_segment(self) -> None:
        if self.labels is not None and bool(self.state.locked) is not bool(trouble_with(self.labels)):
            self._on_altered()

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if self._closed or self.marks.owns(layer):
            return
        if layer is self.labels:
            if self.state.tool:
                self.put_away()
            if self._stop is not None:
                self.cancel()
        done = self.regions.on_removed(layer)
        self.drop(layer)
        if layer is self.labels:
            self.choose(None)  # it may be put in again before anybody looks
        if done:
            self.keeper.forget(layer)

    def _become(self, state: Refine) -> None:
        if self._closed:
            return
        self.state = state
        self.changed.emit()


def refine_session_of(viewer: napari.viewer.Viewer) -> RefineSession:
    """Return the corrections of a viewer; docks come and go, the session stays."""
    return session_of(viewer).beside(RefineSession)
