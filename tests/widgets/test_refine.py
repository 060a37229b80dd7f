"""The Refine dock as a user meets it: tools with the mouse, keys, messages, layers that come and go."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from app_model.types import KeyBinding
from napari.layers import Image, Labels, Points, Shapes, Surface, Tracks, Vectors
from napari.settings import get_settings
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import Qt
from refine_desk import blobs

from napari_tileseg.errors import Cancelled
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.objects import remove
from napari_tileseg.refine.scope import Scope
from napari_tileseg.widgets.refine import RefineWidget
from napari_tileseg.widgets.refine.cleaning import CLEANINGS, would
from napari_tileseg.widgets.refine.tools import TOOLS
from napari_tileseg.widgets.regions import zoom_of
from napari_tileseg.widgets.states import Action

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.widgets.refine.cleaning import Cleaning


def test_without_labels_it_says_where_they_come_from(refine: Callable[..., Any]) -> None:
    here = refine()
    assert here.text == "No labels layer."
    assert not here.dock.button.isEnabled()
    assert not here.form.tools["merge"].isEnabled()
    here.follow(Action.SEGMENT)
    assert any("Segment" in name for name in here.viewer.window.dock_widgets)


def test_merging_by_clicks_and_by_a_line(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs())
    here.tool("merge")
    here.click(10, 20)
    assert "joins" in here.text or "join" in here.text
    here.click(10, 10)
    assert set(np.unique(here.data)) == {0, 2, 3, 4}, "the first that was clicked keeps its number"
    here.click(30, 10)
    assert set(np.unique(here.data)) == {0, 2, 4}
    assert here.layer.metadata["tileseg"]["edits"] == {"merge": 2}
    here.press("Control-Z")
    here.press("Control-Z")
    here.drag([(8, 8), (9, 12), (10, 20)])
    assert set(np.unique(here.data)) == {0, 1, 3, 4}
    here.drag([(50, 70), (52, 72), (55, 75)])
    assert "touches no object" in here.text


def test_splitting_by_seeds_and_by_a_line(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs())
    here.tool("split")
    here.click(29, 8)
    assert "another seed in object 3" in here.text
    here.click(29, 40)
    assert len(np.unique(here.data)) == 6
    assert here.data[29, 8] != here.data[29, 40]
    here.drag([(2, 10), (10, 10), (18, 10)])
    assert here.data[10, 7] != here.data[10, 13]
    assert here.layer.metadata["tileseg"]["edits"] == {"split": 2}


def test_removing_and_filling(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs())
    here.tool("fill")
    here.click(42, 42)
    assert (here.data[40:55, 40:55] == 4).all()
    here.tool("remove")
    here.click(10, 10)
    assert 1 not in here.data
    here.click(0, 0)
    assert "no object there" in here.text


def test_wand_and_outline_find_what_is_in_the_image(refine: Callable[..., Any]) -> None:
    here = refine()
    image = np.zeros((60, 80), np.float32)
    image[20:30, 60:75] = 100
    here.viewer.add_image(image, name="image")
    here.add(blobs(), name="image_labels")
    assert here.session.image is not None
    here.tool("wand")
    assert here.form.tolerance.isVisibleTo(here.dock)
    assert here.form.tolerance.value() == 15
    here.click(25, 67)
    assert (here.data[20:30, 60:75] == 5).all(), here.text
    assert (here.data == 5).sum() == 150
    here.press("Control-Z")
    here.tool("outline")
    here.drag([(18, 58), (18, 76), (32, 77), (31, 58)])
    found, wanted = here.data > 4, image > 0
    assert (found & wanted).sum() / (found | wanted).sum() > 0.85, here.text


def test_the_wand_does_not_run_away_and_says_where_it_stopped(refine: Callable[..., Any]) -> None:
    here = refine()
    here.viewer.add_image(np.zeros((60, 80), np.float32), name="image", contrast_limits=(0, 100), scale=(2, 2), units="um")
    here.add(blobs(), scale=(2, 2), units="um")
    here.tool("wand")
    assert here.form.reach.suffix() == " µm"
    here.click(50, 65)
    radius = 1.5 * float(np.sqrt(np.median([100, 100, 320, 200]) * 4 / np.pi))
    assert here.form.reach.value() == round(radius), "a little more than the usual object"
    y, x = np.mgrid[:60, :80]
    round_one = ((y - 50) ** 2 + (x - 65) ** 2) * 4 <= round(radius) ** 2
    np.testing.assert_array_equal(here.data == 5, round_one & (blobs() == 0))
    assert "beyond the reach" in here.text
    here.press("Control-Z")
    here.form.reach.setValue(0)
    here.click(50, 65)
    assert (here.data > 4).sum() == np.count_nonzero(blobs() == 0) - 25, "without a limit all the background outside of the ring"
    assert "reach" not in here.text


def test_a_dock_that_is_opened_again_has_the_wand_as_it_was(refine: Callable[..., Any]) -> None:
    here = refine()
    here.viewer.add_image(np.zeros((60, 80), np.float32), name="image", contrast_limits=(0, 100), scale=(0.5, 0.5), units="um")
    here.add(blobs(), scale=(0.5, 0.5), units="um")
    here.form.reach.setValue(4)
    here.form.tolerance.setValue(33)
    other = RefineWidget(here.viewer)
    here.viewer.window.add_dock_widget(other, name="Refine once more")
    assert (other.form.reach.value(), other.form.tolerance.value(), other.form.reach.suffix()) == (4, 33, " µm")
    other.form.act_on.choose("slice")
    assert (here.session.deeds.reach, here.session.deeds.tolerance) == (4, 33)


def test_dragging_the_wand_changes_the_tolerance(refine: Callable[..., Any]) -> None:
    here = refine()
    image = np.zeros((60, 80), np.float32)
    image[20:35, 55:76] = 60
    image[24:31, 60:70] = 100
    here.viewer.add_image(image, name="image")
    here.add(blobs(), name="image_labels")
    here.tool("wand")
    here.form.reach.setValue(30)
    wide = 80 / zoom_of(here.viewer)  # doubles it
    seen: list[tuple[int, str]] = []

    def look() -> None:
        layer = here.session.marks.layer
        seen.append((len(layer.data) if layer is not None else 0, here.text))

    here.session.changed.connect(look)
    here.drag([(27, 65), (27, 65 + wide), (27, 65 + 2 * wide)])
    here.session.changed.disconnect(look)
    assert any(count > 20 and "pixels. Let go" in text for count, text in seen), "it shows what would be painted"
    assert (here.data == 5).sum() == 15 * 21, f"60 is as far as 40 from 100: {here.text}"
    assert here.form.tolerance.value() == 60 == round(here.session.deeds.tolerance)
    assert not len(here.session.marks.layer.data)
    here.press("Control-Z")
    here.drag([(27, 65), (27, 65 - 4 * wide)])
    assert (here.data > 4).sum() == 7 * 10, here.text
    here.press("Control-Z")
    here.drag([(8, 8), (8, 8 + wide)])
    assert "there already" in here.text


def test_slices_between_painted_ones_are_filled(refine: Callable[..., Any]) -> None:
    here = refine()
    labels = np.zeros((9, 40, 40), np.uint8)
    labels[1, 10:20, 10:20] = 1
    labels[7, 14:24, 14:24] = 1
    here.add(labels)
    here.viewer.dims.set_point(0, 1)
    here.tool("slices")
    here.click(1, 15, 15)
    assert all((here.data[z] == 1).any() for z in range(1, 8)), here.text
    assert not here.data[0].any()
    assert not here.data[8].any()


def test_a_tool_is_put_away_by_its_button_and_by_napari(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs())
    here.tool("merge")
    assert here.form.tools["merge"].isChecked()
    assert not here.layer.mouse_pan
    assert "refine marks" in here.viewer.layers
    assert here.viewer.layers.selection.active is here.layer
    here.tool("merge")
    assert not here.form.tools["merge"].isChecked()
    assert here.layer.mouse_pan
    assert len(here.viewer.layers) == 1
    here.tool("remove")
    here.layer.mode = "paint"
    assert not here.session.state.tool
    assert not here.form.tools["remove"].isChecked()


def test_keys_take_tools_up_and_escape_puts_them_away(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs())
    for tool in [tool for tool in TOOLS if tool.key]:
        here.press(tool.key)
        assert here.session.state.tool == tool.name
    here.press("G")
    here.click(10, 10)
    here.press("Escape")
    assert here.session.state.tool == "merge", "Escape drops what was clicked first"
    here.press("Escape")
    assert here.session.state.tool == ""
    assert coerce_keybinding("Escape") not in here.layer.keymap


def test_our_keys_are_free_on_labels(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    taken = {KeyBinding.validate(str(binding)) for shortcuts in get_settings().shortcuts.shortcuts.values() for binding in shortcuts}
    for layer in (Image, Labels, Points, Shapes, Surface, Tracks, Vectors):
        taken |= {KeyBinding.validate(str(key)) for key in layer.class_keymap}
    taken |= {KeyBinding.validate(str(key)) for key in [*type(viewer).class_keymap, *viewer.keymap]}
    ours = [tool.key for tool in TOOLS if tool.key]
    assert ours == ["G", "K", "Q", "H", "W", "U"]
    for key in ours:
        assert coerce_keybinding(key) not in taken, key
    assert coerce_keybinding("Control-Z") in Labels.class_keymap, "this one we take over on purpose"


def test_keys_go_with_the_layer(refine: Callable[..., Any]) -> None:
    here = refine()
    one = here.add(blobs(), name="one")
    two = here.add(blobs(), name="two")
    assert here.session.labels is two
    assert coerce_keybinding("G") not in one.keymap
    here.form.labels.choose(one)
    assert here.session.labels is one
    assert coerce_keybinding("G") in one.keymap
    assert coerce_keybinding("G") not in two.keymap


def test_a_locked_layer_cannot_be_corrected(refine: Callable[..., Any]) -> None:
    here = refine()
    layer = here.add(blobs())
    layer.editable = False
    assert "locked" in here.text
    assert not here.form.tools["merge"].isEnabled()
    layer.editable = True
    assert here.form.tools["merge"].isEnabled()
    assert "locked" not in here.text


@pytest.mark.parametrize("kind", ["readonly", "dask"])
def test_labels_that_can_only_be_read(refine: Callable[..., Any], kind: str) -> None:
    here = refine()
    labels: Any = blobs()
    if kind == "readonly":
        labels.flags.writeable = False
    else:
        import dask.array

        labels = dask.array.from_array(labels)
    here.add(labels)
    assert "can only be read" in here.text
    assert not here.form.tools["remove"].isEnabled()


def test_renamed_and_deleted_layers(refine: Callable[..., Any]) -> None:
    here = refine()
    one = here.add(blobs(), name="one")
    here.tool("remove")
    one.name = "other"
    here.until(lambda: here.form.labels.currentText() == "other")
    assert here.session.labels is one
    here.viewer.layers.remove(one)
    here.until(lambda: here.session.labels is None)
    assert here.text == "No labels layer."
    here.add(blobs(), name="new")
    assert here.session.labels is not None
    assert not here.session.state.tool


def test_numbers_that_do_not_fit_are_told(refine: Callable[..., Any]) -> None:
    here = refine()
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(4, 0).repeat(4, 1)
    here.add(labels)
    here.tool("split")
    here.click(10, 8)
    here.click(11, 11)
    assert "uint8" in here.text
    np.testing.assert_array_equal(here.data, labels)


@pytest.mark.slow
def test_in_three_dimensions_objects_can_be_clicked_but_not_seeds(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs((4, 60, 80)))
    here.viewer.dims.ndisplay = 3
    here.tool("remove")
    here.click(0, 10, 10)
    assert 1 not in here.data, here.text
    here.tool("split")
    here.click(0, 10, 20)
    assert "2D" in here.text


def test_time_points_are_corrected_one_by_one(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs((3, 60, 80)), axis_labels=("t", "y", "x"))
    here.viewer.dims.set_point(0, 1)
    here.tool("remove")
    here.click(1, 10, 10)
    assert 1 in here.data[0]
    assert 1 not in here.data[1]
    assert 1 in here.data[2]
    here.form.act_on.choose("volume")
    here.click(1, 10, 20)
    assert 2 not in here.data


@pytest.mark.slow
def test_two_docks_show_the_same(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs())
    other = refine(viewer=here.viewer)
    assert other.session is here.session
    other.tool("remove")
    assert here.form.tools["remove"].isChecked()


def test_clean_up_says_first_what_it_would_do(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs(), scale=(0.5, 0.5), units=("um", "um"))
    cleanup = next(fold for fold in here.dock.folds if fold.title == "Clean up")
    cleanup.open()
    assert cleanup.unit.text() == "µm²"
    cleanup.amount.setValue(30)
    here.until(lambda: cleanup.note.text() == "Would remove 2 of 4 objects.")
    assert set(np.unique(here.data)) == {0, 1, 2, 3, 4}, "nothing was done yet"
    here.qtbot.mouseClick(cleanup.apply, Qt.MouseButton.LeftButton)
    here.settle()
    assert set(np.unique(here.data)) == {0, 3, 4}
    assert here.text == "Removed 2 of 4 objects."
    assert here.layer.metadata["tileseg"]["edits"] == {"remove": 1}
    here.press("Control-Z")
    np.testing.assert_array_equal(here.data, blobs())


@pytest.mark.parametrize("cleaning", CLEANINGS, ids=lambda item: item.name)
def test_every_cleaning_works_or_says_why_not(cleaning: Cleaning) -> None:
    """All entries of Do are called as their functions want it."""
    labels = blobs()
    labels[57:59, 2:4] = 1  # a second part
    image = np.where(blobs() > 0, 100.0, 0.0) + np.random.default_rng(0).normal(size=labels.shape)
    canvas = Canvas(labels)
    scope = Scope.selection([3], ()) if cleaning.name == "grow_region" else Scope.volume()
    edit = cleaning.make(canvas, scope, 2.0, image, lambda: False)
    assert would(edit).startswith("Would"), edit.note
    if edit:
        canvas.apply(edit)
        canvas.revert(edit)
    np.testing.assert_array_equal(labels[:55], blobs()[:55])


def test_a_slow_tool_can_be_cancelled(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs())
    began, seen = threading.Event(), threading.Event()

    def slow(cancelled: Any) -> Edit:
        began.set()
        while not cancelled():
            time.sleep(0.005)
        seen.set()
        raise Cancelled("stopped")

    here.session.run("Smoothing", slow)
    assert began.wait(10)
    assert here.dock.button.text() == "Cancel"
    assert here.dock.progress.isVisibleTo(here.dock)
    assert not here.form.tools["merge"].isEnabled()
    here.qtbot.mouseClick(here.dock.button, Qt.MouseButton.LeftButton)
    assert seen.wait(10)
    assert here.text == "Cancelled. Nothing was changed."
    assert here.form.tools["merge"].isEnabled()


def test_what_was_computed_of_older_labels_is_not_done(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs())
    made, go = threading.Event(), threading.Event()

    def slow(cancelled: Any) -> Edit:
        edit = remove(here.session.work.canvas, 1)
        made.set()
        assert go.wait(10)
        return edit

    here.session.run("Removing", slow)
    assert made.wait(10)
    here.paint([(10, 10)], 7)
    after = here.data.copy()
    go.set()
    here.settle()
    assert "changed since" in here.text
    np.testing.assert_array_equal(here.data, after)
