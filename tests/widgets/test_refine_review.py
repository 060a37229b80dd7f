"""Review and Objects in the Refine dock: orders, steps from object to object, marks, the table that selects with the layer."""

from __future__ import annotations

import csv
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from app_model.types import KeyBinding
from napari.layers import Image, Labels
from napari.settings import get_settings
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import Qt
from refine_desk import blobs

from napari_tileseg.refine.objects import merge, remove
from napari_tileseg.widgets.refine.checks import check_of, checks, mark
from napari_tileseg.widgets.refine.gaze import middle
from napari_tileseg.widgets.refine.table import words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fold(here: Any, title: str) -> Any:
    """Open a fold with the mouse, and wait until the objects are measured."""
    (found,) = [fold for fold in here.dock.folds if fold.title == title]
    if not found.opened:
        here.qtbot.mouseClick(found.header, Qt.MouseButton.LeftButton)
    if here.session.work is not None:
        here.until(lambda: here.session.sheets.sheet is not None and not here.session.sheets.measuring)
    return found


def measured(here: Any) -> None:
    here.until(lambda: not here.session.sheets.measuring)


def cells(found: Any, name: str) -> list[str]:
    column = found.table.names.index(name)
    return [found.table.data(found.table.index(row, column)) for row in range(found.table.rowCount())]


@pytest.mark.slow
def test_the_table_tells_sizes_places_and_intensities_in_the_units_of_the_image(refine: Callable[..., Any]) -> None:
    here = refine()
    labels = blobs()
    here.viewer.add_image(labels * 10.0, name="cells", scale=(0.5, 0.5), units=("um", "um"))
    here.add(labels, name="cells_blobs", scale=(0.5, 0.5), units=("um", "um"))
    objects = fold(here, "Objects")
    assert cells(objects, "label") == ["1", "2", "3", "4"]
    assert cells(objects, "area [µm²]") == ["25", "25", "80", "50"]
    assert cells(objects, "centre Y [µm]")[:2] == ["4.75", "4.75"]
    assert cells(objects, "mean") == ["10", "20", "30", "40"]
    assert cells(objects, "box")[0] == "5-14 5-14"
    assert objects.header.text() == "Objects"
    objects.open(False)
    assert objects.header.text() == "Objects: 4"


@pytest.mark.slow
def test_shapes_are_measured_where_they_are_seen(refine: Callable[..., Any]) -> None:
    here = refine(show=True)
    here.add(blobs())
    objects = fold(here, "Objects")
    assert not here.session.sheets.sheet.shaped(0) or here.session.sheets.sheet.shape(0)
    assert "" in cells(objects, "solidity")
    here.until(lambda: all(cells(objects, "solidity")))
    assert cells(objects, "solidity")[:3] == ["1", "1", "1"]
    assert float(cells(objects, "solidity")[3]) < 1


@pytest.mark.slow
def test_a_click_on_a_heading_orders_the_rows(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs())
    objects = fold(here, "Objects")
    objects.view.heading.emit("area [px²]", True)
    assert cells(objects, "label") == ["3", "4", "1", "2"]
    objects.view.heading.emit("eccentricity", True)
    here.until(lambda: objects.table.sorted_by == ("eccentricity", True))
    assert cells(objects, "label")[0] == "3"
    assert objects.note.text() == ""


def test_rows_and_the_layer_select_each_other(refine: Callable[..., Any]) -> None:
    here = refine()
    layer = here.add(blobs())
    objects = fold(here, "Objects")
    objects.view.selectRow(2)
    assert layer.selected_label == 3
    assert here.session.selected_ids() == [3]
    layer.selected_label = 2
    assert objects.view.selected() == [2]
    assert here.session.selected_ids() == [2]
    objects.view.choose([1, 4])
    objects.view.chosen.emit([1, 4])
    assert here.session.selection == (1, 4)
    objects.view.heading.emit("label", True)
    assert set(objects.view.selected()) == {1, 4}, "what is selected stays selected in another order"
    layer.selected_label = 3
    assert here.session.selection == (), "the label that was picked in the layer counts"


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(60, 80), (3, 60, 80)])
def test_only_what_changed_is_measured_again(refine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]) -> None:
    here = refine()
    here.add(blobs(shape))
    objects = fold(here, "Objects")
    name = here.session.sheets.sheet.size_name
    import napari_tileseg.measure.sheet as module

    read: list[tuple[int, ...]] = []
    gather = module.gather
    monkeypatch.setattr(module, "gather", lambda labels, *rest, **more: (read.append(labels.shape), gather(labels, *rest, **more))[1])
    canvas = here.session.work.canvas
    here.session.attempt(lambda: merge(canvas, [1, 2]))
    here.session.attempt(lambda: remove(canvas, [4]))
    measured(here)
    assert cells(objects, "label") == ["1", "3"]
    assert read and all(size[-2:] == (10, 20) for size in read), "nothing but the box of the object that changed"
    assert cells(objects, name)[0] == str(200 * int(np.prod(shape[:-2])))
    here.session.undo()
    measured(here)
    assert cells(objects, "label") == ["1", "3", "4"]
    here.layer.selected_label = 1
    here.layer.paint((1,) * (len(shape) - 2) + (20, 60), 7)
    measured(here)
    assert cells(objects, "label")[-1] == "7", "napari's own brush is noticed"


