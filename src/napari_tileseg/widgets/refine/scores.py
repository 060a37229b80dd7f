"""``Scores``: the fold that moves the threshold of kept scores, seen while it moves, and done as one step when it is let go."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QPainter, QPen
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QSizePolicy, QSlider, QStyle, QStyleOptionSlider, QWidget

from napari_tileseg.errors import TileSegError
from napari_tileseg.units import unit_symbol
from napari_tileseg.widgets.late import Late, soon
from napari_tileseg.widgets.parts import Fields, Fold, Note
from napari_tileseg.widgets.parts.fields import tame
from napari_tileseg.widgets.parts.message import Links
from napari_tileseg.widgets.refine.kept import Kept, kept_scores
from napari_tileseg.widgets.refine.preview import Preview, is_preview
from napari_tileseg.widgets.regions import canvas_of, seen
from napari_tileseg.widgets.states import Action, Message

if TYPE_CHECKING:
    from qtpy.QtGui import QPaintEvent

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.widgets.refine.session import RefineSession
    from napari_tileseg.widgets.refine.work import Work

__all__ = ["Scores"]

_STEPS = 100

_OWN = 0.5
"""The threshold at which scores of what is abnormal are cut where the model's card says."""

_SMALL, _LARGE = 1.0, 10_000.0
"""Pixels at both ends of the slider of sizes, whose steps multiply; all the way to the left is 0."""

_TURN = 15
"""Milliseconds between two looks while a slider moves: the window draws in between."""

_PAUSE = 600
"""Milliseconds after the last change by key or wheel until it is done."""

_IDLE = 10_000
"""Milliseconds for which the layer of looks is kept when nobody slides any more: making one takes napari as long as several looks."""

_VISIBLE = 1 << 22
"""Most pixels that are decoded while a slider moves; of more, those in view, or in its middle, are."""

_FEWEST = 1 << 16
_SLOW, _QUICK = 0.08, 0.02
"""Seconds that decoding may take while a slider moves: beyond, fewer pixels are decoded the next time; below, more."""


class _Marked(QSlider):
    """A slider that shows where one of its values is."""

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setRange(0, _STEPS)
        self.mark: int | None = None

    def paintEvent(self, event: QPaintEvent | None) -> None:
        super().paintEvent(event)
        if self.mark is None:
            return
        option = QStyleOptionSlider()
        self.initStyleOption(option)
        style = self.style()
        assert style is not None  # Qt always has one
        handle = style.subControlRect(QStyle.ComplexControl.CC_Slider, option, QStyle.SubControl.SC_SliderHandle, self).width()
        at = handle // 2 + QStyle.sliderPositionFromValue(0, _STEPS, self.mark, self.width() - handle)
        painter = QPainter(self)
        painter.setPen(QPen(self.palette().windowText().color(), 2))
        painter.drawLine(at, 0, at, 3)
        painter.drawLine(at, self.height() - 4, at, self.height() - 1)
        painter.end()


class _Slide(QWidget):
    """A slider and a number beside it, which say the same."""

    def __init__(self, name: str, tip: str) -> None:
        super().__init__()
        self.setObjectName("plain")
        self.slider = _Marked()
        tame(self.slider, name)
        self.slider.setToolTip(tip)
        self.number = QDoubleSpinBox()
        tame(self.number, f"{name}, as a number")
        self.number.setToolTip(tip)
        self.number.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.number.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        self.number.setFixedWidth(self.number.fontMetrics().horizontalAdvance("100,000.0") + 8)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        row.addWidget(self.slider, 1)
        row.addWidget(self.number)
        self.setFocusProxy(self.slider)
        self.setToolTip(tip)


