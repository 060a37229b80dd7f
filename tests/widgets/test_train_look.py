"""The Train dock fits at 300 pixels, says its names to screen readers, and follows the theme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from napari.settings import get_settings
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QComboBox, QLabel, QLineEdit, QPushButton, QWidget

from napari_tileseg.widgets.dialogs import TextDialog
from napari_tileseg.widgets.style import icon_color

if TYPE_CHECKING:
    from collections.abc import Callable


def narrow(here: Any, width: int = 300, height: int = 700) -> Any:
    """Take the dock out of the window, at the size it must fit."""
    dock = here.dock
    dock.parentWidget().setFloating(True)
    dock.parentWidget().resize(width, height)
    here.qtbot.wait(100)
    return dock


def visible(dock: QWidget, kind: type) -> list[Any]:
    return [widget for widget in dock.findChildren(kind) if widget.isVisible()]


@pytest.mark.parametrize(("theme", "points", "source"), [("dark", 9, "layers"), ("light", 12, "layers"), ("light", 12, "images")])
def test_nothing_is_clipped(train: Callable[..., Any], theme: str, points: int, source: str) -> None:
    here = train(show=True)
    here.viewer.theme = theme
    get_settings().appearance.font_size = points
    here.open_pairs(3)
    here.until(lambda: len(here.form.pairs.rows) == 3)
    here.form.source.choose(source)
    here.form.tell(("3 images to learn from, 1 to validate on.",), ("The same image is there twice: a, b.",), {"window": [64, 64]})
    dock = narrow(here)
    for fold in here.form.shown_folds.values():
        fold.open()
    here.form.align()
    here.qtbot.wait(100)
    assert dock.width() <= 300
    for label in visible(dock, QLabel):
        if label.text():
            needed = label.heightForWidth(label.width()) if label.wordWrap() else label.sizeHint().height()
            assert label.height() >= needed, f"{label.text()!r} is cut off below"
            if not label.wordWrap():
                assert label.width() >= label.sizeHint().width(), f"{label.text()!r} is cut off at the side"
    for field in [*visible(dock, QLineEdit), *visible(dock, QComboBox)]:
        assert field.height() >= field.fontMetrics().height(), field.accessibleName()
    for field in [*visible(dock, QComboBox), *visible(dock, QLineEdit), *visible(dock, QPushButton)]:
        assert field.accessibleName(), field
    right = dock.mapToGlobal(dock.rect().topRight()).x()
    for widget in visible(dock, QWidget):
        if not widget.isWindow():
            assert widget.mapToGlobal(widget.rect().topRight()).x() <= right, f"{widget} sticks out"
    narrow(here, height=440)
    assert dock.rect().contains(dock.button.geometry()), "the button stays while the form scrolls"
    assert dock.scroller.verticalScrollBar().maximum() > 0, "what does not fit scrolls"


def test_fields_are_wide_before_anything_is_open(train: Callable[..., Any]) -> None:
    here = train(show=True)
    dock = narrow(here)
    assert here.form.source.width() > dock.width() / 2
    assert here.form.source.width() == here.form.name.width()


@pytest.mark.slow
def test_keys_and_theme(train: Callable[..., Any]) -> None:
    here = train(show=True)
    here.open_pairs(3)
    here.until(lambda: len(here.form.pairs.rows) == 3)
    here.make_small(epochs=400)
    here.settle()
    assert not here.dock._cancel_key.isEnabled(), "Esc is napari's while nothing goes on"
    field = here.form.name
    here.dock.window().activateWindow()
    field.setFocus()
    here.until(lambda: QApplication.focusWidget() is field and QApplication.activeWindow() is here.dock.window())
    here.qtbot.wait(100)
    here.qtbot.keyClick(field, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    here.until(lambda: here.session.state.best_epoch)
    for theme in ("light", "dark"):
        here.viewer.theme = theme
        assert here.dock.curves._ink.name() == icon_color(theme)
    here.dock.results.setFocus()
    here.qtbot.keyClick(here.dock.results, Qt.Key.Key_Escape)
    here.until(lambda: not here.session.active)
    assert here.text.startswith("Stopped.")
    here.dock.show_keys()
    dialog = here.dock.findChild(TextDialog)
    assert "stop and keep" in dialog.view.toPlainText()
    dialog.close()


def test_a_row_can_go_and_come_back(train: Callable[..., Any]) -> None:
    here = train(show=True)
    here.open_pairs(2)
    here.until(lambda: len(here.form.pairs.rows) == 2)
    first, remove = here.form.pairs.rows[0]
    gone = first.currentText()
    here.click(remove)
    assert [combo.currentText() for combo, _ in here.form.pairs.rows] == ["field 0 + labels"]
    here.viewer.layers["field 0"].name = "renamed"
    here.qtbot.wait(50)
    assert here.form.pairs.rows[0][0].currentText() == "renamed + field 0_labels", "what was removed stays away"
    here.click(here.form.pairs.add_button)
    assert gone in [combo.currentText() for combo, _ in here.form.pairs.rows]