@pytest.mark.slow
def test_the_table_shows_the_time_point_in_view(refine: Callable[..., Any]) -> None:
    here = refine()
    movie = np.stack([blobs(), np.where(blobs() > 2, blobs(), 0)])
    here.add(movie, axis_labels=("t", "y", "x"))
    here.viewer.dims.set_point(0, 0)
    objects = fold(here, "Objects")
    measured(here)
    assert cells(objects, "label") == ["1", "2", "3", "4"]
    here.viewer.dims.set_point(0, 1)
    measured(here)
    here.until(lambda: objects.table.rowCount() == 2)
    assert cells(objects, "label") == ["3", "4"]


@pytest.mark.slow
def test_export_writes_all_time_points_with_marks(refine: Callable[..., Any], tmp_path: Path) -> None:
    here = refine()
    movie = np.stack([blobs(), np.where(blobs() > 2, blobs(), 0)])
    layer = here.add(movie, axis_labels=("t", "y", "x"))
    objects = fold(here, "Objects")
    mark(layer, {3: "accepted", 1: "rejected"})
    objects.write(tmp_path / "objects.csv")
    here.until(lambda: "Exported" in here.text)
    with (tmp_path / "objects.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["t"], row["label"], row["checked"]) for row in rows] == [
        ("0", "1", "rejected"),
        ("0", "2", ""),
        ("0", "3", "accepted"),
        ("0", "4", ""),
        ("1", "3", "accepted"),
        ("1", "4", ""),
    ]
    assert rows[0]["area [px²]"] == "100"
    assert float(rows[3]["solidity"]) < 1


@pytest.mark.slow
def test_a_hundred_thousand_objects_do_not_hold_the_window_up(refine: Callable[..., Any]) -> None:
    here = refine()
    labels = np.zeros((1600, 1600), np.int32)
    grid = np.arange(1, 320 * 320 + 1).reshape(320, 320)
    for row in range(3):
        labels[row::5, ::5] = labels[row::5, 1::5] = grid
    here.add(labels)
    objects = fold(here, "Objects")
    assert objects.table.rowCount() == 102_400
    start = time.perf_counter()
    objects.view.heading.emit("area [px²]", True)
    objects.view.selectRow(50_000)
    here.layer.selected_label = 99_999
    objects.view.grab()
    assert time.perf_counter() - start < 2.0, "a second is what a busy machine may take; it is some ten milliseconds"


# -- review ------------------------------------------------------------------------------------------------------------


def test_next_goes_through_the_order_and_past_what_is_checked(refine: Callable[..., Any]) -> None:
    here = refine()
    layer = here.add(blobs())
    review = fold(here, "Review")
    review.order.choose("largest")
    here.until(lambda: bool(review._ranks))
    seen = []
    for _ in range(3):
        here.press("N")
        seen.append(layer.selected_label)
    assert seen == [3, 4, 1]
    here.press("Shift-N")
    assert layer.selected_label == 4
    here.press("J")
    assert check_of(layer, 4) == "accepted"
    assert layer.selected_label == 1, "accepting goes on to the next one"
    here.press("Shift-J")
    assert check_of(layer, 1) == "rejected"
    here.press("N")
    here.press("N")
    assert layer.selected_label == 2, "what is checked is passed over"
    assert "2 of 4 checked" in review.note.text()
    review.open(False)
    assert review.header.text() == "Review: 2 of 4 checked"
    assert layer.metadata["tileseg"]["checked"] == {"accepted": 1, "rejected": 1}


@pytest.mark.slow
def test_the_view_comes_near_to_the_object(refine: Callable[..., Any]) -> None:
    here = refine(show=True)
    volume = np.zeros((20, 60, 80), np.uint16)
    volume[3:9, 5:15, 5:15] = 1
    volume[12:18, 40:50, 60:70] = 2
    here.add(volume, scale=(2, 1, 1))
    review = fold(here, "Review")
    review.order.choose("number")
    here.press("N")
    here.press("N")
    assert here.layer.selected_label == 2
    step = here.viewer.dims.point[0]
    assert 24 <= step <= 34
    camera = getattr(here.viewer, "scene", here.viewer).camera
    assert np.allclose(camera.center[-2:], (44.5, 64.5))


def test_the_slice_that_shows_most_of_an_object_is_looked_at() -> None:
    from napari_tileseg.refine.canvas import Canvas

    volume = np.zeros((9, 20, 20), np.uint8)
    volume[1:8, 5, 5] = 1
    volume[2, 3:12, 3:12] = 1
    canvas = Canvas(volume)
    assert middle(canvas, 1, canvas.index.box(1), [1, 2])[0] == 2


