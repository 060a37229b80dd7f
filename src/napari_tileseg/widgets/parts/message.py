"""Sentences: the box that says what will happen, and the message with its next steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QPushButton, QSizePolicy, QVBoxLayout, QWidget
from superqt import QFlowLayout

from napari_tileseg.widgets.parts.button import ThemedIcon, repolish
from napari_tileseg.widgets.parts.fields import Note, Wrapped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.widgets.states import Action, Message

__all__ = ["Box", "Links", "MessageBox"]

_ICONS = {"info": "info", "done": "check", "warning": "warning", "error": "error"}


class Links(QWidget):
    """Links in a row that wraps."""

    chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self._flow = QFlowLayout(self)
        self._flow.setContentsMargins(0, 0, 0, 0)
        self._flow.setHorizontalSpacing(12)
        self._flow.setVerticalSpacing(2)
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.shown: tuple[Action, ...] = ()
        self.buttons: dict[Action, QPushButton] = {}

    def show_links(self, actions: Sequence[Action]) -> None:
        """Show these links and no others."""
        if tuple(actions) == self.shown:
            return
        for button in self.buttons.values():
            self._flow.removeWidget(button)
            button.hide()
            button.deleteLater()
        self.shown, self.buttons = tuple(actions), {}
        for action in actions:
            button = QPushButton(action.value, self)
            button.setObjectName("link")
            button.setAccessibleName(action.value)
            button.setCursor(Qt.CursorShape.PointingHandCursor)
            button.clicked.connect(lambda _checked=False, chosen=action: self.chosen.emit(chosen))
            self._flow.addWidget(button)
            self.buttons[action] = button
        self.setVisible(bool(actions))
        self.updateGeometry()


class Box(QFrame):
    """A quiet box with a few small sentences, and links where something can be done about them."""

    chosen = Signal(object)

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("box")
        self.setAccessibleName(name)
        self.label = Note()
        self.label.setAccessibleName(name)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 5, 8, 5)
        layout.setSpacing(3)
        self.links = Links()
        self.links.chosen.connect(self.chosen)
        self.links.hide()
        layout.addWidget(self.label)
        layout.addWidget(self.links)

    def say(self, text: str, links: Sequence[Action] = ()) -> None:
        """Show another text, and other links."""
        self.links.show_links(links)
        if text != self.label.text():
            self.label.setText(text)
            self.setAccessibleDescription(text)
            self.updateGeometry()


class MessageBox(QFrame):
    """An icon, a sentence, links; the left edge tells what kind it is."""

    chosen = Signal(object)

    def __init__(self, name: str = "Message", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("message")
        self.setAccessibleName(name)
        self.icon = ThemedIcon()
        self.text = Wrapped()
        self.text.setAccessibleName(name)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.links = Links()
        self.links.chosen.connect(self.chosen)
        self._theme, self._color = "dark", ""
        self.shown: Message | None = None
        right = QVBoxLayout()
        right.setContentsMargins(0, 0, 0, 0)
        right.setSpacing(3)
        right.addWidget(self.text)
        right.addWidget(self.links)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(8, 5, 6, 5)
        layout.setSpacing(8)
        layout.addWidget(self.icon, 0, Qt.AlignmentFlag.AlignTop)
        layout.addLayout(right, 1)
        self.hide()

    def show_message(self, message: Message | None) -> None:
        """Show a message, or nothing."""
        if message == self.shown:
            return
        self.shown = message
        self.setVisible(message is not None)
        if message is None:
            return
        self.text.setText(message.text)
        self.setAccessibleDescription(message.text)
        self.links.show_links(message.links)
        self.setProperty("kind", message.kind)
        repolish(self)
        self._draw()
        self.updateGeometry()

    def minimumSizeHint(self) -> QSize:
        # As tall as it is at its width: what layouts guess for sentences and links that wrap is far more.
        layout = self.layout()
        return QSize(0, layout.totalHeightForWidth(self.width()) if layout is not None else 0)

    def set_theme(self, theme: str, color: str) -> None:
        """Take the icon from another theme, in its icon colour."""
        self._theme, self._color = theme, color
        self._draw()

    def _draw(self) -> None:
        if self.shown is not None:
            self.icon.show_icon(self._theme, _ICONS[self.shown.kind], self._color)
