"""A run's way through the dock: filled live, cancelled, carried on, killed, unloaded, its layers renamed and removed."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from napari_tileseg.widgets import bridge, session
from napari_tileseg.widgets.segment import SegmentWidget, dock_of
from napari_tileseg.widgets.states import Action, Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOISE = np.random.default_rng(1).normal(size=(112, 48)).astype(np.float32)
"""6 x 2 tiles of the small models."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


def opened(desk: Callable[..., Any], data: Any = NOISE, model: str = "small-classes", **meta: Any) -> Any:
    """Open an image and choose a model."""
    here = desk()
    here.viewer.add_image(data, name=meta.pop("name", "noise"), **meta)
    assert here.dock.form.model.choose(model)
    return here


def paused(here: Any) -> None:
    """Press Segment and wait until the run has filled something in and stands still."""
    here.click()
    here.until(lambda: here.session.result is not None and here.session.result.shown)


def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Cancel work from the first moment."""
    monkeypatch.setattr(session, "_CALM", 0.0)


def reference(here: Any) -> Any:
    """What the same run gives in one go, in this process."""
    from napari_tileseg.pipeline import segment

    order = here.session.order
    return segment(order.volume, order.job.model, options=order.job.options, region=order.job.region, channels=order.job.channels).labels


def test_the_layer_fills_while_the_run_goes_on_and_is_locked(
    desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_CALM", 1e6)
    stand_in(pause=2, gate=tmp_path / "gate")
    here = opened(desk)
    paused(here)
    layer = here.labels
    assert layer.data.any(), "something is there already"
    assert not layer.data[-16:].any(), "but not all of it"
    assert not layer.editable
    layer.data = layer.data  # napari makes a layer editable when its data is set
    assert not layer.editable
    assert layer.mode == "pan_zoom"
    assert here.dock.button.text() == "Cancel"
    assert here.box == "noise with small-classes. Changes apply to the next run."
    here.click()
    assert here.session.active, "a second click in the first moments does not cancel"
    (tmp_path / "gate").touch()
    here.wait_for(Phase.DONE)
    assert layer.editable
    assert not isinstance(layer.data, np.memmap), "the scratch file is let go"
    np.testing.assert_array_equal(layer.data, reference(here))


def test_cancel_keeps_what_is_done_and_continue_finishes_it(
    desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(monkeypatch)
    stand_in(pause=2, gate=tmp_path / "gate")
    here = opened(desk)
    paused(here)
    layer = here.labels
    here.click()
    assert here.dock.button.text() == "Cancelling..."
    assert not here.dock.button.isEnabled()
    here.wait_for(Phase.CANCELLED)
    done, total = here.session.state.done, here.session.state.total
    assert 0 < done < total == 12
    assert here.text == f"Cancelled. {done} of {total} tiles are in the layer."
    assert here.dock.button.text() == "Continue"
    assert layer.editable
    part = np.array(layer.data)
    assert part.any()

    (tmp_path / "gate").touch()
    here.click()
    assert not layer.editable
    here.wait_for(Phase.DONE)
    assert here.labels is layer, "it is the same layer"
    whole = reference(here)
    np.testing.assert_array_equal(layer.data, whole)
    np.testing.assert_array_equal(part[:16], whole[:16], err_msg="what was there was right already")


@pytest.mark.slow
def test_start_again_and_remove_layer(
    desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(monkeypatch)
    stand_in(pause=2, gate=tmp_path / "gate")
    here = opened(desk)
    paused(here)
    here.click()
    here.wait_for(Phase.CANCELLED)
    first = here.labels
    here.follow(Action.AGAIN)
    assert first not in here.viewer.layers
    here.until(lambda: here.session.result is not None and here.session.result.shown)
    here.click()
    here.wait_for(Phase.CANCELLED)
    here.follow(Action.REMOVE)
    assert [layer.name for layer in here.viewer.layers] == ["noise"]
    assert here.dock.button.text() == "Segment"
    assert not here.text


def test_another_model_ends_continue_but_keeps_the_layer(
    desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient(monkeypatch)
    stand_in(pause=2, gate=tmp_path / "gate")
    here = opened(desk)
    paused(here)
    here.click()
    here.wait_for(Phase.CANCELLED)
    layer = here.labels
    here.dock.form.model.choose("small-objects")
    assert here.dock.button.text() == "Segment"
    assert layer in here.viewer.layers
    assert layer.data.any()
    assert not isinstance(layer.data, np.memmap)


@posix
def test_a_killed_process_leaves_the_finished_part(desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path) -> None:
    stand_in(pause=2, gate=tmp_path / "gate")
    here = opened(desk)
    paused(here)
    layer = here.labels
    os.kill(bridge.supervisor().pid, signal.SIGKILL)
    here.wait_for(Phase.DIED)
    assert here.text.startswith("The model's process ended, most likely for lack of memory. ")
    assert here.text.endswith("of 12 tiles are safe in the layer.")
    assert set(here.dock.message.shown.links) == {Action.SMALLER, Action.CPU, Action.COPY}
    assert layer in here.viewer.layers
    assert layer.data.any()
    assert layer.editable
    (tmp_path / "gate").touch()
    assert here.dock.button.text() == "Continue"
    here.click()
    here.wait_for(Phase.DONE)
    np.testing.assert_array_equal(layer.data, reference(here))


@pytest.mark.slow
@posix
def test_a_smaller_window_after_the_process_died(desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path) -> None:
    stand_in(pause=2, gate=tmp_path / "gate")
    here = opened(desk)
    paused(here)
    os.kill(bridge.supervisor().pid, signal.SIGKILL)
    here.wait_for(Phase.DIED)
    (tmp_path / "gate").touch()
    here.follow(Action.SMALLER)
    assert here.dock.form.options.settings.window == "16, 16"
    here.wait_for(Phase.DONE)
    assert here.session.order.job.options.window == (16, 16)


@pytest.mark.slow
def test_the_result_is_removed_during_the_run_and_brought_back(
    desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path
) -> None:
    stand_in(pause=2, gate=tmp_path / "gate")
    here = opened(desk)
    paused(here)
    layer = here.labels
    here.viewer.layers.remove(layer)
    assert here.phase is Phase.REMOVED
    assert here.text == "Result removed, run cancelled."
    here.until(lambda: here.session._run.state == "cancelled")
    here.follow(Action.RESTORE)
    assert layer in here.viewer.layers
    assert here.phase is Phase.CANCELLED
    (tmp_path / "gate").touch()
    here.click()
    here.wait_for(Phase.DONE)
    np.testing.assert_array_equal(layer.data, reference(here))


@pytest.mark.slow
def test_the_image_is_renamed_and_removed_during_the_run(desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path) -> None:
    stand_in(pause=2, gate=tmp_path / "gate")
    here = opened(desk)
    here.viewer.add_image(NOISE, name="other")
    here.viewer.layers.selection.active = here.viewer.layers["noise"]
    image = here.dock.image
    paused(here)
    image.name = "renamed"
    assert here.dock.image is image, "the list follows the name"
    assert here.dock.form.image.currentText() == "renamed"
    here.labels.name = "my nuclei"
    here.viewer.layers.remove(image)
    assert here.box.endswith("Image removed; the run goes on.")
    (tmp_path / "gate").touch()
    here.wait_for(Phase.DONE)
    assert here.labels.name == "my nuclei"
    np.testing.assert_array_equal(here.labels.data, reference(here))


def test_a_closed_dock_stops_nothing_and_a_new_one_takes_over(
    desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path
) -> None:
    stand_in(pause=2, gate=tmp_path / "gate")
    here = opened(desk)
    paused(here)
    here.viewer.window.remove_dock_widget(here.dock)
    here.dock.deleteLater()
    here.qtbot.wait(50)
    assert here.session.active
    here.dock = dock_of(here.viewer)
    assert isinstance(here.dock, SegmentWidget)
    assert here.dock.session is here.session
    assert here.dock.button.text() == "Cancel"
    (tmp_path / "gate").touch()
    here.wait_for(Phase.DONE)
    assert here.text


@posix
def test_closing_the_viewer_ends_the_process(
    desk: Callable[..., Any], stand_in: Callable[..., None], tmp_path: Path, _sessions: dict[int, Any]
) -> None:
    _sessions.pop(-1)
    stand_in(pause=2, gate=tmp_path / "gate")
    here = opened(desk)
    paused(here)
    process = psutil.Process(bridge.supervisor().pid)
    here.viewer.close()
    here.qtbot.wait(100)
    end = time.monotonic() + 10
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the process goes on without its viewer"
        here.qtbot.wait(20)


def test_unload_ends_the_process(desk: Callable[..., Any]) -> None:
    here = opened(desk)
    here.run()
    assert here.dock.form.loaded.text().startswith("Loaded, ")
    pid = bridge.supervisor().pid
    assert psutil.pid_exists(pid)
    here.follow(Action.UNLOAD)
    assert bridge.supervisor().pid is None
    here.until(lambda: not psutil.pid_exists(pid))  # a busy system takes its time
    assert here.dock.form.memory.isHidden()
    here.run()
    assert here.phase is Phase.DONE, "the next run loads it again"


@pytest.mark.slow
def test_two_viewers_have_their_own_runs(desk: Callable[..., Any], make_napari_viewer: Any) -> None:
    one, two = opened(desk), opened(desk, NOISE[::-1].copy(), name="upside down")
    assert one.session is not two.session
    one.click()
    two.click()
    one.wait_for(Phase.DONE)
    two.wait_for(Phase.DONE)
    assert [layer.name for layer in one.viewer.layers] == ["noise", "noise_small-classes"]
    assert [layer.name for layer in two.viewer.layers] == ["upside down", "upside down_small-classes"]


def test_each_class_of_masks_has_its_layer(desk: Callable[..., Any]) -> None:
    here = opened(desk, model="small-masks", scale=(2, 3))
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    names = [layer.name for layer in here.viewer.layers]
    assert names == ["noise", "noise_small-masks_one", "noise_small-masks_two"]
    np.testing.assert_array_equal([layer.data for layer in here.viewer.layers[1:]], reference(here))
    np.testing.assert_allclose(here.viewer.layers[2].scale, (2, 3))


def test_scores_and_objects_table(desk: Callable[..., Any]) -> None:
    here = opened(desk, model="small-objects", scale=(0.5, 0.5), units=("um", "um"))
    here.dock.form.keep_scores.setChecked(True)
    here.dock.form.objects.setChecked(True)
    here.dock.form.uncertainty.choose("entropy")
    assert here.dock.form.results_fold.header.text() == "Results: labels, scores, uncertainty, objects table"
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    scores = here.viewer.layers["noise_small-objects_scores"]
    assert scores.data.shape == (3, *NOISE.shape)
    np.testing.assert_allclose(scores.scale, (1, 0.5, 0.5))
    unsure = here.viewer.layers["noise_small-objects_uncertainty"]
    assert unsure.data.shape == NOISE.shape
    assert (unsure.visible, unsure.colormap.name, unsure.opacity) == (False, "magma", 0.5)
    assert 0 < unsure.data.max() <= 1
    np.testing.assert_allclose(unsure.scale, (0.5, 0.5))
    features = here.labels.features
    ids, areas = np.unique(here.labels.data, return_counts=True)
    assert len(ids) > 1, "this model finds something in noise"
    np.testing.assert_allclose(features["area [µm²]"][ids[1:]], areas[1:] * 0.25)
    assert here.dock.image.name == "noise", "scores are not taken for the next image"


def test_a_time_series_is_run_frame_by_frame(desk: Callable[..., Any]) -> None:
    frames = np.stack([NOISE, NOISE[::-1], NOISE * 2])
    here = opened(desk, frames, model="small-objects", axis_labels=("time", "y", "x"), scale=(5, 1, 1))
    assert here.dock.form.axes.text() == "T Y X"
    assert "T = 3 frames" in here.dock.form.mapping.text()
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    assert here.labels.data.shape == frames.shape
    np.testing.assert_array_equal(here.labels.data, reference(here))
    assert here.labels.data.any()
    per_frame = [set(np.unique(frame)) - {0} for frame in here.labels.data]
    assert not set.intersection(*per_frame), "ids are unique over all frames"


def test_channels_between_time_and_space(desk: Callable[..., Any]) -> None:
    data = np.stack([np.stack([NOISE, NOISE * 3])] * 2)
    here = opened(desk, data, axis_labels=("t", "c", "y", "x"))
    form = here.dock.form
    assert form.axes.text() == "T C Y X"
    assert [combo.currentText() for combo in form.channels.combos] == ["0"]
    form.channels.combos[0].choose(1)
    assert "C = 1 of 2" in form.mapping.text()
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    layer, image = here.labels, here.viewer.layers[0]
    np.testing.assert_array_equal(layer.data[:, 0], reference(here))
    for time_, channel in ((0, 0), (1, 0), (1, 1)):
        world = image.data_to_world((time_, channel, 20, 30))
        np.testing.assert_array_equal(np.round(layer.world_to_data(world)), (time_, 0, 20, 30), err_msg="labels lie over every channel")


def test_layers_as_channels(desk: Callable[..., Any]) -> None:
    here = desk()
    first = here.viewer.add_image(NOISE, name="nuclei")
    here.viewer.add_image(NOISE * 2, name="membrane")
    here.dock.form.image.choose(first)
    here.dock.form.model.choose("small-pair")
    assert [
        (label.text(), combo.currentText())
        for label, combo in zip(here.dock.form.channels.fields.labels, here.dock.form.channels.combos, strict=True)
    ] == [
        ("nuclei", "nuclei"),
        ("membrane", "membrane"),
    ]
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    np.testing.assert_array_equal(here.labels.data, reference(here))


def test_only_rectangles(desk: Callable[..., Any]) -> None:
    here = opened(desk)
    corner = np.array([[0, 0], [0, 10], [10, 10], [10, 0]])
    size = np.array(here.dock.image.data.shape)
    here.viewer.add_shapes([corner, corner + size - 12], name="where")
    here.dock.form.region.choose("rectangles")
    assert here.dock.form.where_fold.header.text().startswith("Where: rectangles (2, ")
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    first, second = here.session.order.job.region
    np.testing.assert_array_equal(here.labels.data, reference(here))
    labels = np.array(here.labels.data)
    for region in (first, second):
        labels[tuple(slice(*span) for span in region)] = 0
    assert not labels.any()


def test_only_a_rectangle(desk: Callable[..., Any]) -> None:
    here = opened(desk, scale=(2, 2))
    image = here.dock.image
    here.viewer.add_shapes([np.array([[20, 10], [20, 60], [120, 60], [120, 10]])], name="where")
    here.dock.form.region.choose("rectangles")
    assert here.dock.form.where_fold.header.text() == "Where: rectangles (51 × 26)"
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    labels = here.labels.data
    assert here.session.order.job.region == ((10, 61), (5, 31))
    outside = np.ones_like(labels, dtype=bool)
    outside[10:61, 5:31] = False
    assert not labels[outside].any()
    assert labels[10:61, 5:31].any()
    assert image in here.viewer.layers