class Scores(Fold):
    """Threshold and Min. size, or a sentence on why there are none.

    Parameters
    ----------
    session : RefineSession
    """

    def __init__(self, session: RefineSession) -> None:
        self._session = session
        fields = Fields(indent=8)
        super().__init__("Scores", fields)
        self.fields = fields
        self.threshold = _Slide("Threshold", "Least score that counts. What is in view follows at once; the rest when you let go.")
        self.threshold.number.setRange(0, 1)
        self.threshold.number.setDecimals(2)
        self.threshold.number.setSingleStep(0.01)
        self.least = _Slide("Min. size", "Smaller objects go.")
        self.least.number.setRange(0, 1e12)
        self._rows: list[QWidget] = [self.threshold, self.least]
        self._rows += [fields.add("Threshold", self.threshold), fields.add("Min. size", self.least)]
        self.note = Note()
        self.note.setAccessibleName("What the scores are")
        fields.add_wide(self.note)
        self.links = Links()
        self.links.chosen.connect(self._on_link)
        fields.add_wide(self.links)
        viewer = session.viewer
        assert viewer is not None  # a dock is made in one
        self.preview = Preview(viewer)
        self.kept: Kept | None = None
        self._pixel = 1.0
        self._settled = (0.5, 0.0)
        self._deciding = False
        self._most = _VISIBLE
        self._done: list[tuple[tuple[float, float], tuple[float, float]]] = []
        self._undone: list[tuple[tuple[float, float], tuple[float, float]]] = []
        self._layer: Any = None
        self._soon = soon(self, _TURN, self._show)
        self._pause = soon(self, _PAUSE, self.settle)
        self._idle = soon(self, _IDLE, self._put_away)
        for slide, to_number in ((self.threshold, self._to_threshold), (self.least, self._to_size)):
            slide.slider.valueChanged.connect(lambda value, slide=slide, to=to_number: self._on_slider(slide, to(value)))
            slide.slider.sliderPressed.connect(self._prepare)
            slide.slider.sliderReleased.connect(self.settle)
            slide.number.valueChanged.connect(self._on_number)
        self.toggled.connect(self._on_toggled)
        self.destroyed.connect(lambda *_, preview=self.preview: preview.close())
        session.chosen.connect(self._on_chosen)
        session.changed.connect(self._on_state)
        session.edited.connect(self._on_edited)
        viewer.layers.events.inserted.connect(self._on_layers)
        viewer.layers.events.removed.connect(self._on_layers)
        self._on_chosen()

    def widgets_in_order(self) -> list[Any]:
        """Return the fields from top to bottom, as Tab takes them."""
        return [self.header, self.threshold.slider, self.threshold.number, self.least.slider, self.least.number]

    @property
    def values(self) -> tuple[float, float]:
        """Threshold, and least size in pixels."""
        return round(self.threshold.number.value(), 4), self.least.number.value() / self._pixel

    # -- the fields ------------------------------------------------------------------------------------------------

    def _to_threshold(self, step: int) -> float:
        return step / _STEPS

    def _to_size(self, step: int) -> float:
        return 0.0 if step == 0 else self._pixel * _SMALL * (_LARGE / _SMALL) ** (step / _STEPS)

    def _from_size(self, value: float) -> int:
        pixels = value / self._pixel
        return 0 if pixels <= 0 else min(max(round(_STEPS * math.log(max(pixels, _SMALL) / _SMALL) / math.log(_LARGE / _SMALL)), 1), _STEPS)

    def _on_slider(self, slide: _Slide, value: float) -> None:
        blocked = slide.number.blockSignals(True)
        slide.number.setValue(value)
        slide.number.blockSignals(blocked)
        self._on_value()

    def _on_number(self, *_: Any) -> None:
        self._follow()
        self._on_value()

    def _follow(self) -> None:
        """Put the sliders where the numbers are."""
        for slide, step in (
            (self.threshold, round(self.threshold.number.value() * _STEPS)),
            (self.least, self._from_size(self.least.number.value())),
        ):
            blocked = slide.slider.blockSignals(True)
            slide.slider.setValue(step)
            slide.slider.blockSignals(blocked)

    def _on_value(self) -> None:
        self._say()
        if not self._soon.isActive():
            self._soon.start()
        if not (self.threshold.slider.isSliderDown() or self.least.slider.isSliderDown()):
            self._pause.start()

    def _say(self) -> None:
        if self.kept is None or self.kept.trouble:
            self.say("none kept" if self.kept is None or self.kept.scores is None else "")
            return
        limit = self.kept.limit(self.threshold.number.value())
        self.say(f"threshold {self.threshold.number.value():.2f}" + ("" if limit is None else f", scores from {limit:.3g}"))

    # -- what they are scores of -----------------------------------------------------------------------------------

    def _on_toggled(self, opened: bool) -> None:
        if opened:
            self._look()
        else:
            self._drop()

    def _on_chosen(self) -> None:
        self._drop()
        self._look()

    def _on_layers(self, event: Any = None) -> None:
        if event is None or not is_preview(event.value):
            self._look()

    def _look(self) -> None:
        """Find the scores of the labels that are chosen."""
        session = self._session
        layer, viewer, work = session.labels, session.viewer, session.work
        kept = kept_scores(layer, viewer.layers) if layer is not None and viewer is not None and work is not None else None
        other = layer is not self._layer or (kept is None) is not (self.kept is None)
        if kept is not None and self.kept is not None and kept.scores is not self.kept.scores:
            other = True
        self.kept, self._layer = kept, layer
        usable = kept is not None and not kept.trouble
        for widget in self._rows:
            widget.setVisible(usable)
        if kept is None:
            self.note.setText("No scores were kept." if layer is not None else "")
            self.links.show_links((Action.AGAIN_SCORES,) if layer is not None else ())
        else:
            own = kept.limit(_OWN)
            self.threshold.slider.mark = None if own is None else round(_OWN * _STEPS)
            told = "" if own is None else f"At {_OWN:.2f}, the mark, the model's own limit holds: {own:.3g}."
            told += f" Parts of less than {kept.least:g} pixels go in any case." if kept.least > 1 else ""
            self.note.setText(kept.trouble or told)
            self.links.show_links(())
        self.note.setVisible(bool(self.note.text()))
        self.links.setVisible(bool(self.links.shown))
        if usable and other and work is not None:
            assert kept is not None
            self._take(kept, work)
        self._say()

    def _take(self, kept: Kept, work: Work) -> None:
        """Start where the labels are."""
        canvas = work.canvas
        self._pixel = canvas.pixel_size
        whole = unit_symbol(canvas.unit) == "px" and self._pixel == 1
        blocked = self.least.number.blockSignals(True)
        self.least.number.setDecimals(0 if whole else 2 if self._pixel >= 0.01 else 5)
        self.least.number.setSuffix(f" {canvas.size_unit}")
        self.least.number.blockSignals(blocked)
        self._put((kept.threshold, kept.min_size))
        self._settled = self.values
        self._done, self._undone = [], []
        self._most = _VISIBLE if kept.kind != "instances" else _VISIBLE // 16  # objects take longer than classes

    def _on_state(self) -> None:
        able = self._session.work is not None and not self._session.busy
        for slide in (self.threshold, self.least):
            slide.setEnabled(able)
        if able and self._deciding:
            QTimer.singleShot(0, self._check)

    def _check(self) -> None:
        """Go back to where the labels are, where decoding was cancelled or has failed."""
        if self._deciding and not self._session.busy:
            self._deciding = False
            self._put(self._settled)
            self._rest()

    def _on_edited(self, edit: Edit, way: str) -> None:
        """Move the sliders along when their step is undone or done again."""
        if edit.tool != "threshold" or way == "done":
            return
        taken, given = (self._done, self._undone) if way == "undone" else (self._undone, self._done)
        if taken:
            before, after = taken.pop()
            given.append((before, after))
            self._settled = before if way == "undone" else after
            self._put(self._settled)

    def _put(self, values: tuple[float, float]) -> None:
        """Show a threshold and a size without doing anything."""
        self._soon.stop()
        self._pause.stop()
        for number, value in ((self.threshold.number, values[0]), (self.least.number, values[1] * self._pixel)):
            blocked = number.blockSignals(True)
            number.setValue(value)
            number.blockSignals(blocked)
        self._follow()
        self._say()

    def _on_link(self, action: Action) -> None:
        if self._session.labels is not None:
            self._session.guarded(self._run_again)

    def _run_again(self) -> None:
        from napari_tileseg.widgets.refine.again import run_with_scores

        run_with_scores(self._session)

    # -- looks and the step ----------------------------------------------------------------------------------------

    def _box(self, work: Work) -> Box:
        """Return the part of the labels that is in view: all of a plane, a slice of a volume."""
        canvas, viewer = work.canvas, self._session.viewer
        assert viewer is not None
        offset = viewer.dims.ndim - canvas.ndim
        shown = [axis - offset for axis in viewer.dims.displayed]
        here = self._session.deeds.looked_at(work)
        box = []
        for axis, size in enumerate(canvas.shape):
            at = min(max(round(float(here[axis])), 0), size - 1)
            box.append(slice(0, size) if axis in shown else slice(at, at + 1))
        if math.prod(part.stop - part.start for part in box) > self._most:
            self._narrow(box, shown)
        return tuple(box)

    def _narrow(self, box: list[slice], shown: list[int]) -> None:
        """Leave what is on the canvas, and of that the middle if it is still too much."""
        viewer, layer = self._session.viewer, self._session.labels
        assert viewer is not None and layer is not None  # somebody slides
        view = canvas_of(viewer)
        if view is not None:
            first, last = seen(layer, viewer.dims.displayed, view)
            if all(last[axis] >= first[axis] for axis in shown):
                for axis in shown:
                    box[axis] = slice(int(first[axis]), int(last[axis]) + 1)
        share = (self._most / math.prod(part.stop - part.start for part in box)) ** (1 / max(len(shown), 1))
        for axis in shown if share < 1 else ():
            size = box[axis].stop - box[axis].start
            side = max(int(size * share), 1)
            start = box[axis].start + (size - side) // 2
            box[axis] = slice(start, start + side)

    def _prepare(self) -> None:
        """Make the layer of looks while the slider is only held."""
        work, layer, kept = self._session.work, self._session.labels, self.kept
        self._idle.stop()
        if work is not None and layer is not None and kept is not None and not kept.trouble and not self._session.busy:
            self.preview.prepare(layer, self._box(work))

    def _rest(self) -> None:
        """Show the labels again."""
        self.preview.rest()
        self._idle.start()

    def _put_away(self) -> None:
        if not self.preview.shown:
            self.preview.close()

    def _show(self) -> None:
        """Decode what is in view, and show it."""
        session, kept = self._session, self.kept
        work, layer = session.work, session.labels
        if work is None or layer is None or kept is None or kept.trouble or session.busy or self.values == self._settled:
            return
        self._idle.stop()
        box = self._box(work)
        threshold, size = self.values
        block = kept.block(box)
        thin = tuple(axis for axis, part in enumerate(box) if part.stop - part.start == 1 and len(box) > 2)
        cut = any(axis in work.canvas.space for axis in thin)
        if cut and not kept.flat:
            return  # it follows when the slider is let go
        began = time.perf_counter()
        try:
            found = kept.decode(block.squeeze(tuple(axis + 1 for axis in thin)), threshold, 0.0 if cut else size)
        except TileSegError as error:
            self.note.setText(str(error))
            self.note.show()
            return
        took = time.perf_counter() - began
        if took > _SLOW:
            self._most = max(int(found.size * _SLOW / 2 / took), _FEWEST)
        elif took < _QUICK:
            self._most = min(self._most * 2, _VISIBLE)
        values = np.expand_dims(found, thin) if thin else found
        self.preview.show(layer, values, [part.start for part in box])

    def settle(self) -> None:
        """Decode everything in another thread, and make it one step."""
        self._soon.stop()
        self._pause.stop()
        session, kept, work = self._session, self.kept, self._session.work
        if work is None or kept is None or kept.trouble or session.busy:
            return
        values = threshold, size = self.values
        if values == self._settled:
            self._rest()
            return
        canvas = work.canvas

        def decode(cancelled: Any) -> Edit:
            return kept.redecoded(canvas, threshold, size, cancelled)

        def start() -> None:
            self._deciding = not session.busy
            session.run("Decoding the scores", decode, Late(self, "_on_edit", values))

        work.when_looked(start)

    def _on_edit(self, values: tuple[float, float], edit: Edit) -> None:
        self._deciding = False
        before, self._settled = self._settled, values
        if self.values == values:
            self._rest()
        if edit and self._session.do(edit):
            self._done.append((before, values))
            self._undone.clear()
        elif edit:
            self._settled = before
            self._put(before)
        else:
            self._session.tell(Message("info", "The labels are the same at this threshold and size."))

    def _drop(self) -> None:
        self._soon.stop()
        self._pause.stop()
        self._idle.stop()
        self.preview.close()
