"""The card of a model may come from a stranger: it is text, whatever it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QUrl
from qtpy.QtGui import QDesktopServices, QTextDocument
from qtpy.QtWidgets import QMessageBox, QTextBrowser

from napari_tileseg.widgets.dialogs import TextDialog

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from pytestqt.qtbot import QtBot

CARD = """# A model

<b>bold</b> <script>alert(1)</script> <img src="file:///etc/hostname"> <a href="file:///etc/hostname">look</a>

![picture](PICTURE) [web](https://example.org) [file](file:///etc/hostname)
"""


def test_html_in_a_card_is_shown_as_text_and_nothing_is_fetched(qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    dialog = TextDialog("A model", CARD.replace("PICTURE", picture.as_uri()), markdown=True)
    qtbot.addWidget(dialog)
    view = dialog.view
    assert isinstance(view, QTextBrowser)
    assert "<script>alert(1)</script>" in view.toPlainText()
    assert "<b>bold</b>" in view.toPlainText()
    assert view.loadResource(QTextDocument.ResourceType.ImageResource.value, QUrl(picture.as_uri())) is None
    opened: list[str] = []
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda address: opened.append(address.toString()))
    asked: list[str] = []
    answers = [QMessageBox.StandardButton.Cancel, QMessageBox.StandardButton.Open]

    def answer(question: QMessageBox) -> object:
        asked.append(question.text())
        return answers.pop(0)

    monkeypatch.setattr(QMessageBox, "exec", answer)
    for address in ("file:///etc/hostname", "https://example.com/no", "https://example.org", "javascript:alert(1)"):
        view.anchorClicked.emit(QUrl(address))
    assert asked == ["https://example.com/no", "https://example.org"], "the web is asked for by its whole address, all else is not opened"
    assert opened == ["https://example.org"]
    assert "A model" in view.toPlainText()
