"""Rows of a form: a label, and a field beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QGridLayout, QHBoxLayout, QLabel, QLineEdit, QSizePolicy, QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QWheelEvent

__all__ = ["Edit", "Fields", "Note", "Spin", "Tick", "Wrapped"]


class Edit(QLineEdit):
    """A line of text; as narrow as its dock wants it."""

    def __init__(self, name: str, tip: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)


class Spin(QDoubleSpinBox):
    """A number; the wheel turns it only while it has the focus."""

    def __init__(self, name: str, tip: str = "", *, most: float = 1.0, step: float = 0.05, decimals: int = 2) -> None:
        super().__init__()
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setDecimals(decimals)
        self.setRange(0, most)
        self.setSingleStep(step)
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setKeyboardTracking(False)

    def wheelEvent(self, event: QWheelEvent | None) -> None:
        if event is None:
            return
        if self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class Tick(QCheckBox):
    """A yes or no."""

    def __init__(self, text: str, tip: str = "", parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.setAccessibleName(text)
        self.setToolTip(tip)


class Wrapped(QLabel):
    """A sentence that wraps, as tall as it needs to be at its width and never wider than its dock."""

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.setWordWrap(True)
        self.setTextFormat(Qt.TextFormat.PlainText)
        policy = self.sizePolicy()  # changed in place: setSizePolicy(h, v) would drop height-for-width
        policy.setHorizontalPolicy(QSizePolicy.Policy.Ignored)
        self.setSizePolicy(policy)

    def minimumSizeHint(self) -> QSize:
        # Qt's own guess is the height at a narrow width, which makes a scroll area scroll for nothing.
        return QSize(0, max(self.heightForWidth(self.width()), 0))


class Note(Wrapped):
    """A small sentence that wraps."""

    def __init__(self, text: str = "", parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.setObjectName("small")


class Fields(QWidget):
    """Rows of labels and fields whose labels share one width."""

    def __init__(self, *, indent: int = 0, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self.grid = QGridLayout(self)
        self.grid.setContentsMargins(indent, 0, 0, 0)
        self.grid.setHorizontalSpacing(6)
        self.grid.setVerticalSpacing(4)
        self.grid.setColumnStretch(1, 1)
        self.labels: list[QLabel] = []
        self._rows = 0

    def add(self, name: str, field: QWidget, *beside: QWidget) -> QLabel:
        """Add a row; returns its label."""
        label = QLabel(name)
        label.setBuddy(field)
        label.setToolTip(field.toolTip())
        self.labels.append(label)
        self.grid.addWidget(label, self._rows, 0)
        if beside:
            row = QHBoxLayout()
            row.setContentsMargins(0, 0, 0, 0)
            row.setSpacing(4)
            row.addWidget(field, 1)
            for widget in beside:
                row.addWidget(widget)
            self.grid.addLayout(row, self._rows, 1)
        else:
            self.grid.addWidget(field, self._rows, 1)
        self._rows += 1
        return label

    def add_wide(self, widget: QWidget) -> None:
        """Add something that takes the whole width."""
        self.grid.addWidget(widget, self._rows, 0, 1, 2)
        self._rows += 1

    def align(self, width: int) -> None:
        """Give the label column a width, so that several groups line up."""
        margins = self.grid.contentsMargins()
        self.grid.setColumnMinimumWidth(0, max(0, width - margins.left()))

    @property
    def label_width(self) -> int:
        """Width the labels need, the indent included."""
        widths = [label.sizeHint().width() for label in self.labels if not label.isHidden()]
        return max(widths, default=0) + self.grid.contentsMargins().left()
