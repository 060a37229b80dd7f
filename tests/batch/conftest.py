"""Small real models and folders of images for batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch

from napari_tileseg.batch.events import BatchEvent, TaskEnded
from napari_tileseg.batch.job import BatchJob
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import write_package
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def package(folder: Path, name: str, classes: list[str], **more: Any) -> str:
    """Write a small model with weights of no meaning, and return its path."""
    torch.manual_seed(len(name))
    heads = len(more.get("heads", classes))
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": heads, "channels": [4, 8], "stem_channels": 4}
    network = build_network("residual_unet", **arguments)
    card = {"name": name, "axes": "CYX", "channels": ["grey"], "classes": classes, "window": (32, 32)}
    write_package(folder / name, ModelSpec(**card, architecture="residual_unet", arguments=arguments, **more), network.state_dict())
    return str(folder / name)


@pytest.fixture(scope="session")
def classes_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a package of three classes."""
    return package(tmp_path_factory.mktemp("packages"), "classes", ["background", "left", "right"])


@pytest.fixture(scope="session")
def anomaly_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a package that says how strange each pixel is."""
    more = {"output": "anomaly", "heads": ["anomaly score"], "decoder_parameters": {"threshold": 0.5}}
    return package(tmp_path_factory.mktemp("packages"), "strange", ["normal", "anomaly"], **more)


@pytest.fixture(scope="session")
def objects_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a package that finds objects."""
    more = {"output": "instances", "decoder": "watershed", "heads": ["interior", "boundary", "distance"]}
    return package(tmp_path_factory.mktemp("packages"), "objects", ["background", "cell"], **more)


def write_images(folder: Path, count: int, *, size: int = 48) -> list[Path]:
    """Write images that differ, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"image_{number:02}.tif" for number in range(count)]
    for number, path in enumerate(paths):
        pixels = np.random.default_rng(number).integers(0, 4000, (size, size + number % 5)).astype(np.uint16)
        tifffile.imwrite(path, pixels)
    return paths


class Recorder:
    """Keeps the events of a batch."""

    def __init__(self) -> None:
        self.events: list[BatchEvent] = []

    def __call__(self, event: BatchEvent) -> None:
        self.events.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def ends(self) -> dict[str, TaskEnded]:
        return {event.name: event for event in self.of(TaskEnded)}


@pytest.fixture
def told() -> Recorder:
    return Recorder()


@pytest.fixture(name="write_images")
def _write_images() -> Callable[..., list[Path]]:
    """Return `write_images`: tests cannot import from here."""
    return write_images


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Return six images in a folder of their own."""
    return write_images(tmp_path / "raw", 6)


@pytest.fixture
def job(tmp_path: Path, images: list[Path], classes_model: str) -> BatchJob:
    """Return a job for `images`."""
    return BatchJob(models=(classes_model,), inputs=(str(tmp_path / "raw"),), output=str(tmp_path / "out"), report=False)
