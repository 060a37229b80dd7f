"""Normalisations of several steps: equal to NumPy's own arithmetic on the whole array, for any split into blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_tileseg.engine.histogram import KEPT, Histogram
from napari_tileseg.engine.normalize import Statistics, measure, normalize
from napari_tileseg.models.spec import Normalization, NormalizationStep


def steps(*given: dict[str, Any]) -> Normalization:
    return Normalization(kind="steps", steps=tuple(NormalizationStep(**step) for step in given))


def image(dtype: str) -> np.ndarray:
    generator = np.random.default_rng(3)
    values = generator.gamma(2.0, 300.0, (2, 12, 30, 20)) * (generator.random((2, 12, 30, 20)) > 0.3)
    values[1] *= 3
    return values.astype(dtype)


def cut(array: np.ndarray) -> list[np.ndarray]:
    return [array[:, :5], array[:, 5:6], array[:, 6:]]


def percentile(x: np.ndarray, percent: float, *, joint: bool = False) -> np.ndarray:
    return np.percentile(x, percent) if joint else np.percentile(x.reshape(len(x), -1), percent, axis=1).reshape(-1, 1, 1, 1)


def zscore(x: np.ndarray, eps: float) -> np.ndarray:
    return (x - x.mean((1, 2, 3), keepdims=True)) / (x.std((1, 2, 3), keepdims=True) + eps)


def rescaled(x: np.ndarray, lower: float, upper: float) -> np.ndarray:
    return (x - percentile(x, lower)) / (percentile(x, upper) - percentile(x, lower))


def nonzero(x: np.ndarray) -> np.ndarray:
    out = x.astype(float)
    for channel in out:
        inside = channel != 0
        channel[inside] = (channel[inside] - channel[inside].mean()) / channel[inside].std()
    return out


CASES = {
    "linear": (
        steps({"kind": "linear", "offset": (5.0, -3.0), "scale": (2.0, 4.0)}),
        lambda x: (x - [[[[5]]], [[[-3]]]]) / [[[[2]]], [[[4]]]],
    ),
    "mean_std": (steps({"kind": "mean_std", "eps": 1e-6}), lambda x: zscore(x, 1e-6)),
    "joint": (steps({"kind": "mean_std", "joint": True}), lambda x: (x - x.mean()) / x.std()),
    "nonzero": (steps({"kind": "mean_std", "nonzero": True}), nonzero),
    "percentiles": (
        steps({"kind": "percentiles", "lower": 1.0, "upper": 99.5, "eps": 1e-6}),
        lambda x: (x - percentile(x, 1)) / (percentile(x, 99.5) - percentile(x, 1) + 1e-6),
    ),
    "percentiles, then mean_std of what was clipped": (
        steps(
            {"kind": "percentiles", "lower": 2.0, "upper": 98.0, "joint": True},
            {"kind": "clip", "low": 0.0, "high": 1.0},
            {"kind": "mean_std", "eps": 1e-6},
        ),
        lambda x: zscore(np.clip((x - percentile(x, 2, joint=True)) / np.ptp(np.percentile(x, [2, 98])), 0, 1), 1e-6),
    ),
    "measured on the image itself": (
        steps(
            {"kind": "linear", "offset": (100.0,), "scale": (10.0,)},
            {"kind": "mean_std", "original": True},
            {"kind": "percentiles", "lower": 5.0, "upper": 95.0},
        ),
        lambda x: rescaled(((x - 100) / 10 - x.mean((1, 2, 3), keepdims=True)) / x.std((1, 2, 3), keepdims=True), 5, 95),
    ),
    "clip at percentiles": (
        steps({"kind": "clip", "lower": 5.0, "upper": 95.0, "method": "inverted_cdf", "joint": True}),
        lambda x: np.clip(x, *np.percentile(x, [5, 95], method="inverted_cdf")),
    ),
    "binarize": (steps({"kind": "binarize", "threshold": (400.0, 600.0)}), lambda x: x > [[[[400]]], [[[600]]]]),
    "sigmoid": (
        steps({"kind": "linear", "offset": (500.0,), "scale": (100.0,)}, {"kind": "sigmoid"}),
        lambda x: 1 / (1 + np.exp(-(x - 500) / 100)),
    ),
}


@pytest.mark.parametrize("dtype", ["uint16", "float32", "int32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_steps_are_those_of_the_whole_array(name: str, dtype: str) -> None:
    rule, truth = CASES[name]
    array = image(dtype)
    statistics = measure(cut(array), rule, 2, array.dtype)
    found = np.concatenate([normalize(block, statistics, rule) for block in cut(array)], axis=1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, truth(array.astype(np.float64)), rtol=2e-5, atol=2e-5)


def test_measurements_survive_a_journal() -> None:
    import json

    rule = CASES["percentiles, then mean_std of what was clipped"][0]
    statistics = measure(cut(image("uint16")), rule, 2, np.dtype("uint16"))
    assert Statistics.from_dict(json.loads(json.dumps(statistics.to_dict()))) == statistics


def test_flat_image_is_not_divided_by_zero() -> None:
    rule = steps({"kind": "mean_std"}, {"kind": "percentiles", "lower": 0, "upper": 100})
    flat = np.full((1, 4, 4), 7, np.uint8)
    assert not normalize(flat, measure([flat], rule, 1, flat.dtype), rule).any()


def test_image_of_zeros_has_nothing_to_measure() -> None:
    rule = steps({"kind": "mean_std", "nonzero": True})
    black = np.zeros((1, 4, 4), np.float32)
    assert not normalize(black, measure([black], rule, 1, black.dtype), rule).any()


def test_large_images_are_counted_instead_of_kept() -> None:
    values = np.linspace(1, 1000, KEPT // 4 + 1, dtype=np.float32)
    histogram = Histogram(values.dtype, exact=True)
    for _ in range(4):
        histogram.add(values)
    assert histogram.percentile(50) == pytest.approx(500.5, rel=1e-3)
    assert histogram.percentile(50, "inverted_cdf") == pytest.approx(500.5, rel=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "percentiles", "lower": 5.0},
        {"kind": "percentiles", "lower": 5.0, "upper": 5.0},
        {"kind": "clip"},
        {"kind": "clip", "low": 0.0, "lower": 1.0},
        {"kind": "linear", "scale": (0.0,)},
    ],
)
def test_step_that_cannot_be_taken_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        NormalizationStep(**wrong)
