"""One small network, written in every format that can hold it."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_tileseg.models.nets import build_network

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ARGUMENTS: dict[str, Any] = {"spatial_dims": 2, "in_channels": 2, "out_channels": 3, "channels": [4, 6], "stem_channels": 4}
SAID: dict[str, Any] = {
    "axes": "CYX",
    "channels": ["a", "b"],
    "classes": ["background", "one", "two"],
    "window": [32, 32],
    "multiple_of": 4,
}


@pytest.fixture
def small() -> torch.nn.Module:
    torch.manual_seed(3)
    module = build_network("residual_unet", **ARGUMENTS)
    with torch.no_grad():
        for _ in range(3):
            module(torch.randn(4, 2, 32, 32))  # running statistics that are no round numbers
        module.eval()
        module.head.bias -= module(torch.randn(1, 2, 64, 64)).mean((0, 2, 3))  # so that every class wins somewhere
    return module.eval().requires_grad_(False)


@pytest.fixture
def image() -> NDArray[np.float32]:
    return np.random.default_rng(5).normal(size=(2, 70, 83)).astype(np.float32)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own"
    monkeypatch.setenv("TILESEG_MODELS", str(folder))
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    return folder


def write_torchscript(module: torch.nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, torch.zeros(1, 2, 32, 32)).save(path)
    return path


def write_pt2(module: torch.nn.Module, path: Path, *, fixed: bool = False) -> Path:
    from torch.export import Dim

    shapes = None if fixed else ({0: Dim("n"), 2: 4 * Dim("h", min=2), 3: 4 * Dim("w", min=2)},)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (torch.zeros(1 if fixed else 2, 2, 32, 40 if not fixed else 32),), dynamic_shapes=shapes)
        torch.export.save(program, path)
    return path


def write_onnx(module: torch.nn.Module, path: Path, *, fixed: bool = False) -> Path:
    axes = {"image": {0: "n", 2: "h", 3: "w"}, "scores": {0: "n", 2: "h", 3: "w"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(1, 2, 32, 32),),
            path,
            dynamo=False,
            input_names=["image"],
            output_names=["scores"],
            dynamic_axes=None if fixed else axes,
        )
    return path


def say(path: Path, **said: Any) -> None:
    """Write a side-car."""
    path.with_suffix(".tileseg.json").write_text(json.dumps({**SAID, **said}))


@pytest.fixture
def tools() -> SimpleNamespace:
    """Return what writes the small network in each format, and what a user would say of it."""
    write = {"torchscript": write_torchscript, "pt2": write_pt2, "onnx": write_onnx}
    return SimpleNamespace(
        SAID=SAID, ARGUMENTS=ARGUMENTS, say=say, write=write, **{f"write_{kind}": writer for kind, writer in write.items()}
    )
