"""Rows of a form: a label, and a field beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QAbstractSpinBox, QCheckBox, QGridLayout, QHBoxLayout, QLabel, QLineEdit, QSizePolicy, QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QResizeEvent

__all__ = ["Edit", "Fields", "Note", "Tick", "Wrapped", "tame"]


class Edit(QLineEdit):
    """A line of text; as narrow as its dock wants it."""

    def __init__(self, name: str, tip: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName(name)
        self.setToolTip(tip)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)


class _Wheel(QObject):
    """Leaves the wheel to the page while a field does not have the focus."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is None or event.type() != QEvent.Type.Wheel or not isinstance(watched, QWidget) or watched.hasFocus():
            return False
        event.ignore()
        return True


def tame(field: QWidget, name: str) -> None:
    """Make a field of another library behave as ours do: as narrow as its dock wants it, the wheel left to the page, with a name."""
    field.setAccessibleName(name)
    if isinstance(field, QCheckBox):
        return
    field.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    field.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    field.installEventFilter(_Wheel(field))
    if isinstance(field, QAbstractSpinBox):
        field.setAlignment(Qt.AlignmentFlag.AlignCenter)
        field.setKeyboardTracking(False)


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

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        if event is None:
            return
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self.updateGeometry()  # layouts remember the height of another width


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
            # A layout of hidden widgets would take the width of the whole column away; a widget of them does not.
            together = QWidget()
            together.setObjectName("plain")
            row = QHBoxLayout(together)
            row.setContentsMargins(0, 0, 0, 0)
            row.setSpacing(4)
            row.addWidget(field, 1)
            for widget in beside:
                row.addWidget(widget)
            self.grid.addWidget(together, self._rows, 1)
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
