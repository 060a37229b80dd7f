"""Large results: shown as a pyramid while they are made, painted region by region, saved without being loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_tileseg.io import read_volume, zarr_layout
from napari_tileseg.io.zarr_store import ZarrLabels
from napari_tileseg.pipeline import segment
from napari_tileseg.refine.delta import Delta, Edit
from napari_tileseg.widgets import pyramid as pyramid_module
from napari_tileseg.widgets import regions, session
from napari_tileseg.widgets import save as saving
from napari_tileseg.widgets.refine import RefineWidget
from napari_tileseg.widgets.states import Action, Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take everything for large, in small chunks."""
    monkeypatch.setattr("napari_tileseg.results.IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(zarr_layout, "_SIDE", 16)
    monkeypatch.setattr(zarr_layout, "_COARSEST", 25)


SHAPE = (64, 80)
STEPS = (1, 2, 4)


def opened(desk: Callable[..., Any], model: str = "small-classes") -> Any:
    """Open an image with a place in the world and choose a model."""
    here = desk()
    noise = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    here.viewer.add_image(noise, name="slide", scale=(0.5, 0.5), translate=(10, 20))
    assert here.dock.form.model.choose(model)
    return here


def finished(desk: Callable[..., Any]) -> Any:
    """Make a large result."""
    here = opened(desk)
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    return here


def check_levels(layer: Any, expected: Any) -> None:
    for step, level in zip(STEPS, layer.data, strict=True):
        np.testing.assert_array_equal(np.asarray(level), expected[::step, ::step])


@pytest.mark.parametrize("model", ["small-classes", "small-masks", "small-objects"])
def test_it_is_what_the_pipeline_gives(desk: Callable[..., Any], model: str) -> None:
    here = opened(desk, model)
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    order = here.session.order
    expected = segment(
        order.volume, order.job.model, options=order.job.options, out=np.zeros(order.axis_map.result_shape, order.axis_map.result_dtype)
    )
    assert expected.labels.any()
    parts = expected.labels if model == "small-masks" else [expected.labels]
    for layer, part in zip(here.session.result.layers, parts, strict=True):
        assert layer.multiscale
        check_levels(layer, part)


def test_it_fills_while_the_run_goes_on_and_is_carried_on(desk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_CALM", 0.0)
    here = opened(desk)
    here.click()
    here.until(lambda: here.session.result is not None and here.session.result.shown)
    here.session.cancel()
    here.until(lambda: not here.session.active)
    if here.phase is Phase.CANCELLED:
        here.click()
        here.until(lambda: not here.session.active)
    assert here.phase is Phase.DONE, here.session.state
    order = here.session.order
    expected = segment(order.volume, order.job.model, options=order.job.options, out=np.zeros(SHAPE, np.uint8)).labels
    check_levels(here.labels, expected)


def test_the_result_is_a_pyramid_on_the_disk(desk: Callable[..., Any]) -> None:
    done = finished(desk)
    layer = done.labels
    store = done.session.result.store
    assert isinstance(store, ZarrLabels)
    assert layer.multiscale
    assert not layer.editable
    assert [level.shape for level in layer.data] == [(64, 80), (32, 40), (16, 20)]
    finest = np.asarray(layer.data[0])
    assert len(np.unique(finest)) > 1
    check_levels(layer, finest)
    assert tuple(layer.scale) == (0.5, 0.5)
    assert done.dock.message.links.shown == (Action.REFINE, Action.SAVE, Action.EDIT, Action.DETAILS)


def test_a_region_is_painted_and_put_back(desk: Callable[..., Any]) -> None:
    done = finished(desk)
    store = done.session.result.store
    shapes = done.viewer.add_shapes([[[15, 25], [15, 45], [30, 45], [30, 25]]], shape_type="rectangle")
    done.viewer.layers.selection.active = shapes
    done.follow(Action.EDIT)
    window = done.viewer.layers[-1]
    assert isinstance(window, Labels)
    assert not window.multiscale
    assert done.dock.message.links.shown == (Action.REFINE, Action.SAVE, Action.PUT_BACK, Action.DETAILS)
    # The window lies over the result: the same place of the world holds the same label.
    rows, columns = (slice(*span) for span in done.session._window.box)
    np.testing.assert_array_equal(window.data, store[rows, columns])
    world = window.data_to_world((5, 7))
    np.testing.assert_allclose(done.labels.world_to_data(world), (rows.start + 5, columns.start + 7))
    np.testing.assert_allclose(shapes.data_to_world((15, 25)), world - np.array([5, 7]) * 0.5, atol=1)
    before = np.asarray(store)
    window.data[:] = 0
    window.data[10:20, 10:30] = 1
    done.follow(Action.PUT_BACK)
    assert window not in done.viewer.layers
    expected = before.copy()
    expected[rows, columns] = 0
    expected[rows.start + 10 : rows.start + 20, columns.start + 10 : columns.start + 30] = 1
    np.testing.assert_array_equal(np.asarray(store), expected)
    check_levels(done.labels, expected)
    assert done.dock.message.links.shown == (Action.REFINE, Action.SAVE, Action.EDIT, Action.DETAILS)


def test_closing_a_region_puts_it_back(desk: Callable[..., Any]) -> None:
    done = finished(desk)
    done.viewer.reset_view()
    done.follow(Action.EDIT)
    window = done.viewer.layers[-1]
    assert window.data.shape == SHAPE
    window.data[:] = 1
    done.viewer.layers.remove(window)
    assert (np.asarray(done.labels.data[0]) == 1).all()
    assert (np.asarray(done.labels.data[-1]) == 1).all()
    assert Action.EDIT in done.dock.message.links.shown


@pytest.mark.slow
def test_what_was_done_in_a_region_goes_with_the_result_into_files(
    desk: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = finished(desk)
    done.viewer.reset_view()
    refine = RefineWidget(done.viewer)
    done.viewer.window.add_dock_widget(refine, name="Refine")
    session = refine.session
    session.choose(done.labels)
    refine.act(Action.EDIT)
    window = session.labels
    assert window is not None and not window.multiscale
    done.until(lambda: session.work is not None and session.work.canvas.looked)
    part = {"region": [[0, 4], [0, 5]], "model": {"name": "other"}}
    zero, one = np.zeros((4, 5), window.data.dtype), np.ones((4, 5), window.data.dtype)
    window.data[:4, :5] = 0
    session.do(Edit("again", (Delta((0, 0), zero, one),), about=part))
    session.do(Edit("remove", (Delta((0, 0), one[:1], zero[:1]),)))
    for name, save in (("segment", lambda: done.dock.act(Action.SAVE)), ("refine", refine.save)):
        path = tmp_path / f"{name}.ome.zarr"
        monkeypatch.setattr(saving, "ask_path", lambda parent, start, path=path: path)
        save()
        done.until(path.exists)
        done.until(lambda: read_volume(path).metadata.get("provenance"))  # noqa: B023  # asked now
        told = read_volume(path).metadata["provenance"]
        assert told["edits"] == {"again": 1, "remove": 1}
        assert told["again"] == [part]
        found = np.asarray(read_volume(path).data)[:4, :5]
        assert not found[0].any() and found[1:].all()
        done.qtbot.wait(200)  # the thread that has saved lets go of the dock


def test_a_region_that_is_too_large_is_refused(desk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    done = finished(desk)
    monkeypatch.setattr(pyramid_module, "_MOST_BYTES", 1000)
    done.viewer.reset_view()
    done.follow(Action.EDIT)
    assert "Zoom in first" in done.text
    assert len(done.viewer.layers) == 2


def test_it_is_saved_with_what_was_painted(desk: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = finished(desk)
    started: list[str] = []

    def ask(parent: Any, start: str) -> Path:
        started.append(start)
        return tmp_path / "out.ome.zarr"

    monkeypatch.setattr(saving, "ask_path", ask)
    done.viewer.reset_view()
    done.follow(Action.EDIT)
    done.viewer.layers[-1].data[:7] = 1
    done.follow(Action.SAVE)
    done.until(lambda: "Saved" in done.text)
    done.qtbot.wait(200)  # the thread that has saved lets go of the dock
    assert started[0].endswith(".ome.zarr")
    saved = read_volume(tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(np.asarray(saved.data), np.asarray(done.session.result.store))
    assert (np.asarray(saved.data[:7]) == 1).all()
    assert saved.spacing["X"] == 0.5


def test_only_what_is_in_view_is_meant(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    values = np.zeros((900, 700), np.int32)
    several = viewer.add_labels([values, values[::2, ::2]], multiscale=True, scale=(0.5, 0.5), translate=(3, 4))
    single = viewer.add_labels(values, scale=(0.5, 0.5), translate=(3, 4))
    viewer.reset_view()
    getattr(viewer, "scene", viewer).camera.zoom *= 3
    qtbot.wait(300)
    whole = np.array([[0, 0], [899, 699]])
    canvas = regions.canvas_of(viewer)
    assert canvas is not None
    seen = regions.seen(several, viewer.dims.displayed, canvas)
    assert (np.asarray(single.corner_pixels) != whole).any(), "the view is a part of the layer"
    np.testing.assert_allclose(seen, single.corner_pixels, atol=2)
