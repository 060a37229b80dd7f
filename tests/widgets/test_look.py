"""The dock fits, says its name to screen readers, follows theme and font, and passes the keys on that are not its own."""

from __future__ import annotations

import runpy
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from app_model.types import KeyBinding, KeyCode, KeyMod, OperatingSystem
from napari.layers import Image, Labels, Points, Shapes, Surface, Tracks, Vectors
from napari.settings import get_settings
from napari.utils import progress
from napari.utils.key_bindings import coerce_keybinding
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractSpinBox, QApplication, QComboBox, QLabel, QLineEdit, QPushButton, QWidget

from napari_tileseg.widgets import keys, session
from napari_tileseg.widgets.dialogs import TextDialog
from napari_tileseg.widgets.keys import SEGMENT_KEY, named
from napari_tileseg.widgets.states import Phase
from napari_tileseg.widgets.style import sheet_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOISE = np.random.default_rng(1).normal(size=(40, 48)).astype(np.float32)


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
def test_nothing_is_clipped(desk: Callable[..., Any], theme: str, points: int) -> None:
    here = desk(show=True)
    here.viewer.theme = theme
    get_settings().appearance.font_size = points
    here.viewer.add_image(np.stack([NOISE] * 12), name="a rather long name that no dock of three hundred pixels can hold")
    here.dock.form.model.choose("small-classes")
    dock = narrow(here)
    for fold in (dock.form.where_fold, dock.form.options_fold, dock.form.results_fold):
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
        if not widget.isWindow():
            assert widget.mapToGlobal(widget.rect().topRight()).x() <= right, f"{widget} sticks out"
    narrow(here, height=400)
    assert dock.button.isVisible(), "the button stays while the form scrolls"
    assert dock.rect().contains(dock.button.geometry())
    assert dock.scroller.verticalScrollBar().maximum() > 0, "what does not fit scrolls"


def test_there_is_no_scroll_bar_while_there_is_room(desk: Callable[..., Any]) -> None:
    here = desk(show=True)
    here.viewer.add_image(np.stack([NOISE] * 12), name="stack")
    here.dock.form.model.choose("small-classes")
    dock = narrow(here)
    for model in ("nuclei-2d", "small-classes", "nuclei-2d"):
        dock.form.model.choose(model)
        here.until(lambda: not dock.scroller.verticalScrollBar().isVisible())
        here.until(lambda: dock.scroller.height() >= dock.scroller.sizeHint().height())


def test_every_field_has_a_name_and_its_place(desk: Callable[..., Any]) -> None:
    here = desk(show=True)
    here.viewer.add_image(NOISE, name="noise")
    dock = narrow(here)
    for fold in (dock.form.where_fold, dock.form.options_fold, dock.form.results_fold):
        fold.open()
    fields = [*visible(dock, QComboBox), *visible(dock, QLineEdit), *visible(dock, QAbstractSpinBox), *visible(dock, QPushButton)]
    inside_spins = {edit for spin in visible(dock, QAbstractSpinBox) for edit in spin.findChildren(QLineEdit)}
    for field in fields:
        assert field in inside_spins or field.accessibleName(), field
    assert dock.form.options_fold.header.accessibleName() == "Options, open"
    dock.form.options_fold.open(False)
    assert dock.form.options_fold.header.accessibleName() == "Options, folded"
    assert (dock.progress.accessibleName(), dock.message.accessibleName(), dock.box.accessibleName()) == (
        "Progress",
        "Message",
        "What will happen",
    )
    dock.activateWindow()
    dock.form.image.setFocus()
    order = [
        dock.form.image,
        dock.form.model,
        dock.form.card,
        dock.form.axes,
        dock.form.device,
        dock.form.where_fold.header,
        dock.form.region,
    ]
    order += [dock.form.options_fold.header, dock.form.results_fold.header]
    found = [dock.form.image]
    for _ in range(len(order) - 1):
        following = found[-1].nextInFocusChain()
        while not (following.isVisible() and following.isEnabled() and following.focusPolicy() & Qt.FocusPolicy.TabFocus):
            following = following.nextInFocusChain()
        found.append(following)
    assert found == order, [widget.accessibleName() for widget in found]


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_text_is_never_coloured_and_stands_out(theme: str) -> None:
    style = sheet_of(get_theme(theme), 9)
    colours = {line.split("color:")[1].split(";")[0].strip() for line in style.splitlines() if " color:" in line}
    assert colours <= {get_theme(theme).text.as_rgb()}
    text = QColor(*get_theme(theme).text.as_rgb_tuple()[:3])
    for ground in ("foreground", "primary", "current", "background"):
        assert contrast(text, QColor(*getattr(get_theme(theme), ground).as_rgb_tuple()[:3])) >= 3


