"""The Batch dock fits, says its name to screen readers, follows the theme, and its table stays quick with thousands of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from napari.settings import get_settings
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QComboBox, QLabel, QLineEdit, QPushButton, QWidget

from napari_tileseg.batch.events import TaskEnded, TaskProgress, TaskStarted
from napari_tileseg.widgets.batch.rows import Row, glyph, state_words
from napari_tileseg.widgets.batch.table import FileTable, FileView
from napari_tileseg.widgets.dialogs import TextDialog
from napari_tileseg.widgets.states import Phase
from napari_tileseg.widgets.style import icon_color

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def narrow(here: Any, width: int = 300, height: int = 700) -> Any:
    """Take the dock out of the window, at the size it must fit."""
    dock = here.dock
    dock.parentWidget().setFloating(True)
    dock.parentWidget().resize(width, height)
    here.qtbot.wait(100)
    return dock


def visible(dock: QWidget, kind: type) -> list[Any]:
    return [widget for widget in dock.findChildren(kind) if widget.isVisible()]


@pytest.mark.parametrize("points", [9, 12])
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_clipped(batch: Callable[..., Any], folder: Path, settings_file: Path, theme: str, points: int) -> None:
    here = batch(show=True)
    here.viewer.theme = theme
    get_settings().appearance.font_size = points
    here.use(folder, settings_file)
    dock = narrow(here)
    for fold in here.form.folds:
        fold.open()
    here.qtbot.wait(100)
    assert dock.width() <= 300
    for label in visible(dock, QLabel):
        if label.text():
            needed = label.heightForWidth(label.width()) if label.wordWrap() else label.sizeHint().height()
            assert label.height() >= needed, f"{label.text()!r} is cut off below"
            if not label.wordWrap():
                assert label.width() >= label.sizeHint().width(), f"{label.text()!r} is cut off at the side"
    for field in [*visible(dock, QLineEdit), *visible(dock, QComboBox), *visible(dock, QAbstractSpinBox)]:
        assert field.height() >= field.fontMetrics().height(), field.accessibleName()
    right = dock.mapToGlobal(dock.rect().topRight()).x()
    for widget in visible(dock, QWidget):
        if not widget.isWindow() and not dock.files.isAncestorOf(widget):
            assert widget.mapToGlobal(widget.rect().topRight()).x() <= right, f"{widget} sticks out"
    narrow(here, height=440)
    assert dock.rect().contains(dock.button.geometry()), "the button stays while the form scrolls"
    assert dock.scroller.verticalScrollBar().maximum() > 0, "what does not fit scrolls"


def test_every_field_has_a_name_and_its_place(batch: Callable[..., Any], folder: Path, settings_file: Path) -> None:
    here = batch(show=True)
    here.use(folder, settings_file)
    dock = narrow(here)
    for fold in here.form.folds:
        fold.open()
    inside_spins = {edit for spin in visible(dock, QAbstractSpinBox) for edit in spin.findChildren(QLineEdit)}
    for field in [*visible(dock, QComboBox), *visible(dock, QLineEdit), *visible(dock, QAbstractSpinBox), *visible(dock, QPushButton)]:
        assert field in inside_spins or field.accessibleName(), field
    names = [widget.accessibleName() for widget in (dock.progress, dock.message, dock.box, dock.about_row, dock.files, dock.shown)]
    assert names == ["Progress", "Message", "What will happen", "About the selected file", "Files of the batch", "Show"]
    for fold in here.form.folds:
        fold.open(False)
    dock.activateWindow()
    form = here.form
    order = [form.images, form.browse_images, form.pattern, form.recursive, form.settings, form.output, form.browse_output, form.format]
    order += [*(fold.header for fold in form.folds), dock.button, dock.shown, dock.files]
    found: list[Any] = [form.images]
    for _ in range(len(order) - 1):
        following = found[-1].nextInFocusChain()
        while not (following.isVisible() and following.isEnabled() and following.focusPolicy() & Qt.FocusPolicy.TabFocus):
            following = following.nextInFocusChain()
        found.append(following)
    assert found == order, [widget.accessibleName() for widget in found]


def test_keys_in_the_dock(batch: Callable[..., Any], folder: Path, settings_file: Path) -> None:
    here = batch(show=True)
    here.use(folder, settings_file)
    field = here.form.pattern
    here.dock.window().activateWindow()
    field.setFocus()
    here.until(lambda: QApplication.focusWidget() is field and QApplication.activeWindow() is here.dock.window())
    here.qtbot.wait(100)  # the window system has its own pace
    assert not here.dock._cancel_key.isEnabled(), "Esc is napari's while nothing runs"
    here.qtbot.keyClick(field, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    here.until(lambda: here.over() >= 1)
    here.dock.files.setFocus()
    here.qtbot.keyClick(here.dock.files, Qt.Key.Key_Escape)
    here.finish(Phase.CANCELLED, Phase.DONE)
    here.dock.deeds.show_keys()
    dialog = here.dock.findChild(TextDialog)
    assert "Up, Down" in dialog.view.toPlainText()
    dialog.close()


def test_the_dock_follows_the_theme(batch: Callable[..., Any], folder: Path, settings_file: Path) -> None:
    here = batch(show=True)
    here.use(folder, settings_file)
    here.start()
    here.finish()
    for theme in ("light", "dark"):
        here.viewer.theme = theme
        table = here.session.table
        icon = table.data(table.index(0, 0), Qt.ItemDataRole.DecorationRole)
        image = icon.pixmap(14, 14).toImage()
        inked = {image.pixelColor(x, y).name() for x in range(14) for y in range(14) if image.pixelColor(x, y).alpha() == 255}
        assert inked <= {icon_color(theme)}
        assert table.data(table.index(0, 0), Qt.ItemDataRole.ForegroundRole) is None, "text is never coloured"
    get_settings().appearance.font_size = 14
    assert "15pt" in here.dock.styleSheet()


def test_thousands_of_rows(qtbot: Any) -> None:
    table = FileTable()
    view = FileView(table)
    qtbot.addWidget(view)
    view.show()
    count = 20_000
    table.fill([Row(f"file{number:05d}.tif") for number in range(count)], idle=False)
    told: list[tuple[int, int]] = []
    table.dataChanged.connect(lambda first, last: told.append((first.row(), last.row())))
    for number in range(0, 5000):
        table.hear(TaskStarted(number, "x"))
        table.hear(TaskEnded(number, "x", "done", counts={"blob": 3}, instances=True, seconds=0.2))
    table.hear(TaskProgress(7000, 3, 12))
    assert not told, "nothing is painted for every file"
    table.flush()
    assert told == [(0, 4999), (7000, 7000)]
    assert table.counts() == {"": count, "done": 5000, "running": 1, "waiting": count - 5001}
    view.show_state("running")
    assert view.model().rowCount() == 1
    assert view.model().index(0, 1).data() == "3 of 12 tiles"
    view.show_state("")
    view.choose(4321)
    assert view.number == 4321


@pytest.mark.parametrize(
    ("row", "words", "icon"),
    [
        (Row("a"), "waiting", ""),
        (Row("a", "running", done=5, total=12), "5 of 12 tiles", "right_arrow"),
        (Row("a", "running"), "running", "right_arrow"),
        (Row("a", "done", counts={"nucleus": 86}, instances=True, seconds=2.9), "86 objects, 2.9 s", "check"),
        (Row("a", "done", counts={"one": 5, "two": 0}, seconds=61), "1 class, 61 s", "check"),
        (Row("a", "done", message="Too dark."), "0 classes, 0 s", "warning"),
        (Row("a", "done", before=True), "done before", "long_right_arrow"),
        (Row("a", "skipped"), "skipped", "long_right_arrow"),
        (Row("a", "failed"), "failed", "error"),
        (Row("a", "failed", again=True), "failed, will be retried", "error"),
    ],
)
def test_words_and_icons_of_a_row(row: Row, words: str, icon: str) -> None:
    assert state_words(row) == words
    assert glyph(row) == icon


def test_what_is_ready_and_what_will_fail() -> None:
    assert state_words(Row("a"), idle=True) == "ready"
    assert state_words(Row("a", message="It is no image."), idle=True) == "will fail"