@pytest.mark.slow
def test_the_same_mark_again_takes_it_back_and_fix_is_kept(refine: Callable[..., Any]) -> None:
    here = refine()
    layer = here.add(blobs())
    review = fold(here, "Review")
    layer.selected_label = 2
    here.qtbot.mouseClick(review.fix, Qt.MouseButton.LeftButton)
    assert checks(layer) == {2: "fix"}
    layer.selected_label = 2
    here.qtbot.mouseClick(review.fix, Qt.MouseButton.LeftButton)
    assert checks(layer) == {}
    assert "checked" not in layer.metadata["tileseg"]
    layer.selected_label = 77
    here.press("J")
    assert "Choose an object first" in review.note.text()
    assert checks(layer) == {}


@pytest.mark.slow
def test_rejected_objects_are_removed_in_one_step(refine: Callable[..., Any]) -> None:
    here = refine()
    layer = here.add(blobs())
    review = fold(here, "Review")
    mark(layer, {1: "rejected", 3: "rejected", 2: "accepted"})
    assert review.clear.text() == "Remove 2 rejected"
    here.qtbot.mouseClick(review.clear, Qt.MouseButton.LeftButton)
    here.settle()
    assert set(np.unique(here.data)) == {0, 2, 4}
    here.session.undo()
    assert set(np.unique(here.data)) == {0, 1, 2, 3, 4}


@pytest.mark.slow
def test_orders_by_disagreement_and_by_odd_shapes(refine: Callable[..., Any]) -> None:
    here = refine()
    other = blobs()
    other[5:15, 15:25] = 0
    here.viewer.add_labels(other, name="other")
    here.add(blobs(), name="mine")
    review = fold(here, "Review")
    review.order.choose("disagreement")
    here.until(lambda: bool(review._ranks))
    assert review._ranks[0] == 2
    here.press("N")
    assert "overlap 0" in review.note.text()
    review.order.choose("odd")
    here.until(lambda: bool(review._ranks))
    assert review._ranks[0] in (3, 4), "a long bar and a ring among squares"
    review.order.choose("uncertain")
    assert "No scores were kept" in review.note.text()


@pytest.mark.slow
def test_the_map_of_uncertainty_gives_an_order(refine: Callable[..., Any]) -> None:
    here = refine()
    unsure = np.zeros((60, 80), np.float32)
    unsure[25:33, 5:45] = 0.9
    unsure[5:15, 5:15] = 0.5
    here.viewer.add_image(unsure, name="mine_uncertainty")
    here.add(blobs(), name="mine")
    review = fold(here, "Review")
    here.until(lambda: bool(review._ranks))
    assert review._ranks[:2] == [3, 1]


@pytest.mark.slow
def test_marks_stand_in_the_layers_table_beside_what_is_there(refine: Callable[..., Any]) -> None:
    here = refine()
    layer = here.add(blobs(), features={"index": [0, 1, 2], "class": ["background", "cell", "cell"]})
    mark(layer, {2: "accepted"})
    mark(layer, {4: "fix"})
    mark(layer, {2: "rejected"})
    table = layer.features
    assert table["index"].tolist() == [0, 1, 2, 4]
    assert table["check"].tolist() == ["", "", "rejected", "fix"]
    assert table["class"].tolist() == ["background", "cell", "cell", ""]
    objects = fold(here, "Objects")
    assert cells(objects, "class") == ["cell", "cell", "", ""]
    assert cells(objects, "check") == ["", "rejected", "", "fix"]


@pytest.mark.slow
def test_without_labels_the_folds_say_nothing_and_their_keys_do_nothing(refine: Callable[..., Any]) -> None:
    here = refine()
    for title in ("Review", "Objects"):
        found = fold(here, title)
        assert found.note.text() == ""
    (review,) = [item for item in here.dock.folds if item.title == "Review"]
    review.go_on()
    review.say_of("accepted")
    assert not review.next.isEnabled()


def test_keys_of_the_review_are_free_on_labels(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer()
    taken = {KeyBinding.validate(str(binding)) for shortcuts in get_settings().shortcuts.shortcuts.values() for binding in shortcuts}
    for layer in (Image, Labels):
        taken |= {KeyBinding.validate(str(key)) for key in layer.class_keymap}
    taken |= {KeyBinding.validate(str(key)) for key in [*type(viewer).class_keymap, *viewer.keymap]}
    for key in ("N", "Shift-N", "J", "Shift-J"):
        assert coerce_keybinding(key) not in taken, key


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("label", 12, "12"), ("area [µm²]", 12.3456, "12.35"), ("mean", np.nan, ""), ("mean", 1.5e-6, "1.500e-06"), ("class", "cell", "cell")],
)
def test_cells_in_words(name: str, value: Any, told: str) -> None:
    assert words(name, value) == told