def contrast(one: QColor, other: QColor) -> float:
    bright = sorted((luminance(one), luminance(other)))
    return (bright[1] + 0.05) / (bright[0] + 0.05)


def luminance(color: QColor) -> float:
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in color.getRgbF()[:3]]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_the_dock_follows_the_theme(desk: Callable[..., Any]) -> None:
    here = desk()
    here.viewer.theme = "dark"
    dark = here.dock.styleSheet()
    here.viewer.theme = "light"
    assert here.dock.styleSheet() != dark
    get_settings().appearance.font_size = 14
    assert "15pt" in here.dock.styleSheet()


def test_the_wheel_scrolls_the_page_and_changes_no_field(desk: Callable[..., Any]) -> None:
    here = desk(show=True)
    here.viewer.add_image(NOISE, name="one")
    here.viewer.add_image(NOISE, name="two")
    combo = here.dock.form.image
    before = combo.currentText()
    here.qtbot.wait(50)
    from qtpy.QtCore import QPoint, QPointF
    from qtpy.QtGui import QWheelEvent

    centre = QPointF(combo.rect().center())
    wheel = QWheelEvent(
        centre,
        QPointF(combo.mapToGlobal(combo.rect().center())),
        QPoint(0, 0),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    here.dock.setFocus()
    QApplication.sendEvent(combo, wheel)
    assert combo.currentText() == before


def test_our_key_is_free_on_every_layer(make_napari_viewer: Any) -> None:
    ours = KeyBinding.from_str(SEGMENT_KEY.replace("Control", "Ctrl").replace("-", "+"))
    viewer = make_napari_viewer()
    taken = {binding for shortcuts in get_settings().shortcuts.shortcuts.values() for binding in shortcuts}
    for layer in (Image, Labels, Points, Shapes, Surface, Tracks, Vectors):
        taken |= {KeyBinding.validate(key) for key in layer.class_keymap}
    taken |= {KeyBinding.validate(key) for key in [*type(viewer).class_keymap, *viewer.keymap]}
    assert ours not in taken


@pytest.mark.parametrize(
    ("platform", "system", "told"), [("darwin", OperatingSystem.MACOS, "Cmd+F"), ("win32", OperatingSystem.WINDOWS, "Ctrl+F")]
)
def test_our_keys_are_those_of_qt_and_napari_on_every_system(
    monkeypatch: pytest.MonkeyPatch, platform: str, system: OperatingSystem, told: str
) -> None:
    """What Qt calls Ctrl is Command on a Mac, and napari binds undo there; "Control" is another key for it."""
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(sys.modules[OperatingSystem.__module__], "_CURRENT", system)
    found = runpy.run_path(str(keys.__file__))
    expected = KeyBinding.from_int(KeyMod.CtrlCmd | KeyMod.Shift | KeyCode.KeyG)
    assert coerce_keybinding(found["SEGMENT_KEY"]) == expected
    assert found["named"]("Ctrl+F") == told


def test_the_key_segments_the_active_image(desk: Callable[..., Any]) -> None:
    here = desk()
    one = here.viewer.add_image(NOISE, name="one")
    here.viewer.add_image(NOISE, name="two")
    here.dock.form.model.choose("small-classes")
    here.viewer.layers.selection.active = one
    here.dock.form.model.choose("small-classes")
    bound = {KeyBinding.validate(key): function for key, function in here.viewer.keymap.items()}
    bound[coerce_keybinding(SEGMENT_KEY)](here.viewer)
    here.wait_for(Phase.DONE)
    assert here.labels.name == "one_small-classes"


def test_keys_in_the_dock(desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_CALM", 0.0)
    stand_in(pause=1, gate=tmp_path / "gate")
    here = desk(show=True)
    here.viewer.add_image(NOISE, name="one")
    here.dock.form.model.choose("small-classes")
    axes = here.dock.form.axes
    here.dock.window().activateWindow()
    axes.setFocus()
    here.until(lambda: QApplication.focusWidget() is axes and QApplication.activeWindow() is here.dock.window())
    here.qtbot.wait(100)  # the window system has its own pace
    assert not here.dock._cancel_key.isEnabled(), "Esc is napari's while nothing runs"
    here.qtbot.keyClick(axes, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    here.until(lambda: here.session.result is not None and here.session.result.shown)
    axes.setFocus()
    here.qtbot.keyClick(axes, Qt.Key.Key_Escape)
    here.wait_for(Phase.CANCELLED)
    assert not here.dock._cancel_key.isEnabled()
    axes.clear()
    here.qtbot.keyClicks(axes, "? Y X")
    assert axes.text() == "? Y X", "a field keeps the keys that write"


def test_keys_card_and_details_are_shown_beside_the_dock(desk: Callable[..., Any]) -> None:
    here = desk(show=True)
    here.viewer.add_image(NOISE, name="one")
    here.dock.form.card.click()
    here.dock.deeds.show_keys()
    here.dock.deeds.show_details()
    dialogs = here.dock.findChildren(TextDialog)
    assert [dialog.windowTitle() for dialog in dialogs] == [here.dock.spec.label, "Keys", "Details"]
    assert not any(dialog.isModal() for dialog in dialogs)
    assert named("Ctrl+Shift+G") in dialogs[1].view.toPlainText()
    assert here.dock.spec.licence in dialogs[0].view.toPlainText()
    for dialog in dialogs:
        here.qtbot.mouseClick(dialog.buttons["Close"], Qt.MouseButton.LeftButton)


def test_progress_is_in_the_activity_dock_and_goes_away(desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path) -> None:
    stand_in(pause=1, gate=tmp_path / "gate")
    here = desk()
    here.viewer.add_image(NOISE, name="one")
    here.dock.form.model.choose("small-classes")
    here.click()
    here.until(lambda: here.session.result is not None and here.session.result.shown)
    assert any("one with small-classes" in str(bar.desc) for bar in progress._all_instances)
    (tmp_path / "gate").touch()
    here.wait_for(Phase.DONE)
    assert not any("one with small-classes" in str(bar.desc) for bar in progress._all_instances)


def test_a_notification_only_where_the_dock_is_hidden(desk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(session, "show_info", told.append)
    here = desk(show=True)
    here.viewer.add_image(NOISE, name="one")
    here.dock.form.model.choose("small-classes")
    here.run()
    assert told == []
    here.dock.parentWidget().hide()
    here.dock.segment()
    here.wait_for(Phase.DONE)
    assert len(told) == 1
    assert told[0].startswith("one: ")


SCRIPT = """
    import os, sys, time
    import napari, numpy as np
    from napari.settings import get_settings
    from qtpy.QtWidgets import QApplication

    def main():
        viewer = napari.Viewer(show=False)
        _, dock = viewer.window.add_plugin_dock_widget("napari-tileseg", "Segment")
        assert "torch" not in sys.modules, "opening the dock imports torch"
        viewer.add_image(np.random.default_rng(1).normal(size=(40, 48)), name="noise")
        dock.form.model.choose("small-classes")
        dock.segment()
        end = time.monotonic() + 300
        while dock.session.active and time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.01)
        assert dock.session.state.phase.value == "done", dock.session.state
        heavy = {name for name in ("torch", "monai") if name in sys.modules}
        assert not heavy, f"a run imports {heavy} into napari's process"
        viewer.close()

    if __name__ == "__main__":
        main()
"""


def test_napari_itself_never_imports_torch(tmp_path: Any) -> None:
    script = tmp_path / "open_the_dock.py"
    script.write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
