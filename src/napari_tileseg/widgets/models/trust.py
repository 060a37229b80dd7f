"""The window that shows what a file would run, before it is trusted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QFontDatabase, QTextCursor
from qtpy.QtWidgets import QDialog, QHBoxLayout, QPlainTextEdit, QPushButton, QVBoxLayout, QWidget

from napari_tileseg.errors import ModelError, TrustError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.checksum import file_sha256
from napari_tileseg.models.trust import revoke, trust
from napari_tileseg.widgets.models.rows import size_words
from napari_tileseg.widgets.parts.fields import Wrapped

if TYPE_CHECKING:
    from napari_tileseg.widgets.models.states import Refusal

__all__ = ["Shown", "TrustDialog", "look_at", "trust_exactly"]

_TEXT = (".py", ".json", ".yaml", ".yml", ".txt")
_MOST = 200_000
"""Most characters of a file that are shown."""


@dataclass(frozen=True)
class Shown:
    """What the user sees of a file before trusting it.

    Parameters
    ----------
    refusal : Refusal
    sha256 : str
        Of exactly the bytes that were looked at.
    size : int
    source : str
        The text of a program; empty where the file is none.
    line : int
        The line that would run first, from 1; 0 if there is none.
    """

    refusal: Refusal
    sha256: str
    size: int
    source: str = ""
    line: int = 0


def look_at(refusal: Refusal) -> Shown:
    """Read a file that waits for trust; nothing of it runs.

    Raises
    ------
    ModelError
        If it cannot be read.
    """
    path = Path(refusal.path)
    digest = file_sha256(path)
    source = ""
    if path.suffix.lower() in _TEXT:
        with path.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(_MOST)
        source = "".join(letter if letter.isprintable() or letter in "\t\n" else "?" for letter in text)
    found = re.search(r"\bline (\d+)", refusal.what)
    return Shown(refusal, digest, path.stat().st_size, source, int(found.group(1)) if found and source else 0)


def trust_exactly(shown: Shown) -> None:
    """Trust a file if it still is what the user has seen.

    Raises
    ------
    TrustError
        If it has changed since.
    ModelError, OutputError
        If it is gone, or trust cannot be remembered.
    """
    path = Path(shown.refusal.path)
    if not path.is_file():
        raise ModelError(f"{shown.refusal.name} is not there any more. Import the model again.")
    for entry in trust(path):
        if entry.sha256 != shown.sha256:
            revoke(entry.sha256)
            raise TrustError(f"{shown.refusal.name} has changed since it was shown, so it is not trusted. Look at it again.", path=path)


class TrustDialog(QDialog):
    """File, line and call that would run, and the two answers; nothing is trusted unless its button is pressed.

    Signals
    -------
    trusted
        The user trusts this file: the `Shown`.
    """

    trusted = Signal(object)

    def __init__(self, shown: Shown, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setModal(False)
        self.shown = shown
        name = shown.refusal.name
        self.setWindowTitle(f"Trust {name}?")
        warning = Wrapped("This file can run any program. Trust only an author you know.")
        facts = Wrapped(
            f"File: {printable(shown.refusal.path, most=400)}\n"
            f"Would run: {printable(shown.refusal.what, most=400)}\n"
            f"Size: {size_words(shown.size)}. SHA-256: {shown.sha256}"
        )
        facts.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        for label, title in ((warning, "Warning"), (facts, "What would run")):
            label.setAccessibleName(title)
        self.view = QPlainTextEdit()
        self.view.setReadOnly(True)
        self.view.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.view.setAccessibleName(f"Content of {name}" if shown.source else "All that would run")
        lines = [printable(finding, most=400) for finding in shown.refusal.findings]
        self.view.setPlainText(shown.source or "\n".join(lines))
        self.view.setVisible(bool(shown.source or lines))
        self.view.setTabChangesFocus(True)
        fixed = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        self.view.setStyleSheet(f'font-family: "{fixed.family()}", monospace;')
        self.yes, self.no = QPushButton("Trust this file"), QPushButton("Do not trust it")
        self.no.setDefault(True)
        self.yes.setAutoDefault(False)
        self.yes.clicked.connect(self._on_yes)
        self.no.clicked.connect(self.close)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.yes)
        row.addWidget(self.no)
        layout = QVBoxLayout(self)
        for widget in (warning, facts, self.view):
            layout.addWidget(widget, 1 if widget is self.view else 0)
        if self.view.isHidden():
            layout.addStretch(1)
        layout.addLayout(row)
        self.resize(560, 420 if shown.source or lines else 220)
        self._show_line()
        self.no.setFocus()

    def _show_line(self) -> None:
        """Mark the line that would run first."""
        document = self.view.document()
        if not self.shown.line or document is None:
            return
        block = document.findBlockByNumber(self.shown.line - 1)
        if block.isValid():
            cursor = QTextCursor(block)
            cursor.select(QTextCursor.SelectionType.LineUnderCursor)
            self.view.setTextCursor(cursor)
            self.view.centerCursor()

    def _on_yes(self) -> None:
        self.trusted.emit(self.shown)
        self.close()
