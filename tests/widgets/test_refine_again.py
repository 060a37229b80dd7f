"""Scores again and Here again in the Refine dock, with real models: sliders, looks, steps, runs in a part of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import Qt
from refine_desk import blobs

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.registry import find_spec
from napari_tileseg.pipeline import segment
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.volume import Volume
from napari_tileseg.widgets.refine.kept import kept_scores
from napari_tileseg.widgets.refine.place import place_of
from napari_tileseg.widgets.refine.preview import is_preview
from napari_tileseg.widgets.states import Action

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


CLASSES = {
    "small-classes": ["background", "left", "right"],
    "small-regions": ["background", "whole", "core"],
    "small-anomaly": ["normal", "anomaly"],
}


def noise(shape: tuple[int, ...], seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def made(here: Any, model: str, image: NDArray[Any], axes: str, **options: Any) -> Any:
    """Put the labels of a model with their scores into the viewer, as a run leaves them; return the segmentation."""

    found = segment(Volume.from_scale(image, axes, (1.0,) * image.ndim), model, options=SegmentOptions(scores=True, **options))
    told = {**found.provenance, "run": {"finished": "now"}}
    here.viewer.add_image(image, name="image")
    raw = np.asarray(found.scores)
    alone = model == "small-anomaly"
    kept = {"tileseg": told, "classes": ["score"] if alone else []}
    here.viewer.add_image(raw[0] if alone else raw, name="image_scores_of_it", rgb=False, metadata=kept)
    sigmoid = found.labels.ndim == image.ndim + 1
    labels = np.asarray(found.labels[1] if sigmoid else found.labels)
    more = {"features": {"index": [0, 1], "class": ["", "two"]}} if sigmoid else {}
    if model in CLASSES:
        more = {"features": {"index": range(len(CLASSES[model])), "class": CLASSES[model]}}
    here.add(labels.astype(np.int32) if not sigmoid else labels.astype(np.uint8), name="result", metadata={"tileseg": told}, **more)
    return found


def fold(here: Any, title: str) -> Any:
    (found,) = [fold for fold in here.dock.folds if fold.title == title]
    found.open()
    return found


def slide(here: Any, scores: Any, *steps: int) -> None:
    """Drag the slider of the threshold and hold it."""
    scores.threshold.slider.setSliderDown(True)
    for step in steps:
        scores.threshold.slider.setValue(step)
        here.until(lambda: not scores._soon.isActive())


def let_go(here: Any, scores: Any) -> None:
    scores.threshold.slider.setSliderDown(False)  # tells that it was released
    here.settle()
    here.until(lambda: not scores._deciding)


def previews(here: Any) -> list[Any]:
    """Return the looks that are seen; a layer that is not may stay for the next one."""
    return [layer for layer in here.viewer.layers if is_preview(layer) and layer.visible]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "shape", "axes", "step"),
    [
        ("small-objects", (60, 70), "YX", 51),
        ("small-masks", (60, 70), "YX", 47),
        ("small-objects", (3, 40, 48), "ZYX", 51),
        ("small-regions", (60, 70), "YX", 47),
        ("small-anomaly", (60, 70), "YX", 46),
        ("small-anomaly", (2, 40, 48), "TYX", 46),
        ("small-stars", (60, 70), "YX", 41),
    ],
)
def test_the_threshold_gives_what_the_model_would_have_given(
    refine: Callable[..., Any], model: str, shape: tuple[int, ...], axes: str, step: int
) -> None:
    here = refine()
    image = noise(shape)
    made(here, model, image, axes)
    before = here.data.copy()
    scores = fold(here, "Scores")
    assert scores.kept is not None, scores.note.text()
    assert not scores.kept.trouble
    slide(here, scores, 55, step)
    assert len(previews(here)) == 1
    assert not here.layer.visible
    assert here.session.labels is here.layer is here.form.labels.value, "a look is no labels to work on"
    np.testing.assert_array_equal(here.data, before, err_msg="nothing is changed while the slider moves")
    let_go(here, scores)
    assert previews(here) == []
    assert here.layer.visible
    wanted = segment(Volume.from_scale(image, axes, (1.0,) * image.ndim), model, options=SegmentOptions(threshold=step / 100)).labels
    wanted = np.asarray(wanted[1] if model == "small-masks" else wanted)
    assert wanted.any(), "otherwise nothing is looked at"
    np.testing.assert_array_equal(*((here.data, wanted) if model in CLASSES else (here.data > 0, wanted > 0)))
    assert len(np.unique(here.data)) == len(np.unique(wanted)), "as many objects"
    assert ("the model's own limit" in scores.note.text()) is (model == "small-anomaly")
    assert here.session.state.edits == 1
    here.press("Control-Z")
    np.testing.assert_array_equal(here.data, before)
    assert scores.values[0] == 0.5, "the slider goes back with the step"
    here.press("Control-Shift-Z")
    assert scores.values[0] == step / 100
    np.testing.assert_array_equal(here.data > 0, wanted > 0)


@pytest.mark.slow
def test_classes_at_the_odds_of_a_threshold(refine: Callable[..., Any]) -> None:
    here = refine()
    found = made(here, "small-classes", noise((40, 50)), "YX")
    scores = fold(here, "Scores")
    slide(here, scores, 90)
    let_go(here, scores)
    raw = np.asarray(found.scores).copy()
    raw[0] += np.log(9.0)
    np.testing.assert_array_equal(here.data, raw.argmax(axis=0))


def test_what_the_model_leaves_out_in_any_case_is_said(refine: Callable[..., Any]) -> None:
    here = refine()
    image = noise((40, 50))
    made(here, "small-anomaly", image, "YX")
    scores = fold(here, "Scores")
    assert "in any case" not in scores.note.text()
    scores.kept.spec.decoder_parameters["min_size"] = 20.0
    try:
        scores._look()
        assert "Parts of less than 20 pixels go in any case." in scores.note.text()
    finally:
        del scores.kept.spec.decoder_parameters["min_size"]
    scores.least.number.setValue(4)
    here.until(lambda: not scores._pause.isActive())
    let_go(here, scores)
    assert here.text.endswith("at threshold 0.5, from 4 pixels on.")


def test_going_back_to_where_it_was_is_no_step(refine: Callable[..., Any]) -> None:
    here = refine()
    made(here, "small-objects", noise((40, 50)), "YX")
    scores = fold(here, "Scores")
    slide(here, scores, 60, 50)
    let_go(here, scores)
    assert here.session.state.edits == 0
    assert previews(here) == []
    assert here.layer.visible


def test_seeds_are_marked_beside_scores_which_have_an_axis_more(refine: Callable[..., Any]) -> None:
    here = refine()
    here.viewer.add_image(np.zeros((3, 60, 80), np.float32), name="scores")
    here.add(blobs())
    here.tool("split")
    here.click(29, 8)
    assert here.session.marks.layer.data.shape == (2, 2, 2)
    here.click(29, 40)
    assert here.data[29, 8] != here.data[29, 40]


@pytest.mark.slow
def test_small_objects_go(refine: Callable[..., Any]) -> None:
    here = refine()
    made(here, "small-objects", noise((60, 70)), "YX")
    sizes = np.bincount(here.data.ravel())[1:]
    scores = fold(here, "Scores")
    scores.least.number.setValue(float(np.median(sizes)) + 1)
    scores.settle()
    here.settle()
    here.until(lambda: here.session.state.edits == 1)
    left = np.bincount(here.data.ravel())[1:]
    assert left[left > 0].min() >= np.median(sizes) + 1


@pytest.mark.slow
def test_without_scores_it_offers_to_run_again(refine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    here = refine()
    image = noise((40, 50))
    found = segment(Volume.from_scale(image, "YX", (1.0, 1.0), name="image"), "small-objects")
    here.viewer.add_image(image, name="image")
    here.add(np.asarray(found.labels), name="result", metadata={"tileseg": found.provenance})
    scores = fold(here, "Scores")
    assert scores.note.text() == "No scores were kept."
    assert not scores.threshold.isVisibleTo(here.dock)
    orders: list[Any] = []
    monkeypatch.setattr(here.session.segment, "start", orders.append)
    here.qtbot.mouseClick(scores.links.buttons[Action.AGAIN_SCORES], Qt.MouseButton.LeftButton)
    assert orders[0].job.options.scores
    assert orders[0].job.model == "small-objects"
    here.add(blobs(), name="drawn")
    here.qtbot.mouseClick(scores.links.buttons[Action.AGAIN_SCORES], Qt.MouseButton.LeftButton)
    assert "do not say how they were made" in here.text


@pytest.mark.slow
def test_scores_of_another_run_are_not_taken(refine: Callable[..., Any]) -> None:
    here = refine()
    made(here, "small-objects", noise((40, 50)), "YX")
    other = Labels(np.zeros((40, 50), np.int32), name="other", metadata={"tileseg": {"model": {"name": "x"}, "run": {"finished": "then"}}})
    assert kept_scores(other, here.viewer.layers) is None
    assert kept_scores(here.layer, here.viewer.layers) is not None


@pytest.mark.slow
def test_closing_the_fold_ends_the_look(refine: Callable[..., Any]) -> None:
    here = refine()
    made(here, "small-objects", noise((40, 50)), "YX")
    scores = fold(here, "Scores")
    slide(here, scores, 70)
    assert previews(here)
    scores.open(False)
    assert previews(here) == []
    assert here.layer.visible
    assert here.session.state.edits == 0


def test_a_rectangle_is_segmented_again_as_one_step(refine: Callable[..., Any]) -> None:
    here = refine()
    image = noise((96, 96))
    made(here, "small-objects", image, "YX")
    before = here.data.copy()
    here.viewer.add_shapes([np.array([[30, 30], [30, 69], [59, 69], [59, 30]])], shape_type="rectangle")
    here.viewer.layers.selection.active = here.layer
    here.session.attempt(lambda: _wiped(here.session.work.canvas))
    assert not here.data.any()
    again = fold(here, "Here again")
    assert again.spec.name == "small-objects"
    again.where.choose("rectangles")
    here.qtbot.mouseClick(again.button, Qt.MouseButton.LeftButton)
    assert "Segmenting 30 × 40 pixels again" in here.session.state.busy, here.text
    here.settle()
    assert "in the box" in here.text
    inner = here.data[30:60, 30:70]
    assert inner.any()
    assert ((inner > 0) == (before[30:60, 30:70] > 0)).mean() > 0.8, "much the same: other tiles were looked at"
    assert np.count_nonzero(here.data) == np.count_nonzero(inner), "nothing outside of it"
    assert here.layer.metadata["tileseg"]["edits"]["again"] == 1
    here.press("Control-Z")
    assert not here.data.any()


def _wiped(canvas: Any) -> Any:
    from napari_tileseg.refine.objects import remove
    from napari_tileseg.refine.scope import Scope

    return remove(canvas, Scope())


@pytest.mark.slow
def test_what_stands_in_the_way_is_said(refine: Callable[..., Any]) -> None:
    here = refine()
    made(here, "small-classes", noise((40, 50)), "YX")
    again = fold(here, "Here again")
    again.where.choose("rectangles")
    again.press()
    assert "No Shapes layer" in here.text
    assert "Visible part" in here.text
    again.model.choose("small-objects")
    again.press()
    assert "are classes" in here.text
    here.viewer.layers.remove("image")
    here.viewer.layers.remove("image_scores_of_it")
    again.press()
    assert "No image" in here.text


@pytest.mark.slow
def test_the_button_among_the_tools_opens_the_fold(refine: Callable[..., Any]) -> None:
    here = refine()
    here.add(blobs())
    again = next(item for item in here.dock.folds if item.title == "Here again")
    button = next(button for button in here.form.grid.findChildren(type(again.button)) if button.text() == "Here again")
    here.qtbot.mouseClick(button, Qt.MouseButton.LeftButton)
    assert again.opened


def test_the_place_has_context_and_keeps_to_the_time_point() -> None:
    spec = find_spec("small-objects")
    axis_map = map_axes("TYX", (4, 100, 120), spec)
    canvas = Canvas(np.zeros((4, 100, 120), np.uint16), space=(1, 2))
    place = place_of(canvas, axis_map, ((0, 4), (0, 30), (50, 80)), (32, 32), at=(2, 0, 0))
    assert place.inner == (slice(2, 3), slice(0, 30), slice(50, 80))
    assert place.box == (slice(2, 3), slice(0, 38), slice(42, 88))
    assert place.region == ((2, 3), (0, 38), (42, 88))
    with pytest.raises(Exception, match="Choose the image"):
        place_of(Canvas(np.zeros((5, 5), np.uint8)), axis_map, ((0, 5), (0, 5)), (32, 32))
