"""Windows beside the dock: the model's card, the details of a run, the keys. None of them is modal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QUrl, Signal
from qtpy.QtGui import QDesktopServices, QTextDocument
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QHBoxLayout,
    QMessageBox,
    QPlainTextEdit,
    QPushButton,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["KEYS", "TextDialog", "copy_text"]

KEYS = (
    ("Ctrl+Shift+G", "segment the active image, from anywhere in the viewer"),
    ("Ctrl+Enter", "press the big button"),
    ("Esc", "cancel, while a run goes on"),
    ("?", "these keys"),
)


class _Page(QTextBrowser):
    """Markdown of authors who may be strangers: no HTML, no pictures from anywhere, links to the web only, and those ask."""

    def __init__(self) -> None:
        super().__init__()
        self.setOpenLinks(False)
        self.anchorClicked.connect(self._open)

    def loadResource(self, kind: int, name: QUrl) -> None:
        """Load nothing that a card names: neither files of this computer nor of others."""

    def _open(self, address: QUrl) -> None:
        if address.scheme() not in ("http", "https"):
            return
        place = address.toString(QUrl.ComponentFormattingOption.FullyEncoded)  # the text of a link may name another place
        buttons = QMessageBox.StandardButton
        question = QMessageBox(QMessageBox.Icon.Question, "Open in the browser?", place, buttons.Open | buttons.Cancel, self)
        question.setTextFormat(Qt.TextFormat.PlainText)
        if question.exec() == buttons.Open:
            QDesktopServices.openUrl(address)


class TextDialog(QDialog):
    """Text to read and to copy, with a few deeds below it.

    Parameters
    ----------
    title : str
    text : str
        Markdown, or plain text.
    markdown : bool
    deeds : sequence of str
        Texts of the buttons; `chosen` tells which was pressed.
    """

    chosen = Signal(str)

    def __init__(self, title: str, text: str, *, markdown: bool = False, deeds: Sequence[str] = (), parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(title)
        self.setModal(False)
        self.view: QTextBrowser | QPlainTextEdit
        if markdown:
            self.view = _Page()
            features = QTextDocument.MarkdownFeature
            page = self.view.document()
            assert page is not None  # every browser has one
            page.setMarkdown(text, features.MarkdownDialectGitHub | features.MarkdownNoHTML)
        else:
            self.view = QPlainTextEdit()
            self.view.setReadOnly(True)
            self.view.setPlainText(text)
        self.view.setAccessibleName(title)
        layout = QVBoxLayout(self)
        layout.addWidget(self.view)
        row = QHBoxLayout()
        row.addStretch(1)
        self.buttons: dict[str, QPushButton] = {}
        for deed in (*deeds, "Close"):
            button = QPushButton(deed)
            button.clicked.connect(self._press)
            row.addWidget(button)
            self.buttons[deed] = button
        layout.addLayout(row)
        self.resize(520, 480)

    def _press(self) -> None:
        sender = self.sender()
        if isinstance(sender, QPushButton):
            if sender.text() == "Close":
                self.close()
            else:
                self.chosen.emit(sender.text())


def copy_text(text: str) -> None:
    """Put text on the clipboard."""
    clipboard = QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)
