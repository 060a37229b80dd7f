"""Buttons: the primary one, and icons that follow the theme."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QLabel, QPushButton, QSizePolicy, QWidget

__all__ = ["MainButton", "ThemedIcon", "repolish", "theme_icon", "tinted_icon"]


def theme_icon(theme: str, name: str) -> QIcon:
    """Return one of napari's own icons in the theme's colour."""
    return QIcon(f"theme_{theme}:/{name}.svg")


def tinted_icon(theme: str, name: str, size: QSize, color: str) -> QIcon:
    """Return one of napari's own icons in another colour, in the middle of its place: in a list texts then line up.

    It is drawn for screens of two pixels a point too; without a name it is empty.
    """
    icon = QIcon()
    for ratio in (1, 2):
        pixmap = QPixmap(size * ratio)
        pixmap.fill(Qt.GlobalColor.transparent)
        if name:
            painter = QPainter(pixmap)
            theme_icon(theme, name).paint(painter, pixmap.rect())
            painter.end()
            pixmap = _tinted(pixmap, color)
        pixmap.setDevicePixelRatio(ratio)
        for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected, QIcon.Mode.Disabled):
            icon.addPixmap(pixmap, mode)
    return icon


def repolish(widget: QWidget) -> None:
    """Apply the style sheet again after a property changed."""
    style = widget.style()
    if style is not None:
        style.unpolish(widget)
        style.polish(widget)


class MainButton(QPushButton):
    """The one button that starts, cancels or continues; plain while it cancels."""

    def __init__(self, text: str, parent: QWidget | None = None) -> None:
        super().__init__(text, parent)
        self.setObjectName("main")
        self.setProperty("plain", False)
        self.setAccessibleName(text)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def show_state(self, text: str, *, enabled: bool, primary: bool) -> None:
        """Show another deed."""
        self.setText(text)
        self.setAccessibleName(text)
        self.setEnabled(enabled)
        if bool(self.property("plain")) is primary:
            self.setProperty("plain", not primary)
            repolish(self)


class ThemedIcon(QLabel):
    """A small icon beside a sentence."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._size = QSize(16, 16)
        self.setFixedSize(self._size)

    def show_icon(self, theme: str, name: str, color: str = "") -> None:
        """Show napari's icon `name`, in another colour if one is given: napari's own red cannot be seen on dark."""
        ratio = self.devicePixelRatioF()
        pixmap = theme_icon(theme, name).pixmap(self._size * ratio)
        pixmap.setDevicePixelRatio(ratio)
        self.setPixmap(_tinted(pixmap, color) if color else pixmap)


def _tinted(pixmap: QPixmap, color: str) -> QPixmap:
    """Return the same shape in one colour."""
    painter = QPainter(pixmap)
    painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_SourceIn)
    painter.fillRect(pixmap.rect(), QColor(color))
    painter.end()
    return pixmap
