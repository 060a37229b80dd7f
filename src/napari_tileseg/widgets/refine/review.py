"""``Review``: the fold that goes from object to object, those first where a look is worth most, and keeps what was said of them."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QWidget

from napari_tileseg.errors import Cancelled, TileSegError
from napari_tileseg.refine.objects import remove
from napari_tileseg.refine.review import by_disagreement, by_outlier, by_uncertainty, disagreement, mean_uncertainty
from napari_tileseg.refine.scope import Scope
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.late import Late
from napari_tileseg.widgets.parts import Combo, Fields, Fold, Note
from napari_tileseg.widgets.refine.checks import ACCEPTED, FIX, REJECTED, checks, mark
from napari_tileseg.widgets.refine.gaze import look_at
from napari_tileseg.widgets.refine.sheets import SCORE
from napari_tileseg.widgets.refine.table import words

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.widgets.refine.session import RefineSession

__all__ = ["ORDERS", "Review"]

ORDERS = (
    ("Uncertain first", "uncertain"),
    ("Largest first", "largest"),
    ("Smallest first", "smallest"),
    ("Odd shapes first", "odd"),
    ("Disagreement", "disagreement"),
    ("By number", "number"),
)

_OWNER = "review"


class Review(Fold):
    """Order, the labels to compare with, steps, marks, how many objects are checked.

    Parameters
    ----------
    session : RefineSession
    """

    def __init__(self, session: RefineSession) -> None:
        self._session = session
        fields = Fields(indent=8)
        super().__init__("Review", fields)
        self.fields = fields
        self.order = Combo("Order", "Which objects to look at first.")
        self.order.fill(ORDERS)
        self.other = Combo("Compare", "Labels of the same image, for example of another model.")
        fields.add("Order", self.order)
        self._other_label = fields.add("Compare", self.other)
        self.note = Note()
        self.note.setAccessibleName("Object in review")
        fields.add_wide(self.note)
        self.previous = _button("Previous", "Go to the object before. Key: Shift+N.")
        self.next = _button("Next", "Go to the next object that is not checked. Key: N.")
        self.accept = _button("Accept", "This object is right. Key: J. Again takes it back.")
        self.fix = _button("Fix", "This object is to be corrected later.")
        self.reject = _button("Reject", "This object is wrong. Key: Shift+J. Again takes it back.")
        self.clear = QPushButton("Remove rejected")
        self.clear.setObjectName("link")
        self.clear.setAccessibleName("Remove rejected")
        for buttons in ((self.previous, self.next), (self.accept, self.fix, self.reject)):
            around = QWidget()
            around.setObjectName("plain")
            row = QHBoxLayout(around)
            row.setContentsMargins(0, 0, 0, 0)
            row.setSpacing(4)
            for button in buttons:
                row.addWidget(button)
            fields.add_wide(around)
        fields.add_wide(self.clear)
        self._bridge = Bridge(self)
        self._layer: Labels | None = None
        self._ranks: list[int] = []
        self._values: dict[int, float] = {}
        self._what = ""
        self._sought: object = None
        self._then: Callable[[], None] | None = None
        self.current: int | None = None
        self.order.currentIndexChanged.connect(self._on_order)
        self.other.currentIndexChanged.connect(self._on_order)
        self.toggled.connect(self._on_toggled)
        self.destroyed.connect(lambda *_: session.sheets.want(_OWNER, False))
        deeds = {
            self.previous: self.go_back,
            self.next: self.go_on,
            self.accept: partial(self.say_of, ACCEPTED),
            self.fix: partial(self.say_of, FIX),
            self.reject: partial(self.say_of, REJECTED),
            self.clear: self.remove_rejected,
        }
        for button, deed in deeds.items():
            button.clicked.connect(lambda _checked=False, deed=deed: deed())
        self.shortcuts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("N", self.go_on),
            ("Shift+N", self.go_back),
            ("J", partial(self.say_of, ACCEPTED)),
            ("Shift+J", partial(self.say_of, REJECTED)),
        )
        for key, method, *more in (
            ("N", "go_on"), ("Shift-N", "go_back"), ("J", "say_of", ACCEPTED), ("Shift-J", "say_of", REJECTED),
        ):  # fmt: skip
            session.bind(key, _weakly(self, method, *more))
        session.sheets.changed.connect(self._on_sheet)
        session.sheets.shaped.connect(self._on_shaped)
        session.chosen.connect(self._on_chosen)
        session.changed.connect(self._on_state)
        self._on_chosen()

    def widgets_in_order(self) -> list[Any]:
        """Return the fields from top to bottom, as Tab takes them."""
        return [
            self.header, self.order, self.other, self.previous, self.next, self.accept, self.fix, self.reject, self.clear,
        ]  # fmt: skip

    # -- steps -----------------------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Go to the next object that is not checked yet."""
        self._with_order(lambda: self._step(1))

    def go_back(self) -> None:
        """Go to the object before."""
        self._with_order(lambda: self._step(-1))

    def say_of(self, word: str) -> None:
        """Mark the object and go on; the same mark again is taken back."""
        layer = self._layer
        if layer is None or self._session.work is None:
            return
        label = self.current if self.current == int(layer.selected_label) else int(layer.selected_label)
        known = self._session.work.canvas
        if not known.looked or label not in known.index:
            self.note.setText("Choose an object first: press N, or pick one in the image.")
            return
        again = checks(layer).get(label) == word
        mark(layer, {label: "" if again else word})
        self._tell()
        if not again:
            self.current = label
            self.go_on()

    def remove_rejected(self) -> None:
        """Make background of all objects that are rejected, as one step."""
        layer, work = self._layer, self._session.work
        if layer is None or work is None or not work.canvas.looked:
            return
        canvas = work.canvas
        rejected = [label for label, word in checks(layer).items() if word == REJECTED and label in canvas.index]
        if rejected:
            self._session.run("Removing", lambda cancelled: remove(canvas, Scope(tuple(rejected)), cancel=cancelled))

    def _step(self, by: int) -> None:
        layer = self._layer
        if layer is None or not self._ranks:
            return
        said = checks(layer)
        ranks = self._ranks
        start = ranks.index(self.current) if self.current in self._values else (-1 if by > 0 else 0)
        places = [(start + by * step) % len(ranks) for step in range(1, len(ranks) + 1)]
        open_ones = [place for place in places if by < 0 or ranks[place] not in said]
        if not open_ones:
            self._tell()
            self.note.setText(f"All {len(ranks):,} objects are checked.")
            return
        self._show(ranks[open_ones[0]])

    def _show(self, label: int) -> None:
        session, layer = self._session, self._layer
        work, viewer = session.work, session.viewer
        if work is None or viewer is None or layer is None:
            return
        index, at = work.canvas.index, session.sheets.at
        if label not in index or at not in index.positions(label):  # an edit took it away a moment ago
            self._ranks.remove(label)
            self._values.pop(label, None)
            self._step(1)
            return
        self.current = label
        session.select([label])
        session.guarded(lambda: look_at(viewer, layer, work.canvas, label, index.box(label, at)))
        self._tell()

    # -- order -----------------------------------------------------------------------------------------------------

    def _with_order(self, deed: Callable[[], None]) -> None:
        """Do something as soon as it is known in which order objects are looked at."""
        if self._ranks:
            deed()
            return
        self._then = deed
        self._session.sheets.want(_OWNER, True)
        if not self.opened:
            self.open()
        elif self._session.sheets.sheet is not None:
            self._sort()

    def _on_toggled(self, opened: bool) -> None:
        self._session.sheets.want(_OWNER, opened)
        if opened:
            self._offer()
            if self._session.sheets.sheet is not None and not self._ranks:
                self._sort()

    def _on_chosen(self) -> None:
        if self._session.labels is not self._layer:
            if self._layer is not None:
                self._layer.events.features.disconnect(self._on_features)
            self._layer = self._session.labels
            if self._layer is not None:
                self._layer.events.features.connect(self._on_features)
            self.current = None
        self._ranks, self._values = [], {}
        self._offer()
        self._on_state()
        self._tell()

    def _offer(self) -> None:
        """List the labels that these can be compared with."""
        session, layer = self._session, self._layer
        viewer = session.viewer
        same = []
        if viewer is not None and layer is not None and not layer.multiscale:
            shape = tuple(layer.data.shape)
            same = [
                other
                for other in reversed(list(viewer.layers))
                if isinstance(other, Labels) and other is not layer and not other.multiscale and tuple(other.data.shape) == shape
            ]
        self.other.fill([(other.name, other) for other in same] or [("No other labels of this shape", None)], self.other.value)
        compares = self.order.value == "disagreement"
        for widget in (self._other_label, self.other):
            widget.setVisible(compares)

    def _on_order(self, *_: Any) -> None:
        self._offer()
        self._ranks, self._values = [], {}
        self.current = None
        self._sort()

    def _on_sheet(self) -> None:
        if self._session.sheets.sheet is None:
            self._ranks, self._values = [], {}
        elif self.opened or self._then is not None:
            self._sort()
        self._tell()

    def _on_shaped(self) -> None:
        if self.order.value == "odd" and self.opened and not self._ranks:
            self._sort()

    def _sort(self) -> None:
        """Work out the order; what takes long in another thread."""
        sheet, session, layer = self._session.sheets.sheet, self._session, self._layer
        work, viewer = session.work, session.viewer
        if sheet is None or work is None or viewer is None or layer is None or not work.canvas.looked:
            return
        token = self._sought = object()
        labels, sizes = sheet.labels, sheet.column(sheet.size_name)
        canvas, at = work.canvas, session.sheets.at
        score = f"mean {SCORE}"
        match self.order.value:
            case "uncertain" if score in sheet.names:
                self._take(labels, by_uncertainty(1 - sheet.column(score)), sheet.column(score), "score")
            case "uncertain":
                unsure = _uncertainty_of(layer, list(viewer.layers))
                if unsure is None:
                    self._take(labels[:0], np.zeros(0, np.intp), sizes, "")
                    self.note.setText("No scores were kept. Segment with Keep scores, or choose another order.")
                    return
                self._later(token, lambda: mean_uncertainty(canvas, unsure, at=at), by_uncertainty, "uncertainty")
            case "largest" | "smallest" as which:
                self._take(labels, np.argsort(-sizes if which == "largest" else sizes, kind="stable"), sizes, sheet.size_name)
            case "odd":
                left = [row for row in range(len(sheet)) if not sheet.shaped(row)]
                if left:
                    self.note.setText("Measuring shapes")
                    session.sheets.shape(left)
                    return
                names = [*sheet.shape_names, sheet.size_name]
                table = {name: sheet.column(name) for name in names}
                self._take(labels, by_outlier(table, names), table[names[0]], names[0])
            case "disagreement":
                other = self.other.value
                if not isinstance(other, Labels):
                    self._take(labels[:0], np.zeros(0, np.intp), sizes, "")
                    self.note.setText("There are no other labels of this shape to compare with. Segment the image with another model.")
                    return
                theirs = other.data
                self._later(token, lambda: disagreement(canvas, theirs, at=at), by_disagreement, "overlap")
            case _:
                self._take(labels, np.arange(len(labels)), sizes, sheet.size_name)

    def _later(self, token: object, work: Callable[[], Any], rank: Callable[[Any], Any], what: str) -> None:
        self.note.setText("Comparing" if what == "overlap" else "Looking at the scores")
        self._bridge.background(work, Late(self, "_on_ranked", token, rank, what))

    def _on_ranked(self, token: object, rank: Callable[[Any], Any], what: str, answer: Any) -> None:
        if token is not self._sought or isinstance(answer, Cancelled):
            return
        if isinstance(answer, TileSegError):
            self.note.setText(str(answer))
        elif isinstance(answer, Exception):
            self.note.setText(f"The order could not be worked out: {answer}. Choose another one.")
        else:
            labels, values = answer
            self._take(labels, rank(values), values, what)

    def _take(self, labels: Any, ranks: Any, values: Any, what: str) -> None:
        self._ranks = [int(label) for label in labels[ranks]]
        self._values = dict(zip(labels.tolist(), values.tolist(), strict=False))
        self._what = what
        self._tell()
        then, self._then = self._then, None
        if then is not None and self._ranks:
            then()

    # -- words -----------------------------------------------------------------------------------------------------

    def _on_features(self, event: Any = None) -> None:
        self._tell()

    def _on_state(self) -> None:
        able = self._session.work is not None and not self._session.busy
        for button in (self.previous, self.next, self.accept, self.fix, self.reject, self.clear):
            button.setEnabled(able)

    def _tell(self) -> None:
        """Tell how many objects are checked, and which one is looked at."""
        layer, work = self._layer, self._session.work
        if layer is None or work is None or not work.canvas.looked:
            self.say("")
            self.clear.hide()
            self.note.setText("")
            return
        index, at = work.canvas.index, self._session.sheets.at
        said = {label: word for label, word in checks(layer).items() if at in index.positions(label)}
        total = len(index.ids(at))
        checked = f"{len(said):,} of {total:,} checked"
        self.say(checked)
        rejected = sum(word == REJECTED for word in said.values())
        self.clear.setText(f"Remove {rejected} rejected")
        self.clear.setVisible(rejected > 0)
        parts = [checked + "."]
        if self.current is not None and self.current in self._values:
            word = {ACCEPTED: "accepted", FIX: "to be fixed", REJECTED: "rejected"}.get(said.get(self.current, ""), "")
            parts.insert(0, ", ".join(part for part in (f"Object {self.current}", self._value(self.current), word) if part) + ".")
        self.note.setText(" ".join(parts))

    def _value(self, label: int) -> str:
        """Say what put an object where it is in the order: ``"area 12.5 µm²"``."""
        name, _, unit = self._what.partition(" [")
        value = words(name, self._values[label])
        return f"{name} {value} {unit.rstrip(']')}".strip() if value else ""


def _uncertainty_of(labels: Labels, layers: list[Any]) -> Any:
    """Return the map of uncertainty that was kept with labels; None where none was."""
    for layer in layers:
        named = layer.name == f"{labels.name}_uncertainty"
        if isinstance(layer, Image) and named and not layer.multiscale and tuple(layer.data.shape) == tuple(labels.data.shape):
            return layer.data
    return None


def _button(name: str, tip: str) -> QPushButton:
    button = QPushButton(name)
    button.setObjectName("tool")
    button.setAccessibleName(name)
    button.setToolTip(tip)
    button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return button


def _weakly(fold: Review, method: str, *more: Any) -> Callable[[], None]:
    """Return a deed of a fold that may be gone by the time a key is pressed: the session outlives it."""
    there = weakref.ref(fold)

    def deed() -> None:
        fold = there()
        if fold is not None:
            getattr(fold, method)(*more)

    return deed
