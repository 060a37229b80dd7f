"""The Models dock shows what a model makes up and how it sees an image, with the real commands behind it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Points

from napari_tileseg.training.unsupervised import UnsupervisedConfig, train_unsupervised
from napari_tileseg.training.unsupervised.embedding import Embedding, join
from napari_tileseg.training.unsupervised.generate import GeneratedSamples, save_samples
from napari_tileseg.volume import Volume
from napari_tileseg.widgets.embedding import show_embedding, show_embeddings
from napari_tileseg.widgets.models.making import read_drawn
from napari_tileseg.widgets.models.rows import local_row
from napari_tileseg.widgets.states import Action

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def picture(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 255, (60, 60)).astype(np.uint8)


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A generator of pairs that has learnt next to nothing."""
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path))
    config = UnsupervisedConfig.parse(name="pairs", network="gan", steps=2, batch=4, device="cpu")
    volumes = [Volume(picture(seed), "YX", name=f"image {seed}") for seed in range(2)]
    masks = [Volume((picture(seed) > 99).astype(np.uint8), "YX") for seed in range(2)]
    return train_unsupervised(config, volumes=volumes, masks=masks).name


@pytest.mark.slow
def test_samples_and_codes_become_layers(models: Callable[..., Any], maker: str) -> None:
    here = models(window=True, show=True, real=True)
    here.until(lambda: here.dock.models.choose(maker))
    shown = here.dock.card.links.buttons
    assert Action.DRAW in shown and Action.CODES in shown
    dialog = here.dock.making.ask_number(here.dock.row, here.dock)
    dialog.count.setValue(3)
    dialog.seed.setValue(5)
    dialog.button.click()
    here.until(lambda: len(here.viewer.layers) == 2)
    images, masks = here.viewer.layers
    assert (images.name, masks.name) == ("pairs_synthetic_seed5", "pairs_synthetic_seed5_masks")
    assert images.data.shape == masks.data.shape == (3, 28, 28)
    assert images.metadata["synthetic"] is True and masks.metadata["synthetic"] is True
    assert set(np.unique(masks.data)) <= {0, 1}
    here.viewer.layers.clear()
    here.dock.act(Action.CODES)
    assert "No image is active" in here.dock.message.text.text()
    here.viewer.add_image(picture(3), name="cells", scale=(2, 2))
    here.dock.act(Action.CODES)
    here.until(lambda: len(here.viewer.layers) == 3)
    places, codes = (layer for layer in here.viewer.layers if isinstance(layer, Points))
    assert len(places.data) == len(codes.data) == 4, "as many as tiles"
    np.testing.assert_allclose(places.data_to_world(places.data[0]), 2 * places.data[0])
    assert "4 tiles" in here.dock.message.text.text()
    labels = np.zeros((60, 60), np.int64)
    labels[5:15, 5:15], labels[30:50, 20:40] = 1, 2
    here.viewer.layers.remove(places)
    here.viewer.layers.remove(codes)
    layer = here.viewer.add_labels(labels, name="cells_labels", scale=(2, 2))
    here.dock.act(Action.CODES)
    here.until(lambda: len(here.viewer.layers) == 4)
    assert list(here.viewer.layers[-1].features["label"]) == [1, 2]
    np.testing.assert_allclose(here.viewer.layers[-1].face_color, [layer.get_color(1), layer.get_color(2)], atol=1e-6)
    here.viewer.layers.clear()
    chosen = [here.viewer.add_image(picture(seed), name=f"cells {seed}") for seed in (3, 4)]
    here.viewer.layers.selection = chosen
    here.dock.act(Action.CODES)
    here.until(lambda: len(here.viewer.layers) == 5)
    assert [made.name for made in here.viewer.layers[2:]] == ["cells 3 places", "cells 4 places", "codes"]
    assert "8 tiles of 2 images" in here.dock.message.text.text()


