"""A texture that is easy to learn, and models that have learnt it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.models.spec import ModelSpec, Normalization
from napari_tileseg.training.unsupervised import UnsupervisedConfig, train_unsupervised
from napari_tileseg.training.unsupervised.tiles import Tiles, parts_of
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def texture(seed: int, side: int = 96) -> np.ndarray:
    """Waves of one length and any phase, with noise; uint8."""
    rows, columns = np.mgrid[:side, :side]
    generator = np.random.default_rng(seed)
    down, across = generator.uniform(0, 6, 2)
    waves = 60 * np.sin(rows / 3 + down) * np.sin(columns / 3 + across)
    return np.clip(128 + waves + generator.normal(0, 6, (side, side)), 0, 255).astype(np.uint8)


def volumes(count: int = 4, side: int = 96) -> list[Volume]:
    return [Volume(texture(seed, side), "YX", name=f"image {seed}") for seed in range(count)]


SPEC = ModelSpec(
    name="normal",
    axes="CYX",
    channels=1,
    classes=["normal"],
    window=(28, 28),
    normalization=Normalization(kind="range", low=127.5, high=255),
)


@pytest.fixture
def make_tiles() -> Callable[..., Tiles]:
    """Return a function that draws tiles of 28 x 28 from two textures."""

    def make(batch: int = 16, **options: Any) -> Tiles:
        return Tiles([part for volume in volumes(2) for part in parts_of(volume, SPEC)], (28, 28), batch=batch, **options)

    return make


@pytest.fixture
def make_texture() -> Callable[..., np.ndarray]:
    return texture


@pytest.fixture
def make_volumes() -> Callable[..., list[Volume]]:
    return volumes


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., ModelSpec]:
    """Return a function that trains a model for a moment and puts it into ``tmp_path/model``."""

    def trained(given: list[Volume] | None = None, masks: list[Volume] | None = None, **options: Any) -> ModelSpec:
        events = options.pop("on_event", None)
        known = {"output": str(tmp_path / "model"), "network": "vae", "steps": 3, "batch": 4, "report_every": 2, "device": "cpu"}
        config = UnsupervisedConfig.parse(**{**known, **options})
        return train_unsupervised(config, volumes=given or volumes(), masks=masks, on_event=events, overwrite=True)

    return trained
