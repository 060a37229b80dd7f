"""The "even" steps and the "nnunet" weights are those of nnU-Net, recorded by scripts/record_nnunet_recipe.py."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_tileseg.engine.arrays import sliding_scores
from napari_tileseg.engine.places import steps_even
from napari_tileseg.engine.tiles import plan_tiles
from napari_tileseg.engine.weights import importance

RECIPE: dict[str, Any] = json.loads((Path(__file__).parent / "nnunet_recipe.json").read_text())


def test_steps_are_equal() -> None:
    assert len(RECIPE["steps"]) > 50
    for record in RECIPE["steps"]:
        assert steps_even(record["length"], record["window"], record["overlap"]) == record["starts"], record


@pytest.mark.parametrize("record", RECIPE["weights"], ids=lambda record: "x".join(map(str, record["window"])))
def test_weights_are_equal_to_half_precision(record: dict[str, Any]) -> None:
    expected = np.array(record["weights"]).reshape(record["window"])
    found = importance(tuple(record["window"]), "nnunet")
    assert found.min() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=6e-8)  # one step of half precision, there and near zero
    assert np.mean(found == expected) > 0.99


@pytest.mark.parametrize("record", RECIPE["padding"], ids=lambda record: "x".join(map(str, record["shape"])))
def test_a_small_image_lies_where_nnunet_puts_it(record: dict[str, Any]) -> None:
    plan = plan_tiles(tuple(record["shape"]), tuple(record["window"]), overlap=0.5, steps="even", blending="nnunet")
    assert [before for before, _ in plan.padding] == record["before"]


def test_blended_scores_are_the_weighted_average_over_the_recorded_windows() -> None:
    rng = np.random.default_rng(3)
    length, window = (110, 33), (64, 5)
    starts = [
        next(r["starts"] for r in RECIPE["steps"] if (r["length"], r["window"], r["overlap"]) == (size, side, 0.5))
        for size, side in zip(length, window, strict=True)
    ]
    image = rng.normal(size=(1, *length)).astype(np.float32)
    ramp = torch.from_numpy(rng.normal(size=window).astype(np.float32))  # the answer depends on where in the window a pixel lies
    weights = importance(window, "nnunet").astype(np.float64)
    total, norm = np.zeros(length), np.zeros(length)
    for start in product(*starts):
        box = tuple(slice(begin, begin + side) for begin, side in zip(start, window, strict=True))
        total[box] += weights * (image[0][box] + ramp.numpy())
        norm[box] += weights
    found = sliding_scores(image, lambda batch: batch + ramp, window, heads=1, overlap=0.5, steps="even", blending="nnunet")
    expected = total / norm
    assert np.abs(found[0] - expected).max() <= 1e-5 * np.abs(expected).max()
