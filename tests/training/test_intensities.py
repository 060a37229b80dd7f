"""Crops are changed by a share of what normalised intensities are, whatever made them so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_tileseg.engine.normalize import measure, normalize
from napari_tileseg.models.spec import Normalization, NormalizationStep
from napari_tileseg.training.intensities import is_raw, limits, usual_range

Z = Normalization(kind="zscore")
CT = Normalization(kind="range", low=100, high=200, clip=(-2.0, 3.0))
WINDOWED = (
    NormalizationStep(kind="linear", offset=(-57.0,), scale=(221.0,)),
    NormalizationStep(kind="clip", low=0.0, high=1.0),
)
RULES: dict[str, tuple[dict[str, Any], tuple[float, float]]] = {
    "none": ({}, (-100.0, 900.0)),
    "percentile": ({"kind": "percentile"}, (0.0, 1.0)),
    "zscore": ({"kind": "zscore"}, (-2.0, 2.0)),
    "channels": ({"kind": "channels", "channels": (Z, CT)}, (0.0, 1.0)),
    "window": ({"kind": "steps", "steps": WINDOWED}, (0.0, 1.0)),
    "deviations": ({"kind": "steps", "steps": (NormalizationStep(kind="mean_std"),)}, (-2.0, 2.0)),
    "sigmoid": ({"kind": "steps", "steps": (NormalizationStep(kind="mean_std"), NormalizationStep(kind="sigmoid"))}, (0.1, 0.9)),
    "bytes": ({"kind": "steps", "steps": (NormalizationStep(kind="linear", scale=(250.0, 500.0)),)}, (-0.4, 3.6)),
}


@pytest.mark.parametrize("name", RULES)
def test_most_intensities_lie_in_the_usual_range(name: str) -> None:
    told, expected = RULES[name]
    rule = Normalization(**told)
    low, high = usual_range(rule, -100.0, 900.0)
    assert (low, high) == pytest.approx(expected, abs=0.1)
    image = np.random.default_rng(0).uniform(-100, 900, (2, 60, 60))
    if rule.kind != "channels":
        values = normalize(image, measure([image], rule, 2, image.dtype), rule)
        assert np.mean((values >= low - 0.05) & (values <= high + 0.05)) > 0.95


def test_limits_are_those_that_every_channel_has() -> None:
    assert limits(Normalization(kind="channels", channels=(CT, Normalization(kind="range", clip=(-1.0, 4.0))))) == (-2.0, 4.0)
    assert limits(Normalization(kind="channels", channels=(CT, Z))) is None
    assert limits(CT) == (-2.0, 3.0)


def test_numbers_that_may_be_thousands_are_raw() -> None:
    assert is_raw(Normalization())
    assert is_raw(Normalization(kind="channels", channels=(Z, Normalization())))
    assert not is_raw(Normalization(kind="steps", steps=WINDOWED))
