"""The Refine dock fits, in both themes, and every field has a name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.settings import get_settings
from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QLabel, QLineEdit, QPushButton, QWidget
from refine_desk import blobs

from napari_tileseg.widgets.refine.cleaning import CLEANINGS
from napari_tileseg.widgets.refine.states import Refine, counted, view
from napari_tileseg.widgets.states import Action, Message

if TYPE_CHECKING:
    from collections.abc import Callable


def visible(dock: QWidget, kind: type) -> list[Any]:
    return [widget for widget in dock.findChildren(kind) if widget.isVisible()]


@pytest.mark.parametrize(("theme", "points"), [pytest.param("dark", 9, marks=pytest.mark.slow), ("light", 12)])
def test_nothing_is_clipped(refine: Callable[..., Any], theme: str, points: int) -> None:
    here = refine(show=True)
    here.viewer.theme = theme
    get_settings().appearance.font_size = points
    name = "a rather long name that no dock of three hundred pixels can hold"
    here.viewer.add_image(np.zeros((60, 80), np.float32), name=name)
    here.add(blobs(), name=f"{name}_nuclei-2d", scale=(0.5, 0.5), units=("um", "um"))
    dock = here.dock
    dock.parentWidget().setFloating(True)
    dock.parentWidget().resize(300, 768)
    here.tool("split")
    here.click(29, 8)
    for fold in dock.folds:
        fold.open()
    here.qtbot.wait(400)
    assert dock.width() <= 300
    for label in visible(dock, QLabel):
        if label.text():
            needed = label.heightForWidth(label.width()) if label.wordWrap() else label.sizeHint().height()
            assert label.height() >= needed, f"{label.text()!r} is cut off below"
            if not label.wordWrap():
                assert label.width() >= label.sizeHint().width(), f"{label.text()!r} is cut off at the side"
    for button in visible(dock, QPushButton):
        if button.objectName() in ("tool", "main"):
            assert button.width() >= button.fontMetrics().horizontalAdvance(button.text()) + 4, button.text()
    for field in [*visible(dock, QLineEdit), *visible(dock, QComboBox), *visible(dock, QAbstractSpinBox)]:
        assert field.height() >= field.fontMetrics().height(), field.accessibleName()
    right = dock.mapToGlobal(dock.rect().topRight()).x()
    for widget in visible(dock, QWidget):
        if not widget.isWindow():
            assert widget.mapToGlobal(widget.rect().topRight()).x() <= right, f"{widget} sticks out"
    inside = {edit for spin in visible(dock, QAbstractSpinBox) for edit in spin.findChildren(QLineEdit)}
    fields = [*visible(dock, QComboBox), *visible(dock, QLineEdit), *visible(dock, QAbstractSpinBox), *visible(dock, QPushButton)]
    for field in fields:
        assert field in inside or field.accessibleName(), field
    assert dock.rect().contains(dock.button.geometry())


def test_every_state_has_its_words() -> None:
    none = view(Refine())
    assert none.message == Message("info", "No labels layer.", (Action.SEGMENT,))
    assert not none.pressable
    assert view(Refine(labels="a", locked="Locked.")).message == Message("info", "Locked.")
    large = view(Refine(labels="a", large=True))
    assert large.message is not None
    assert large.message.links == (Action.EDIT,)
    assert not large.tools
    held = view(Refine(labels="a", tool="split"))
    assert held.message is not None
    assert held.message.text == "Split: click two seeds in one object, or draw a line through it."
    assert view(Refine(labels="a", edits=12, kept=4.2)).note == "12 edits, kept 4 s ago."
    assert view(Refine(labels="a", edits=1)).note == "1 edit, not kept yet."
    assert view(Refine(labels="a", edits=1, keeps=False)).note == "1 edit, in the file."
    recovered = view(Refine(recovered=12)).message
    assert recovered == Message("warning", "12 edits were recovered.", (Action.KEEP, Action.DISCARD))
    busy = view(Refine(labels="a", busy="Smoothing"))
    assert (busy.button, busy.tools, busy.pressable) == ("Cancel", False, True)
    window = view(Refine(labels="a", window=True, told=Message("done", "Removed 1 object.")))
    assert window.message is not None
    assert window.message.links == (Action.PUT_BACK,)


def test_counts_of_tools_go_down_again() -> None:
    counts = counted(counted({"merge": 1}, "paint", 1), "merge", -1)
    assert counts == {"paint": 1}


def test_no_field_loses_its_width_when_others_are_hidden(refine: Callable[..., Any]) -> None:
    here = refine(show=True)
    here.add(blobs())
    fold = next(fold for fold in here.dock.folds if fold.title == "Clean up")
    fold.open()
    for cleaning in CLEANINGS:
        assert fold.what.choose(cleaning.name)
        here.qtbot.wait(20)
        assert min(fold.what.width(), fold.where.width()) > 100, cleaning.name
    for tool in ("", *here.form.tools):
        here.form.show_tool(tool)
        here.qtbot.wait(20)
        shown = [field for field in (here.form.act_on, here.form.tolerance, here.form.reach, here.form.split_by) if field.isVisible()]
        assert min(field.width() for field in shown) > 100, tool
