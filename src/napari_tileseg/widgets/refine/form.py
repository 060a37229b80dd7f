"""The fields of the Refine dock above its folds: layers, tools, what they act on; it holds choices and decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QGridLayout, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_tileseg.widgets.parts import Combo, Fields
from napari_tileseg.widgets.parts.fields import tame
from napari_tileseg.widgets.refine.tools import TOOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer
    from qtpy.QtGui import QResizeEvent, QShowEvent

__all__ = ["RefineForm"]

_COLUMNS = 4

ACT_ON = (
    ("Clicked object", "clicked"),
    ("Selected objects", "selected"),
    ("Class of the object", "class"),
    ("Object in this slice", "slice"),
    ("Object in the volume", "volume"),
)

SPLIT_BY = (("Shape", "distance"), ("Image", "image"), ("Scores", "scores"))


class RefineForm(QWidget):
    """Labels, image, tools, Act on, and the fields that the tool in hand has.

    Signals
    -------
    layers_chosen
        Another layer was chosen.
    tool_pressed
        A tool's button was pressed; its name comes along.
    changed
        Another field changed.
    """

    layers_chosen = Signal()
    tool_pressed = Signal(str)
    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self.labels = Combo("Labels", "What to correct.")
        self.image = Combo("Image", "What the labels are of: Wand and Split look at it.")
        self.act_on = Combo("Act on", "What tools change.")
        self.act_on.fill(ACT_ON)
        self.tolerance = QDoubleSpinBox()
        tame(self.tolerance, "Tolerance")
        self.tolerance.setToolTip("How much the image may differ from the spot that is clicked, in its own values.")
        self.tolerance.setRange(0, 1e12)
        self.reach = QDoubleSpinBox()
        tame(self.reach, "Reach")
        self.reach.setToolTip("How far from the spot pixels are looked at, so that the wand does not run into what is alike. 0: no limit.")
        self.reach.setRange(0, 1e12)
        self.reach.setSpecialValueText("no limit")
        self._usual = 0.0
        self.split_by = Combo("Split by", "Where split objects part: by their shape, at edges of the image, where scores are low.")
        self.split_by.fill(SPLIT_BY)
        self.tools: dict[str, QPushButton] = {}
        self.grid = QWidget()
        self.grid.setObjectName("plain")
        self._places = QGridLayout(self.grid)
        self._places.setContentsMargins(0, 0, 0, 0)
        self._places.setSpacing(4)
        self._columns = _COLUMNS
        for column in range(_COLUMNS):
            self._places.setColumnStretch(column, 1)
        for tool in TOOLS:
            button = self.add_button(tool.label, f"{tool.sentence} Key: {tool.key}." if tool.key else tool.sentence)
            button.setCheckable(True)
            button.clicked.connect(lambda _checked=False, name=tool.name: self.tool_pressed.emit(name))
            self.tools[tool.name] = button
        self.top, self.bottom = Fields(), Fields()
        self.top.add("Labels", self.labels)
        self.top.add("Image", self.image)
        self.bottom.add("Act on", self.act_on)
        self._rows = {
            "wand": (
                self.bottom.add("Tolerance", self.tolerance),
                self.tolerance,
                self.bottom.add("Reach", self.reach),
                self.reach,
            ),
            "split": (self.bottom.add("Split by", self.split_by), self.split_by),
        }
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.top, self.grid, self.bottom):
            layout.addWidget(widget)
        self.labels.currentIndexChanged.connect(self.layers_chosen)
        self.image.currentIndexChanged.connect(self.layers_chosen)
        self.act_on.currentIndexChanged.connect(self.changed)
        self.split_by.currentIndexChanged.connect(self.changed)
        self.tolerance.valueChanged.connect(self.changed)
        self.reach.valueChanged.connect(self.changed)
        self.show_tool("")

    def add_button(self, text: str, tip: str) -> QPushButton:
        """Add a button after the tools; returns it."""
        button = QPushButton(text)
        button.setObjectName("tool")
        button.setAccessibleName(text)
        button.setToolTip(tip)
        button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        number = self._places.count()
        self._places.addWidget(button, number // self._columns, number % self._columns)
        return button

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        if event is not None:
            super().resizeEvent(event)
        self._arrange()

    def _arrange(self) -> None:
        """Put fewer buttons into a row where the font is too large for four."""
        buttons = self.grid.findChildren(QPushButton)
        widest = max(button.fontMetrics().horizontalAdvance(button.text()) for button in buttons) + 4
        columns = next((count for count in (_COLUMNS, 3) if (self.width() + 4) // count - 4 >= widest), 2)
        if columns == self._columns:
            return
        self._columns = columns
        for number, button in enumerate(buttons):
            self._places.addWidget(button, number // columns, number % columns)
        for column in range(_COLUMNS):
            self._places.setColumnStretch(column, int(column < columns))

    def offer(self, labels: Sequence[Layer], images: Sequence[Layer], chosen: Layer | None, image: Layer | None) -> None:
        """List the layers there are; those that are worked on stay chosen."""
        self.labels.fill([(layer.name, layer) for layer in labels], chosen)
        none = [("None", None)] if image is None else []
        self.image.fill([*none, *((layer.name, layer) for layer in images)], image)

    def show_tool(self, name: str) -> None:
        """Show which tool is held, and its fields."""
        for own, button in self.tools.items():
            button.setChecked(own == name)
        for own, row in self._rows.items():
            for widget in row:
                widget.setVisible(own == name)
        self.align()

    def set_able(self, able: bool) -> None:
        """Let the tools be pressed, or not."""
        for place in range(self._places.count()):
            item = self._places.itemAt(place)
            widget = item.widget() if item is not None else None
            if widget is not None:
                widget.setEnabled(able)
        self.act_on.setEnabled(able)

    def set_tolerance(self, value: float) -> None:
        """Start with a tolerance that suits an image."""
        _start_with(self.tolerance, value)

    def set_reach(self, value: float, unit: str, *, fresh: bool) -> None:
        """Start with a reach that suits the labels.

        Parameters
        ----------
        value : float
        unit : str
            Its symbol.
        fresh : bool
            Whether other labels were chosen; else what the user has set stays.
        """
        if fresh or self.reach.value() == self._usual:
            _start_with(self.reach, value)
            self._usual = self.reach.value()
        self.reach.setSuffix(f" {unit}")

    def follow(self, tolerance: float, reach: float) -> None:
        """Show what the wand has by now: the mouse may have set it, or a dock that was here before."""
        for field, value in ((self.tolerance, tolerance), (self.reach, reach)):
            if field.value() == round(value, field.decimals()):
                continue  # somebody may be typing in it
            blocked = field.blockSignals(True)
            field.setValue(value)
            field.blockSignals(blocked)

    def align(self, width: int = 0) -> None:
        """Line the fields up."""
        width = max(width, self.top.label_width, self.bottom.label_width)
        for fields in (self.top, self.bottom):
            fields.align(width)

    def showEvent(self, event: QShowEvent | None) -> None:
        if event is not None:
            super().showEvent(event)
        self._arrange()
        self.align()

    def widgets_in_order(self) -> list[Any]:
        """Return the fields from top to bottom, as Tab takes them."""
        buttons = [self._places.itemAt(place).widget() for place in range(self._places.count())]  # type: ignore[union-attr]  # all are widgets
        return [self.labels, self.image, *buttons, self.act_on, self.tolerance, self.reach, self.split_by]


def _start_with(field: QDoubleSpinBox, value: float) -> None:
    """Give a field a value, and decimals and steps that go with it."""
    blocked = field.blockSignals(True)
    field.setDecimals(0 if value >= 10 else 2 if value >= 0.1 else 5)
    field.setSingleStep(max(value / 10, 10.0 ** -field.decimals()))
    field.setValue(value)
    field.blockSignals(blocked)
