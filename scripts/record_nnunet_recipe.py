"""Record where nnU-Net puts its windows and how it weighs them, for tests/engine/test_nnunet_recipe.py.

Run it in an environment of its own, from the root of the repository; nothing of nnU-Net is needed to run the test::

    python -m venv nnunet-venv
    nnunet-venv/bin/pip install nnunetv2
    nnunet-venv/bin/python scripts/record_nnunet_recipe.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

TARGET = Path(__file__).parent.parent / "tests" / "engine" / "nnunet_recipe.json"
AXES = [(110, 64), (64, 64), (65, 64), (128, 64), (129, 64), (500, 96), (97, 96), (33, 5), (20, 7), (11, 3), (4, 1), (1000, 128), (37, 36)]
OVERLAPS = [0.0, 0.25, 0.3, 0.5, 0.6, 0.75, 0.9]
WINDOWS = [(9,), (16,), (12, 9), (16, 16), (32, 20), (8, 10, 7), (12, 12, 12), (5, 16, 16)]
PADDED = [((5, 9), (8, 8)), ((7, 7), (8, 16)), ((3, 40, 6), (8, 32, 9))]


def record_steps() -> list[dict[str, object]]:
    """Ask for the starts of the windows of one axis."""
    records = []
    for length, window in AXES:
        for overlap in OVERLAPS:
            (starts,) = compute_steps_for_sliding_window((length,), (window,), 1 - overlap)
            records.append({"length": length, "window": window, "overlap": overlap, "starts": starts})
    return records


def record_weights() -> list[dict[str, object]]:
    """Ask for the weights as the predictor does: half precision, largest value 10."""
    records = []
    for window in WINDOWS:
        weights = compute_gaussian(window, sigma_scale=1.0 / 8, value_scaling_factor=10, device=torch.device("cpu"))
        records.append({"window": window, "weights": weights.double().numpy().ravel().tolist()})
    return records


def record_padding() -> list[dict[str, object]]:
    """Ask how an image smaller than the window is put into it."""
    records = []
    for shape, window in PADDED:
        _, inside = pad_nd_image(np.zeros((1, *shape)), window, "constant", {"constant_values": 0}, True, None)
        records.append({"shape": shape, "window": window, "before": [int(part.start) for part in inside[1:]]})
    return records


def main() -> None:
    """Write the file."""
    recipe = {
        "source": f"nnunetv2 {version('nnunetv2')}",
        "steps": record_steps(),
        "weights": record_weights(),
        "padding": record_padding(),
    }
    TARGET.write_text(json.dumps(recipe, separators=(",", ":")) + "\n")
    print(f"{TARGET.name}: {TARGET.stat().st_size} bytes, {recipe['source']}")


if __name__ == "__main__":
    main()
