"""Models of nnU-Net's Primus trainers: the network follows from the trainer's name, and comes from a package that may be missing."""

from __future__ import annotations

import json
import shutil
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from nnunet_cases import HERE
from torch import nn

from napari_tileseg import SegmentOptions, segment
from napari_tileseg.errors import ModelError
from napari_tileseg.models.loaders.nnunet.primus import MODULE, NAMES
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec

if TYPE_CHECKING:
    from pathlib import Path

TRAINED = HERE / "Dataset901_Hippocampus" / "nnUNetTrainer__nnUNetPlans__3d_fullres"


class Sized(nn.Module):
    """Stands for the networks whose size has a name; takes windows of one size only."""

    def __init__(self, *, input_channels: int, output_channels: int, patch_embed_size: Any, input_shape: Any, **more: Any) -> None:
        super().__init__()
        self.given = {"patch_embed_size": patch_embed_size, "input_shape": input_shape, **more}
        self.layer = nn.Conv3d(input_channels, output_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert list(x.shape[2:]) == self.given["input_shape"]
        scores: torch.Tensor = self.layer(x)
        return scores


def results(folder: Path, trainer: str, network: nn.Module) -> Path:
    """Write what nnU-Net writes: plans that name another network."""
    target = folder / "Dataset901_Hippocampus" / f"{trainer}__nnUNetPlans__3d_fullres"
    (target / "fold_0").mkdir(parents=True)
    shutil.copy(TRAINED / "dataset.json", target)
    plans = json.loads((TRAINED / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["patch_size"] = [16, 24, 16]
    (target / "plans.json").write_text(json.dumps(plans))
    content = {"network_weights": network.state_dict(), "trainer_name": trainer, "init_args": {"configuration": "3d_fullres"}}
    torch.save({**content, "inference_allowed_mirroring_axes": None}, target / "fold_0" / "checkpoint_final.pth")
    return target


@pytest.mark.parametrize(
    ("trainer", "name"),
    [
        ("nnUNet_Primus_S_Trainer", "PrimusS"),
        ("nnUNet_Primus_M_Trainer_BS8_2e4", "PrimusM"),
        ("nnUNet_PrimusV2L_Trainer", "PrimusV2L"),
        ("nnUNet_PrimusV3B_Trainer", "PrimusV3B"),
    ],
)
def test_the_trainer_says_which_network(trainer: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType(MODULE)
    setattr(module, name, Sized)
    for parent in ("dynamic_network_architectures", "dynamic_network_architectures.architectures"):
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
    monkeypatch.setitem(sys.modules, MODULE, module)
    torch.manual_seed(1)  # with some weights one class wins everywhere
    network = Sized(input_channels=1, output_channels=3, patch_embed_size=8, input_shape=[16, 24, 16])
    path = results(tmp_path, trainer, network)
    spec = find_spec(str(path))
    assert (spec.fixed_window, spec.window) == (True, (16, 24, 16))
    model: Any = load_model(str(path), device="cpu")
    given = {"patch_embed_size": [8, 8, 8], "input_shape": [16, 24, 16], "scale_attn_inner": True, "init_values": 0.1}
    assert model.module.given == given
    image = np.random.default_rng(0).normal(size=(18, 30, 20)).astype(np.float32)
    labels = segment(image, model, axes="ZYX", options=SegmentOptions(device="cpu")).labels
    assert len(np.unique(labels)) > 1


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = results(tmp_path, "nnUNet_Primus_S_Trainer", nn.Conv3d(1, 3, 1))
    monkeypatch.setitem(sys.modules, "dynamic_network_architectures", None)
    with pytest.raises(ModelError, match=r'not installed\. Install it: pip install "napari-tileseg\[nnunet\]"'):
        load_model(str(path), device="cpu")
    assert find_spec(str(path)).fixed_window, "its card needs nothing"


def test_packages_that_do_not_fit_each_other_are_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = results(tmp_path, "nnUNet_Primus_S_Trainer", nn.Conv3d(1, 3, 1))

    def broken(name: str) -> ModuleType:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("napari_tileseg.models.loaders.nnunet.network.import_module", broken)
    with pytest.raises(ModelError, match=r"PrimusS cannot be imported: operator torchvision::nms does not exist\. The packages torch"):
        load_model(str(path), device="cpu")


def test_no_other_name_is_imported() -> None:
    assert len(NAMES) == 15
    assert all(name.startswith(f"{MODULE}.Primus") for name in NAMES)
