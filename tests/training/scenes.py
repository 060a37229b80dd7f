"""Tiny images with labels, which every network learns in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_tileseg.training.config import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SMALL: dict[str, Any] = {"arguments": {"channels": [8, 16], "stem_channels": 8}, "batch": 2, "epochs": 2, "epoch_steps": 4, "device": "cpu"}
"""A network and a training that take a second."""


def scene(number: int, shape: tuple[int, ...] = (48, 48), *, objects: bool = False) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return an image of balls on noise, and their classes (two, told by brightness) or numbers."""
    generator = np.random.default_rng(number)
    labels = np.zeros(shape, np.uint8)
    grid = np.indices(shape)
    for index in range(4):
        centre = [generator.integers(side // 8, side - side // 8) for side in shape]
        ball = sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)) < generator.uniform(3, 7) ** 2
        labels[ball & (labels == 0)] = index + 1 if objects else 1 + index % 2
    bright = np.where(labels == 2, 200, 120) if not objects else np.full(shape, 150)
    image = np.where(labels > 0, bright, 30) + generator.normal(0, 8, shape)
    return image.clip(0, 255).astype(np.uint8), labels


def folders(root: Path, count: int = 5, *, objects: bool = False) -> dict[str, str]:
    """Write scenes as PNG, and return the fields of a config that name their folders."""
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, labels = scene(number, objects=objects)
        Image.fromarray(image).save(root / "images" / f"scene_{number}.png")
        Image.fromarray(labels).save(root / "labels" / f"scene_{number}.png")
    return {"images": str(root / "images"), "labels": str(root / "labels")}


def config(output: Path, **changes: Any) -> TrainConfig:
    """Return a training of a second."""
    return TrainConfig(output=str(output), **{**SMALL, **changes})