@pytest.mark.parametrize(("channels", "paired", "shape"), [(1, True, (2, 8, 9)), (3, False, (2, 8, 9, 3)), (4, False, (2, 4, 8, 9))])
def test_what_was_drawn_is_read_as_it_was_written(tmp_path: Path, channels: int, paired: bool, shape: tuple[int, ...]) -> None:
    generator = np.random.default_rng(0)
    images = generator.random((2, channels, 8, 9)).astype(np.float32)
    masks = generator.integers(0, 2, (2, 8, 9)).astype(np.uint8) if paired else None
    made = GeneratedSamples(images, masks, "maker", ("background", "cell") if paired else (), 0)
    paths = save_samples(made, tmp_path / "made", format="tif")
    found, truth = read_drawn(tmp_path / "made", [str(path) for path in paths])
    assert found.shape == shape
    expected = np.moveaxis(images, 1, -1) if channels == 3 else images
    np.testing.assert_array_equal(found, expected.reshape(shape))
    assert truth is None if masks is None else (truth == masks).all()


@pytest.mark.parametrize(
    ("card", "draws", "encodes"),
    [
        ({"architecture": "f_anogan"}, True, True),
        ({"architecture": "paired_generator", "arguments": {"network": "gan"}}, True, True),
        ({"architecture": "anomaly_autoencoder", "arguments": {"network": "vae"}}, True, True),
        ({"architecture": "anomaly_autoencoder", "arguments": {"network": "autoencoder"}}, False, True),
        ({"architecture": "residual_unet"}, False, False),
        ({}, False, False),
    ],
)
def test_only_what_can_be_made_is_offered(card: dict[str, Any], draws: bool, encodes: bool) -> None:
    row = local_row({"name": "mine", **card})
    assert (row.draws, row.encodes) == (draws, encodes)


def test_a_click_on_a_code_goes_to_its_place() -> None:
    viewer = ViewerModel()
    layer = viewer.add_image(np.zeros((4, 50, 60)), scale=(3, 2, 2))
    positions = np.array([[0, 10, 10], [2, 30, 40]], float)
    points = np.array([[0, 0], [5, 5]], np.float32)
    found = Embedding(positions, points, points, np.array([1, 2]), np.zeros(2, np.float32))
    places, codes = show_embedding(viewer, found, layer=layer)
    where = codes.data_to_world(codes.data[1])
    event = SimpleNamespace(position=(0.0, *where), view_direction=None, dims_displayed=[1, 2])
    [callback] = codes.mouse_drag_callbacks
    callback(codes, event)
    assert viewer.dims.point[0] == 6
    assert viewer.scene.camera.center[-2:] == (60, 80)
    assert places.selected_data == {1}
    event.position = (0.0, -500.0, -500.0)
    callback(codes, event)
    assert viewer.scene.camera.center[-2:] == (60, 80)


def test_several_images_share_one_space_and_are_coloured_apart() -> None:
    viewer = ViewerModel()
    layers = {name: viewer.add_image(np.zeros((50, 60)), name=name, translate=(0, 100 * number)) for number, name in enumerate("ab")}
    generator = np.random.default_rng(0)
    parts = []
    for count in (3, 2):
        codes = generator.normal(size=(count, 6)).astype(np.float32)
        places = generator.uniform(0, 50, (count, 2))
        parts.append(Embedding(places, codes, codes[:, :2], np.zeros(count, np.int64), np.zeros(count, np.float32), "YX"))
    found = join(parts, ["a", "b"])
    assert found.images == ("a", "a", "a", "b", "b") and found.points.shape == (5, 2)
    np.testing.assert_allclose(found.points.mean(0), 0, atol=1e-5)
    [first, second], codes = show_embeddings(viewer, found, layers)
    assert (len(first.data), len(second.data), len(codes.data)) == (3, 2, 5)
    assert list(codes.features["image"]) == list(found.images)
    assert len(np.unique(codes.face_color, axis=0)) == 2
    np.testing.assert_array_equal(codes.face_color[0], first.face_color[0])
    np.testing.assert_array_equal(codes.face_color[4], second.face_color[1])
    np.testing.assert_allclose(second.data_to_world(second.data[0]), parts[1].positions[0] + (0, 100))
    [callback] = codes.mouse_drag_callbacks
    where = codes.data_to_world(codes.data[4])
    callback(codes, SimpleNamespace(position=tuple(where), view_direction=None, dims_displayed=[0, 1]))
    assert second.selected_data == {1} and not first.selected_data
    np.testing.assert_allclose(viewer.scene.camera.center[-2:], second.data_to_world(second.data[1]))
