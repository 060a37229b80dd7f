"""A scroll area that is as tall as its page while there is room, and scrolls below that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QEvent, QObject, QSize, Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QResizeEvent

__all__ = ["Scroll", "page"]


class Scroll(QScrollArea):
    """Holds the form of a dock.

    Parameters
    ----------
    page : QWidget
        What scrolls; it has a layout.
    """

    def __init__(self, page: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        page.setObjectName("page")
        self.setWidget(page)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Maximum)
        self.setSizePolicy(policy)
        page.installEventFilter(self)

    def sizeHint(self) -> QSize:
        page = self.widget()
        layout = page.layout() if page is not None else None
        if page is None or layout is None:
            return super().sizeHint()
        width = self.width()
        height = layout.totalHeightForWidth(width) if layout.hasHeightForWidth() else layout.totalSizeHint().height()
        return QSize(240, height)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, min(self.sizeHint().height(), 96))

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        if event is None:
            return
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self.updateGeometry()  # wrapped sentences need another height now

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return False


def page(content: QWidget) -> QWidget:
    """Return a page for a `Scroll` with something at its top."""
    around = QWidget()
    layout = QVBoxLayout(around)
    layout.setContentsMargins(6, 4, 6, 4)
    layout.addWidget(content)
    layout.addStretch(1)
    return around
