"""A combo box that elides long names and leaves the wheel to the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QSizePolicy, QStyle, QStyleOptionComboBox, QStylePainter, QWidget

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QPaintEvent, QWheelEvent

__all__ = ["Combo"]


class Combo(QComboBox):
    """Choices with a value behind each text; as narrow as its dock wants it."""

    def __init__(self, name: str, tip: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self._tip = tip
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setMaxVisibleItems(16)
        self.currentIndexChanged.connect(self._tell)

    def fill(self, choices: Sequence[tuple[str, Any]], chosen: Any = None) -> None:
        """Replace the choices without a signal; keep `chosen`, compared by identity or equality, if it is among them."""
        blocked = self.blockSignals(True)
        self.clear()
        for text, value in choices:
            self.addItem(text, value)
        for index, (_, value) in enumerate(choices):
            if value is chosen or (isinstance(value, str | int) and value == chosen):
                self.setCurrentIndex(index)
                break
        self.blockSignals(blocked)
        self._tell()

    def choose(self, value: Any) -> bool:
        """Select the choice with that value; False if there is none."""
        for index in range(self.count()):
            held = self.itemData(index)
            if held is value or (isinstance(held, str | int) and held == value):
                self.setCurrentIndex(index)
                return True
        return False

    @property
    def value(self) -> Any:
        """The value behind the current text; None when there is none."""
        return self.currentData()

    def _tell(self) -> None:
        text = self.currentText()
        wide = self.fontMetrics().horizontalAdvance(text) > max(self.width() - 40, 60)
        self.setToolTip(f"{text}\n{self._tip}" if wide else self._tip)

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        if event is None:
            return
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QStylePainter(self)
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        style = self.style()
        assert style is not None
        field = style.subControlRect(QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, self)
        option.currentText = self.fontMetrics().elidedText(option.currentText, Qt.TextElideMode.ElideMiddle, field.width() - 2)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
