"""``CleanUp``: the fold that changes many objects at once, and says first how many."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QPushButton

from napari_tileseg.errors import Cancelled, TileSegError
from napari_tileseg.refine.scope import Scope
from napari_tileseg.units import unit_symbol
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.late import Late, soon
from napari_tileseg.widgets.parts import Combo, Fields, Fold, Note
from napari_tileseg.widgets.parts.fields import tame
from napari_tileseg.widgets.refine.cleaning import CLEANINGS, Cleaning, would
from napari_tileseg.widgets.refine.subject import pixels_of, position_of

if TYPE_CHECKING:
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.widgets.refine.session import RefineSession
    from napari_tileseg.widgets.refine.work import Work

__all__ = ["CleanUp"]

_PAUSE = 250
"""Milliseconds without another change before the answer is worked out."""

_TOO_LARGE = 1 << 26
"""Pixels of labels from which on nothing is tried in advance but what the table of objects tells."""


class CleanUp(Fold):
    """Fields Do, Amount and On; a sentence that says what would happen; Apply.

    Parameters
    ----------
    session : RefineSession
    """

    def __init__(self, session: RefineSession) -> None:
        self._session = session
        fields = Fields(indent=8)
        super().__init__("Clean up", fields)
        self.fields = fields
        self.what = Combo("Do", "What is done to each object.")
        self.what.fill([(item.label, item.name) for item in CLEANINGS])
        self.amount = QDoubleSpinBox()
        tame(self.amount, "Amount")
        self.unit = QLabel("px")
        self.where = Combo("On", "Which objects are changed.")
        self.where.fill([("All objects", "all"), ("Selected object", "selected"), ("This slice", "slice")])
        self.note = Note()
        self.note.setAccessibleName("What Clean up would do")
        self.apply = QPushButton("Apply")
        self.apply.setAccessibleName("Apply")
        self.apply.setToolTip("Do it, as one step that can be undone.")
        fields.add("Do", self.what)
        self._amount_label = fields.add("Amount", self.amount, self.unit)
        fields.add("On", self.where)
        fields.add_wide(self.note)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.apply)
        fields.grid.addLayout(row, fields.grid.rowCount(), 0, 1, 2, Qt.AlignmentFlag.AlignRight)
        self._amounts: dict[str, float] = {}
        self._name = ""
        self._bridge = Bridge(self)
        self._stop: threading.Event | None = None
        self._ready: Edit | None = None
        self._pause = soon(self, _PAUSE, self._try)
        self.what.currentIndexChanged.connect(self._on_what)
        self.amount.valueChanged.connect(self._on_change)
        self.where.currentIndexChanged.connect(self._on_change)
        self.apply.clicked.connect(self.press)
        self.toggled.connect(self._on_change)
        session.chosen.connect(self._on_subject)
        session.edited.connect(self._on_change)
        session.changed.connect(self._on_state)
        self._on_what()

    @property
    def cleaning(self) -> Cleaning:
        """What the field Do says."""
        return next(item for item in CLEANINGS if item.name == self.what.value)

    def widgets_in_order(self) -> list[Any]:
        """Return the fields from top to bottom, as Tab takes them."""
        return [self.header, self.what, self.amount, self.where, self.apply]

    def press(self) -> None:
        """Do it."""
        work = self._session.work
        if work is None or self._session.busy:
            return
        edit, self._ready = self._ready, None
        if edit is not None:
            self._session.do(edit)
            return
        cleaning, amount, image = self.cleaning, self.amount.value(), self._image()
        work.when_looked(lambda: self._run(work, cleaning, amount, image))

    def _run(self, work: Work, cleaning: Cleaning, amount: float, image: Any) -> None:
        try:
            scope = self._scope(work)
        except TileSegError as error:
            self.note.setText(str(error))
            return
        self._session.run(cleaning.words, lambda cancelled: cleaning.make(work.canvas, scope, amount, image, cancelled))

    # -- what would happen -----------------------------------------------------------------------------------------

    def _on_subject(self) -> None:
        self._amounts.clear()
        self._name = ""
        self._on_what()

    def _on_what(self) -> None:
        """Show the amount that belongs to what is done, in its unit."""
        if self._name:
            self._amounts[self._name] = self.amount.value()
        cleaning, work = self.cleaning, self._session.work
        self._name = cleaning.name
        kind = cleaning.amount
        for widget in (self._amount_label, self.amount, self.unit):
            widget.setVisible(bool(kind))
        pixel, symbol = 1.0, "px"
        if work is not None:
            canvas = work.canvas
            pixel = canvas.pixel_size if kind == "size" else min(canvas.spacing[axis] for axis in canvas.space)
            symbol = canvas.size_unit if kind == "size" else unit_symbol(canvas.unit)
        blocked = self.amount.blockSignals(True)
        whole = kind == "label" or (kind in ("size", "length") and symbol == "px" and pixel == 1)
        self.amount.setDecimals(0 if whole else 2 if pixel >= 0.01 else 5)
        self.amount.setRange(0, 1e12)
        self.amount.setSingleStep(1 if kind == "label" else pixel * (10 if kind == "size" else 1))
        start = {"size": 50 * pixel, "length": 2 * pixel, "label": 1, "times": 2}.get(kind, 0)
        self.amount.setValue(self._amounts.get(cleaning.name, start))
        self.amount.blockSignals(blocked)
        self.unit.setText(symbol if kind in ("size", "length") else "SD" if kind == "times" else "")
        self._on_change()

    def _on_change(self, *_: Any) -> None:
        self._ready = None
        if self._stop is not None:
            self._stop.set()
        self.say(self.cleaning.label.lower())
        self.note.setText("")
        if self.opened and self._session.work is not None and not self._session.busy:
            self._pause.start()

    def _on_state(self) -> None:
        able = self._session.work is not None and not self._session.busy
        self.apply.setEnabled(able)

    def _try(self) -> None:
        """Work out in another thread what would happen."""
        work = self._session.work
        if work is None or not self.opened or self._session.busy:
            return
        if not work.canvas.looked:
            self.note.setText("Looking for objects")
            work.when_looked(lambda: Late(self, "_on_looked")(None))
            return
        cleaning, amount, image = self.cleaning, self.amount.value(), self._image()
        try:
            scope = self._scope(work)
        except TileSegError as error:
            self.note.setText(str(error))
            return
        if cleaning.amount != "size" and work.layer.data.size > _TOO_LARGE:
            self.note.setText("These labels are large; Apply tells what was done.")
            return
        stop = self._stop = threading.Event()
        canvas = work.canvas
        self._bridge.background(lambda: cleaning.make(canvas, scope, amount, image, stop.is_set), Late(self, "_on_answer", stop))

    def _on_looked(self, _: Any) -> None:
        self._on_change()

    def _on_answer(self, stop: threading.Event, answer: Any) -> None:
        if stop is not self._stop or stop.is_set() or isinstance(answer, Cancelled):
            return
        if isinstance(answer, TileSegError):
            self.note.setText(str(answer))
        elif isinstance(answer, Exception):
            self.note.setText("What would happen could not be worked out; it can be tried.")
        else:
            self._ready = answer if answer else None
            self.note.setText(would(answer))

    def _image(self) -> Any:
        labels, image = self._session.labels, self._session.image
        return pixels_of(image, labels) if image is not None and labels is not None else None

    def _scope(self, work: Work) -> Scope:
        deeds = self._session.deeds
        if self.where.value == "selected":
            return Scope.selection(self._session.selected_ids(), position_of(work.canvas, deeds.looked_at(work)))
        if self.where.value == "slice":
            at = position_of(work.canvas, deeds.looked_at(work))
            cut = deeds.cut(work)
            return Scope.slice(*cut, at) if cut is not None else Scope.volume(at)
        return Scope.volume()
