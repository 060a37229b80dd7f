"""Labels of several scales are corrected region by region; labels on the disk in place; large ones without the window standing still."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from refine_desk import blobs

from napari_tileseg.widgets.states import Action

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def levels(labels: Any, count: int = 3) -> list[Any]:
    return [labels[(..., *(slice(None, None, 2**level),) * 2)] for level in range(count)]


def show_all(here: Any) -> None:
    """Bring all of the labels into view, with room around them."""
    here.viewer.reset_view()
    getattr(here.viewer, "scene", here.viewer).camera.zoom /= 3
    here.qtbot.wait(50)


@pytest.mark.parametrize("kind", [pytest.param("numpy", marks=pytest.mark.slow), "zarr"])
def test_a_region_of_a_pyramid_goes_back_into_all_levels(refine: Callable[..., Any], kind: str, tmp_path: Path) -> None:
    here = refine(show=True)
    start = blobs((64, 96))
    arrays: list[Any] = [level.copy() for level in levels(start)]
    if kind == "zarr":
        arrays = [zarr.create_array(tmp_path / f"{number}.zarr", data=level, chunks=(16, 16)) for number, level in enumerate(arrays)]
    large = here.viewer.add_labels(arrays, multiscale=True, name="slide", scale=(0.5, 0.5), translate=(10, 20))
    here.until(lambda: here.session.labels is large)
    assert not here.form.tools["remove"].isEnabled()
    show_all(here)
    here.follow(Action.EDIT)
    window = here.layer
    assert window is not large
    assert not window.multiscale
    here.until(lambda: here.session.work is not None and here.session.work.canvas.looked)
    np.testing.assert_allclose(window.data_to_world((10, 10)), large.data_to_world((10, 10)))
    here.tool("remove")
    here.click(10, 10)
    here.session.put_away()
    assert Action.PUT_BACK in here.dock.message.links.shown
    here.follow(Action.PUT_BACK)
    assert window not in here.viewer.layers
    expected = start.copy()
    expected[expected == 1] = 0
    for level, wanted in zip(large.data, levels(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(level), wanted)
    assert here.session.labels is large


def test_closing_a_region_puts_it_back(refine: Callable[..., Any]) -> None:
    here = refine(show=True)
    large = here.viewer.add_labels([level.copy() for level in levels(blobs((64, 96)))], multiscale=True)
    here.until(lambda: here.session.labels is large)
    show_all(here)
    here.follow(Action.EDIT)
    window = here.layer
    window.data_setitem((np.array([60]), np.array([90])), 9)
    here.viewer.layers.remove(window)
    here.until(lambda: here.session.labels is large)
    assert large.data[0][60, 90] == 9
    assert large.data[1][30, 45] == 9


def test_labels_on_the_disk_are_changed_in_place_and_undone(refine: Callable[..., Any], tmp_path: Path) -> None:
    here = refine()
    start = blobs((5, 60, 80))
    stored = zarr.create_array(tmp_path / "labels.zarr", data=start, chunks=(2, 32, 32))
    here.add(stored, name="stored")
    here.tool("remove")
    here.click(0, 10, 10)
    assert here.dock.note.text() == "1 edit, in the file."
    assert 1 not in np.asarray(zarr.open_array(tmp_path / "labels.zarr", mode="r")[:])
    here.paint([(0, 30, 60)], 7)
    here.press("Control-Z")
    here.press("Control-Z")
    np.testing.assert_array_equal(np.asarray(stored[:]), start)


@pytest.mark.slow
def test_a_region_of_a_result_of_a_run(refine: Callable[..., Any], desk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_tileseg.io import zarr_layout

    monkeypatch.setattr("napari_tileseg.results.IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(zarr_layout, "_SIDE", 16)
    monkeypatch.setattr(zarr_layout, "_COARSEST", 25)
    segment = desk()
    segment.viewer.add_image(np.random.default_rng(1).normal(size=(64, 80)).astype(np.float32), name="slide")
    assert segment.dock.form.model.choose("small-classes")
    here = refine(viewer=segment.viewer)
    segment.run()
    here.until(lambda: here.session.labels is not None and here.session.labels.multiscale)
    large = here.layer
    here.until(lambda: here.dock.message.shown is not None and Action.EDIT in here.dock.message.links.shown)
    here.follow(Action.EDIT)
    assert not here.layer.multiscale, here.text
    here.layer.data_setitem((np.array([0]), np.array([0])), 1 if here.data[0, 0] == 2 else 2)
    wanted = here.data.copy()
    here.follow(Action.PUT_BACK)
    np.testing.assert_array_equal(np.asarray(large.data[0])[: wanted.shape[0], : wanted.shape[1]], wanted)
    assert np.asarray(large.data[1])[0, 0] == wanted[0, 0]
