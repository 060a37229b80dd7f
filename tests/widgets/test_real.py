"""The real thing: a sample is opened, the button clicked, and what comes is right, can be mended, saved and opened again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap

from napari_tileseg.io import read_volume
from napari_tileseg.training.metrics import average_precision
from napari_tileseg.widgets import deeds
from napari_tileseg.widgets import save as saving
from napari_tileseg.widgets.states import Action, Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest
    from numpy.typing import NDArray


def dice(found: NDArray[Any], truth: NDArray[Any], label: int) -> float:
    return float(2 * np.sum((found == label) & (truth == label)) / (np.sum(found == label) + np.sum(truth == label)))


def save(desk: Any, path: Path, monkeypatch: pytest.MonkeyPatch, *, replace: bool = True) -> None:
    """Save through the link, with the file dialog answered."""
    monkeypatch.setattr(saving, "ask_path", lambda parent, start: path)
    monkeypatch.setattr(saving, "confirm_overwrite", lambda parent, chosen: replace)
    assert deeds.saving is saving
    desk.follow(Action.SAVE)
    desk.until(lambda: not desk.text.startswith("Saving"))


def test_one_click_on_the_fluorescence_sample(desk: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = desk(show=True)
    assert here.text == "No image is open."
    here.follow(Action.SAMPLE)
    image = here.viewer.layers["nuclei_fluorescence"]
    assert here.dock.image is image
    assert here.dock.spec.name == "nuclei-2d", "the first choice is right"
    here.run()
    assert here.phase is Phase.DONE, here.session.state

    truth = here.viewer.layers["nuclei_fluorescence_reference"].data
    layer = here.labels
    assert layer.name == "nuclei_fluorescence_nuclei-2d"
    assert average_precision(np.asarray(truth), np.asarray(layer.data)) >= 0.9
    check_grid(layer, image)
    assert here.viewer.layers.index(layer) == here.viewer.layers.index(image) + 1
    assert here.viewer.layers.selection.active is layer
    assert isinstance(layer.colormap, CyclicLabelColormap)
    assert layer.metadata["tileseg"]["model"]["name"] == "nuclei-2d"
    assert list(layer.features["class"][:2]) == ["background", "nucleus"]
    assert here.text.endswith(".")
    assert f"{len(np.unique(layer.data)) - 1} objects in " in here.text

    before = layer.data.copy()
    assert layer.editable
    layer.mode = "paint"
    layer.paint((30, 30), int(layer.data.max()) + 1)
    assert (layer.data != before).any(), "the stroke is there"
    layer.undo()
    np.testing.assert_array_equal(layer.data, before, err_msg="one undo takes one stroke back")
    layer.undo()
    np.testing.assert_array_equal(layer.data, before, err_msg="there is nothing else to undo: the run is no edit")

    layer.paint((30, 30), 500)
    path = tmp_path / "nuclei.ome.tif"
    save(here, path, monkeypatch)
    assert here.text == "Saved as nuclei.ome.tif."
    again = read_volume(path)
    np.testing.assert_array_equal(np.asarray(again.data), layer.data, err_msg="edits are saved")
    opened = here.viewer.open(str(path), plugin="napari-tileseg")[0]
    np.testing.assert_array_equal(np.asarray(opened.data), layer.data)


def test_one_click_on_the_mri_sample(desk: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = desk()
    here.viewer.open_sample("napari-tileseg", "hippocampus-mri")
    image = here.viewer.layers["hippocampus_mri"]
    assert here.dock.spec.name == "hippocampus-3d", "the first choice is right"
    here.run()
    assert here.phase is Phase.DONE, here.session.state

    layer, truth = here.labels, np.asarray(here.viewer.layers["hippocampus_mri_reference"].data)
    assert dice(layer.data, truth, 1) >= 0.85
    assert dice(layer.data, truth, 2) >= 0.85
    check_grid(layer, image)
    assert isinstance(layer.colormap, DirectLabelColormap)
    assert list(layer.features["class"]) == ["background", *here.session.order.spec.classes[1:]]
    for label, color in enumerate(here.session.order.spec.colors, start=1):
        expected = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        np.testing.assert_allclose(layer.colormap.color_dict[label][:3], expected, atol=1e-6)

    path = tmp_path / "hippocampus.nii.gz"
    save(here, path, monkeypatch)
    again = read_volume(path)
    np.testing.assert_array_equal(np.asarray(again.data), layer.data)
    np.testing.assert_allclose(again.affine, here.session.order.volume.affine, atol=1e-5)
    assert again.units == here.session.order.volume.units


def check_grid(layer: Any, image: Any) -> None:
    assert layer.data.shape == (image.data.shape[:-1] if image.rgb else image.data.shape)
    for name in ("scale", "translate", "rotate"):
        np.testing.assert_allclose(getattr(layer, name), getattr(image, name), err_msg=name)
    np.testing.assert_allclose(layer.affine.affine_matrix, image.affine.affine_matrix)
    assert layer.units == image.units
    assert layer.axis_labels == image.axis_labels
    for index in (np.zeros(image.ndim), np.arange(image.ndim) + 3.0):
        np.testing.assert_allclose(layer.data_to_world(index), image.data_to_world(index))
