"""Models of two kinds for napari-tileseg: each is a small JSON file."""

import json
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from napari_tileseg import ModelSpec, from_module
from napari_tileseg.models.loaders.registry import Loader

BRIGHT = Loader(
    "bright",
    "Bright components",
    (".bright.json",),
    detect="example_models:is_bright",
    read_spec="example_models:read_bright",
    load="example_models:load_bright",
)


def is_bright(path: Path) -> bool:
    return path.name.endswith(".bright.json")


def read_bright(path: Path) -> ModelSpec:
    """Without torch and weights: cards are shown in lists."""
    return ModelSpec(
        name=path.name.removesuffix(".bright.json"),
        axes="CYX",
        channels=1,
        classes=["background", "component"],
        window=(128, 128),
        overlap=0.25,  # the shared strips should be about as wide as the objects
        output="labels",
    )


class Bright:
    """Whatever has a card, a device, and can be called is a model. This one numbers the bright components of each tile."""

    def __init__(self, spec: ModelSpec, device: str, least: float) -> None:
        self.spec, self.device, self.least = spec, device, least

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        labels = [ndimage.label(tile > self.least)[0] for tile in batch[:, 0].cpu().numpy()]
        return torch.from_numpy(np.stack(labels)[:, None])  # (N, 1, Y, X), from 1 in each tile anew


def load_bright(path: Path, spec: ModelSpec, device: str) -> Bright:
    return Bright(spec, device, json.loads(path.read_text(encoding="utf-8"))["least"])


ORDINARY = Loader(
    "ordinary",
    "Ordinary pixels",
    (".ordinary.json",),
    detect="example_models:is_ordinary",
    read_spec="example_models:read_ordinary",
    load="example_models:load_ordinary",
)


def is_ordinary(path: Path) -> bool:
    return path.name.endswith(".ordinary.json")


def read_ordinary(path: Path) -> ModelSpec:
    return ModelSpec(
        name=path.name.removesuffix(".ordinary.json"),
        axes="CYX",
        channels=1,
        classes=["normal", "anomaly"],
        window=(64, 64),
        output="anomaly",
        decoder_parameters={"threshold": json.loads(path.read_text(encoding="utf-8"))["threshold"], "median": 3, "min_size": 4},
    )


class Ordinary(torch.nn.Module):
    """The score of a pixel is the square of what is left when the mean of ordinary ones is taken off."""

    def __init__(self, mean: float) -> None:
        super().__init__()
        self.mean = mean

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return (batch - self.mean) ** 2


def load_ordinary(path: Path, spec: ModelSpec, device: str) -> object:
    return from_module(Ordinary(json.loads(path.read_text(encoding="utf-8"))["mean"]), spec, device=device)
