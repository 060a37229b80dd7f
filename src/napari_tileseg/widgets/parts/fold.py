"""A fold: a header that says what is inside, and the fields it hides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QPushButton, QSizePolicy, QStyle, QStyleOptionButton, QStylePainter, QVBoxLayout, QWidget

from napari_tileseg.widgets.parts.button import theme_icon

if TYPE_CHECKING:
    from qtpy.QtGui import QPaintEvent

__all__ = ["Fold"]


class _Header(QPushButton):
    """A checkable header whose text is elided, never clipped."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.setObjectName("fold")
        self.setCheckable(True)
        self.setIconSize(QSize(10, 10))
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)

    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QStylePainter(self)
        option = QStyleOptionButton()
        self.initStyleOption(option)
        room = self.width() - option.iconSize.width() - 18
        option.text = self.fontMetrics().elidedText(option.text, Qt.TextElideMode.ElideRight, room)
        painter.drawControl(QStyle.ControlElement.CE_PushButton, option)


class Fold(QWidget):
    """A group of fields under one header; folded, its fields take no focus.

    Parameters
    ----------
    title : str
        What is inside, in one word.
    content : QWidget
        The fields.
    """

    toggled = Signal(bool)

    def __init__(self, title: str, content: QWidget, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self.title = title
        self.inside = ""
        self.content = content
        self.header = _Header(self)
        self._theme = "dark"
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.header)
        layout.addWidget(content)
        self.header.toggled.connect(self._turn)
        self._turn(False)

    @property
    def opened(self) -> bool:
        return self.header.isChecked()

    def open(self, opened: bool = True) -> None:
        """Open or close the fold."""
        self.header.setChecked(opened)

    def say(self, inside: str) -> None:
        """Tell in the header what is inside, for when it is folded."""
        self.inside = inside
        self._word()

    def set_theme(self, theme: str) -> None:
        """Take the arrows from another theme."""
        self._theme = theme
        self._word()

    def _turn(self, opened: bool) -> None:
        self.content.setVisible(opened)
        self._word()
        self.toggled.emit(opened)

    def _word(self) -> None:
        text = self.title if self.opened or not self.inside else f"{self.title}: {self.inside}"
        self.header.setText(text)
        self.header.setToolTip(text if not self.opened else "")
        self.header.setIcon(theme_icon(self._theme, "drop_down" if self.opened else "right_arrow"))
        self.header.setAccessibleName(f"{self.title}, {'open' if self.opened else 'folded'}")
        self.header.setAccessibleDescription(self.inside)
