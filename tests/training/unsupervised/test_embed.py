"""Codes of tiles and objects: what looks alike lies close together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_tileseg.errors import Cancelled, InputError, ModelError, OptionsError
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.training.unsupervised.embed import embed, project
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Train = Callable[..., ModelSpec]


class Mean(torch.nn.Module):
    """Codes are the mean of each channel: they can be told without a network."""

    def codes(self, tiles: torch.Tensor) -> torch.Tensor:
        return tiles.mean((2, 3))

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        return tiles.abs().mean(1, keepdim=True)


def predictor(channels: int = 1) -> Any:
    spec = ModelSpec(
        name="mean",
        axes="CYX",
        channels=channels,
        classes=["normal", "anomaly"],
        window=(8, 6),
        output="anomaly",
        decoder_parameters={"threshold": 1.0},
    )
    return from_module(Mean(), spec, device="cpu")


def test_tiles_lie_side_by_side_and_have_their_most_frequent_label() -> None:
    image = np.random.default_rng(0).random((2, 17, 20)).astype(np.float32)
    labels = np.zeros(image.shape, np.int32)
    labels[1, :7, 6:12] = 5
    found = embed(predictor(), Volume(image, "ZYX"), labels, by="tiles")
    assert found.positions.tolist() == [[z, y, x] for z in (0, 1) for y in (3.5, 11.5) for x in (2.5, 8.5, 14.5)]
    expected = [image[z, y : y + 8, x : x + 6].mean() for z in (0, 1) for y in (0, 8) for x in (0, 6, 12)]
    np.testing.assert_allclose(found.codes[:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)
    np.testing.assert_allclose(found.points[:, 0], expected - np.mean(expected), atol=1e-6)
    assert not found.points[:, 1].any()
    assert found.labels.tolist() == [0] * 7 + [5] + [0] * 4


def test_objects_are_seen_in_a_tile_around_their_middle() -> None:
    image = np.random.default_rng(0).random((40, 30)).astype(np.float32)
    labels = np.zeros(image.shape, np.int64)
    labels[10:15, 10:13] = 9_000_000_000
    labels[0:2, 0:2] = 3
    found = embed(predictor(), image, labels, axes="YX")
    assert found.labels.tolist() == [3, 9_000_000_000]
    assert found.positions.tolist() == [[0.5, 0.5], [12, 11]]
    padded = np.pad(image, 8, mode="symmetric")
    np.testing.assert_allclose(found.codes[0, 0], padded[8 - 3 : 8 + 5, 8 - 2 : 8 + 4].mean(), rtol=1e-5)
    np.testing.assert_allclose(found.codes[1, 0], image[8:16, 8:14].mean(), rtol=1e-5)


def test_axes_of_labels_follow_those_of_the_image() -> None:
    image = np.random.default_rng(1).random((20, 3, 16)).astype(np.float32)
    labels = np.zeros((20, 16), np.uint8)
    labels[12:14, 4] = 1
    found = embed(predictor(3), Volume(image, "XCY"), Volume(labels, "XY"))
    assert found.positions.tolist() == [[12.5, 4]]
    np.testing.assert_allclose(found.codes[0], image[10:16, :, 0:8].mean((0, 2)), rtol=1e-5)


def test_points_are_the_directions_of_most_difference() -> None:
    generator = np.random.default_rng(2)
    codes = (generator.normal(size=(200, 3)) * (5, 2, 0.1)) @ np.linalg.qr(generator.normal(size=(3, 3)))[0] + 7
    points = project(codes.astype(np.float32), 2)
    assert points.shape == (200, 2)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-4)
    assert points.std(0) == pytest.approx((5, 2), rel=0.2)
    assert project(codes[:2].astype(np.float32), 3).shape == (2, 3)
    np.testing.assert_array_equal(project(codes.astype(np.float32), 2), points)


@pytest.mark.parametrize("network", ["autoencoder", "conv_autoencoder", "vae", "gan"])
def test_every_network_has_codes(train: Train, tmp_path: Path, network: str, make_texture: Any) -> None:
    train(network=network, steps=1)
    found = embed(str(tmp_path / "model"), make_texture(9), axes="YX", dimensions=3, device="cpu")
    assert found.points.shape == (9, 3)
    assert np.isfinite(found.points).all()
    assert found.scores.min() > 0


def test_two_textures_part(train: Train, tmp_path: Path, make_texture: Any) -> None:
    rows, columns = np.mgrid[:96, :96]
    other = (128 + 60 * np.sign(np.sin(rows / 8) * np.sin(columns / 8))).astype(np.uint8)
    train(
        [Volume(image, "YX", name=str(n)) for n, image in enumerate([make_texture(0), other, make_texture(1), other.T])],
        steps=150,
        batch=32,
    )
    halves = np.concatenate([make_texture(5), other], 1)
    labels = np.ones(halves.shape, np.uint8)
    labels[:, 96:] = 2
    found = embed(str(tmp_path / "model"), halves, labels, by="tiles", axes="YX", device="cpu")
    distances = np.linalg.norm(found.codes[:, None] - found.codes[None], axis=-1) + 1e9 * np.eye(len(found.codes))
    assert (found.labels[distances.argmin(1)] == found.labels).mean() > 0.8


def test_what_cannot_be_shown_is_said() -> None:
    image, empty = np.zeros((20, 20), np.float32), np.zeros((20, 20), np.uint8)
    for arguments, error, sentence in (
        ({"dimensions": 4}, OptionsError, "Choose 2 or 3"),
        ({"by": "objects"}, OptionsError, "with labels"),
        ({"labels": empty}, InputError, "its labels are empty"),
        ({"labels": empty[:5]}, InputError, "They must be equal"),
        ({"labels": empty.astype(float)}, InputError, "whole numbers"),
        ({"cancel": lambda: True}, Cancelled, "Stopped after 0 of 6"),
    ):
        with pytest.raises(error, match=sentence):
            embed(predictor(), image, axes="YX", **arguments)
    with pytest.raises(ModelError, match="has no codes"):
        embed("nuclei-2d", image, axes="YX", device="cpu")
