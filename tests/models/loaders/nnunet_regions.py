"""A cascade of nnU-Net with regions, made of a trained model with regions: its second stage sees labels through weights at random.

Nobody has trained it; what counts is that nnU-Net's predictor and this program make the same of it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["CASES", "NAME", "STAGES", "write"]

TRAINED = Path(__file__).parent / "nnunet" / "Dataset902_HippocampusRegions" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
NAME = "Dataset904_HippocampusRegionsCascade"
STAGES = tuple(f"nnUNetTrainer__nnUNetPlans__{name}" for name in ("3d_lowres", "3d_cascade_fullres"))
CASES: tuple[dict[str, Any], ...] = (
    {"name": "plain", "spacing": [1.0, 1.0, 1.0]},
    {"name": "slices", "spacing": [4.0, 0.9, 0.9]},
    {"name": "fine", "spacing": [0.8, 0.7, 0.9]},
)


def write(folder: Path) -> Path:
    """Write both stages into a folder, and return that of the dataset."""
    target = folder / NAME
    plans = json.loads((TRAINED / "plans.json").read_text())
    whole = plans["configurations"]["3d_fullres"]
    coarse = {**whole, "spacing": [1.6, 1.6, 1.6], "patch_size": [20, 24, 20], "next_stage": "3d_cascade_fullres"}
    second = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    plans["configurations"] = {"3d_fullres": whole, "3d_lowres": coarse, "3d_cascade_fullres": second}
    content = torch.load(TRAINED / "fold_0" / "checkpoint_final.pth", map_location="cpu", weights_only=False)
    random = np.random.default_rng(904)
    for stage in STAGES:
        place = target / stage
        (place / "fold_0").mkdir(parents=True)
        shutil.copy(TRAINED / "dataset.json", place)
        (place / "plans.json").write_text(json.dumps(plans))
        weights = dict(content["network_weights"])
        if stage == STAGES[1]:
            added = torch.from_numpy(random.normal(0, 0.6, (6, 2, 3, 3, 3)).astype(np.float32))
            for name, value in weights.items():
                if value.ndim == 5 and value.shape[1] == 1:
                    weights[name] = torch.cat([value, added], 1)
        init = {"plans": plans, "dataset_json": content["init_args"]["dataset_json"], "configuration": stage.rpartition("__")[2], "fold": 0}
        kept = {name: content[name] for name in ("trainer_name", "inference_allowed_mirroring_axes")}
        torch.save({"network_weights": weights, "init_args": init, **kept}, place / "fold_0" / "checkpoint_final.pth")
    return target
