"""Models that give something else than scores of classes, in the dock: labels of their own, or how strange each pixel is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Image
from napari.utils.colormaps import CyclicLabelColormap

from napari_tileseg.widgets import bridge
from napari_tileseg.widgets.states import Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def own_models(extensions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of models of the example packages; the model's process is started anew, so that it finds them too."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "cells.bright.json").write_text('{"least": 0.7}')
    (folder / "tissue.ordinary.json").write_text('{"mean": 0.5, "threshold": 0.1}')
    monkeypatch.setenv("TILESEG_MODELS", str(folder))
    bridge.close_supervisor()
    return folder


def image() -> np.ndarray:
    pixels = np.full((200, 180), 0.5, np.float32)
    for row in range(10, 190, 30):
        pixels[row : row + 12, 40:60] = 0.9
    return pixels


def test_an_anomaly_model_shows_its_map(own_models: Path, desk: Callable[..., Any]) -> None:
    here = desk()
    layer = here.viewer.add_image(image(), name="tissue", scale=(0.5, 0.5), units=("um", "um"))
    here.dock.form.model.choose("tissue")
    assert here.dock.form.keep_scores.isChecked(), "the map is what one looks at"
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    labels = here.labels

    assert set(np.unique(labels.data)) == {0, 1}
    assert np.mean((np.asarray(labels.data) == 1) == (layer.data > 0.7)) > 0.99  # corners go with the median
    shown = here.viewer.layers["tissue_tissue_anomaly map"]
    assert isinstance(shown, Image)
    assert shown.visible
    assert shown.data.shape == layer.data.shape
    np.testing.assert_allclose(shown.scale, layer.scale)
    np.testing.assert_allclose(np.asarray(shown.data), (layer.data - 0.5) ** 2, atol=1e-6)
    assert list(labels.features["class"]) == ["normal", "anomaly"]


def test_a_model_that_gives_labels_makes_objects(own_models: Path, desk: Callable[..., Any]) -> None:
    here = desk()
    layer = here.viewer.add_image(image(), name="cells")
    here.dock.form.model.choose("cells")
    assert not here.dock.form.options.widgets["threshold"].enabled
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    labels = here.labels
    assert isinstance(labels.colormap, CyclicLabelColormap)
    assert len(np.unique(labels.data)) == 1 + 6
    np.testing.assert_array_equal(np.asarray(labels.data) > 0, layer.data > 0.7)
    assert "6 objects" in here.text
