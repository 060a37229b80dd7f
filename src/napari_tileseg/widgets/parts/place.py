"""A field for a path: text that is elided in its middle, and a button that browses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QLineEdit, QMenu, QPushButton, QSizePolicy, QWidget
from superqt import QElidingLineEdit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qtpy.QtGui import QDragEnterEvent, QDropEvent, QPaintEvent

__all__ = ["Browse", "Elided", "PathEdit"]


_PADDING = 16
"""Pixels of a line edit that text cannot take: its borders and what the style sheet leaves at both sides."""


class PathEdit(QElidingLineEdit):
    """A line for a path; files and folders can be dropped on it."""

    def __init__(self, name: str, tip: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setElideMode(Qt.TextElideMode.ElideMiddle)
        self.setEllipsesWidth(_PADDING)
        self.setAccessibleName(name)
        self._tip = tip
        self.setToolTip(tip)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setAcceptDrops(True)
        self.textChanged.connect(self._tell)

    def write(self, text: str) -> None:
        """Write as a user would, with `textEdited`."""
        self.setText(text)
        self.textEdited.emit(text)

    def setText(self, text: str | None) -> None:
        super().setText(text)
        if self.hasFocus():  # superqt shows nothing new then
            QLineEdit.setText(self, text)

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        data = event.mimeData() if event is not None else None
        if event is not None and data is not None and data.hasUrls():
            event.acceptProposedAction()
        else:
            super().dragEnterEvent(event)

    def dropEvent(self, event: QDropEvent | None) -> None:
        data = event.mimeData() if event is not None else None
        paths = [url.toLocalFile() for url in data.urls()] if data is not None and data.hasUrls() else []
        if event is not None and any(paths):
            event.acceptProposedAction()
            self.write("; ".join(path for path in paths if path))
        else:
            super().dropEvent(event)

    def _tell(self) -> None:
        text = self.text()
        self.setToolTip(f"{text}\n{self._tip}" if text else self._tip)


class Browse(QPushButton):
    """The button with three dots; with several deeds it opens a menu."""

    def __init__(self, name: str, deeds: Sequence[tuple[str, Callable[[], None]]], parent: QWidget | None = None) -> None:
        super().__init__("...", parent)
        self.setObjectName("browse")
        self.setAccessibleName(name)
        self.setToolTip(name)
        if len(deeds) == 1:
            self.clicked.connect(lambda _checked=False: deeds[0][1]())
            return
        menu = QMenu(self)
        for text, deed in deeds:
            action = menu.addAction(text)
            assert action is not None
            action.triggered.connect(lambda _checked=False, chosen=deed: chosen())
        self.setMenu(menu)


class Elided(QLabel):
    """One line that is cut off with dots where there is no room; the whole of it is the tooltip."""

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("small")
        self.setAccessibleName(name)
        self.setTextFormat(Qt.TextFormat.PlainText)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._whole = ""

    def say(self, text: str) -> None:
        """Show another text."""
        self._whole = text
        self.setToolTip(text)
        self.setAccessibleDescription(text)
        self._fit()

    def resizeEvent(self, event: object) -> None:
        super().resizeEvent(event)  # type: ignore[arg-type]
        self._fit()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        self._fit()  # the style sheet's font is in force only now
        super().paintEvent(event)

    def _fit(self) -> None:
        shown = self.fontMetrics().elidedText(self._whole, Qt.TextElideMode.ElideRight, self.width())
        if shown != self.text():
            self.setText(shown)
