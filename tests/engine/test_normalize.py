"""Normalisation: measured in any blocks, equal to numpy on the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.normalize import Statistics, measure, normalize
from napari_tileseg.models.spec import Normalization

PERCENTILE = Normalization(kind="percentile", lower=1, upper=99.8, joint=True)
ZSCORE = Normalization(kind="zscore")


def _image(dtype: str, seed: int, channels: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.gamma(2.0, 30.0, (channels, 37, 41)) - (40 if np.dtype(dtype).kind in "if" else 0)
    limits = np.iinfo(dtype) if np.dtype(dtype).kind in "ui" else None
    return (np.clip(values, limits.min, limits.max) if limits else values).astype(dtype)


@given(seed=st.integers(0, 1000), cut=st.integers(1, 36), dtype=st.sampled_from(["u1", "i1", "<u2", ">u2", "i2"]))
@settings(deadline=None, max_examples=40)
def test_percentiles_of_short_integers_are_numpys_in_any_blocks(seed: int, cut: int, dtype: str) -> None:
    image = _image(dtype, seed)
    statistics = measure([image[:, :cut], image[:, cut:]], PERCENTILE, 1, image.dtype)
    lower, upper = np.percentile(image, [1, 99.8])
    assert statistics.offset[0] == pytest.approx(lower, abs=1e-9)
    assert statistics.offset[0] + statistics.scale[0] == pytest.approx(upper, abs=1e-9)


@given(seed=st.integers(0, 1000), cut=st.integers(1, 36), dtype=st.sampled_from(["f4", "f8", ">f4", "i4", "u4"]))
@settings(deadline=None, max_examples=30)
def test_percentiles_of_other_types_are_numpys_to_a_thousandth(seed: int, cut: int, dtype: str) -> None:
    image = _image(dtype, seed)
    statistics = measure([image[:, :cut], image[:, cut:]], PERCENTILE, 1, image.dtype)
    lower, upper = np.percentile(image.astype(float), [1, 99.8])
    assert statistics.offset[0] == pytest.approx(lower, rel=1e-3, abs=1e-6)
    assert statistics.offset[0] + statistics.scale[0] == pytest.approx(upper, rel=1e-3)


@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 36), max_size=4, unique=True))
@settings(deadline=None, max_examples=30)
def test_mean_and_deviation_do_not_depend_on_the_blocks(seed: int, cuts: list[int]) -> None:
    image = _image("f4", seed, channels=2) + 1000
    statistics = measure(np.split(image, sorted(cuts), axis=1), ZSCORE, 2, image.dtype)
    np.testing.assert_allclose(statistics.offset, image.astype(float).mean(axis=(1, 2)), rtol=1e-9)
    np.testing.assert_allclose(statistics.scale, image.astype(float).std(axis=(1, 2)), rtol=1e-9)


def test_zscore_gives_mean_zero_and_deviation_one() -> None:
    image = _image("u2", 3)
    result = normalize(image, measure([image], ZSCORE, 1, image.dtype), ZSCORE)
    assert result.dtype == np.float32
    assert result.mean() == pytest.approx(0, abs=1e-5)
    assert result.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("dtype", ["bool", "u1", ">u2", "i8", "f2", ">f8"])
def test_every_dtype_gives_the_same_numbers(dtype: str) -> None:
    image = (np.arange(64).reshape(1, 8, 8) % 2).astype(dtype)
    rule = Normalization(kind="zscore")
    np.testing.assert_allclose(np.unique(normalize(image, measure([image], rule, 1, image.dtype), rule)), [-1, 1], atol=1e-6)


def test_an_inverted_image_normalises_to_the_same_numbers() -> None:
    rule = Normalization(kind="percentile", lower=0, upper=100, joint=True, invert="auto")
    dark = np.zeros((1, 20, 20), np.uint8)
    dark[:, 5:9, 5:9] = 200
    light = 200 - dark
    measured = measure([light], rule, 1, light.dtype)
    assert measured.inverted
    assert not measure([dark], rule, 1, dark.dtype).inverted
    np.testing.assert_allclose(normalize(light, measured, rule), normalize(dark, measure([dark], rule, 1, dark.dtype), rule), atol=1e-6)


def test_colours_are_kept_by_joint_statistics_and_lost_without() -> None:
    image = np.stack([np.full((8, 8), 10), np.full((8, 8), 20), np.arange(64).reshape(8, 8)]).astype(np.uint8)
    joint = Normalization(kind="percentile", lower=0, upper=100, joint=True)
    result = normalize(image, measure([image], joint, 3, image.dtype), joint)
    assert result[0].mean() < result[1].mean()


def test_nan_and_infinities_are_counted_and_count_as_zero() -> None:
    image = np.ones((1, 4, 4), np.float32)
    image[0, 0, :3] = [np.nan, np.inf, -np.inf]
    statistics = measure([image], ZSCORE, 1, image.dtype)
    assert statistics.nonfinite == 3
    assert np.isfinite(normalize(image, statistics, ZSCORE)).all()


def test_a_constant_image_divides_by_nothing() -> None:
    image = np.full((1, 5, 5), 7, np.uint16)
    for rule in (PERCENTILE, ZSCORE):
        statistics = measure([image], rule, 1, image.dtype)
        assert statistics.constant
        np.testing.assert_array_equal(normalize(image, statistics, rule), 0)


def test_few_bright_spots_are_not_a_constant_image() -> None:
    image = np.zeros((1, 100, 100), np.uint8)
    image[0, 50, 50] = 9
    statistics = measure([image], PERCENTILE, 1, image.dtype)
    assert not statistics.constant
    assert normalize(image, statistics, PERCENTILE).max() == pytest.approx(1)


def test_wide_integers_keep_their_digits() -> None:
    image = (10**9 + np.arange(16)).reshape(1, 4, 4)
    rule = Normalization(kind="zscore")
    result = normalize(image, measure([image], rule, 1, image.dtype), rule)
    assert len(np.unique(result)) == 16


def test_clip_comes_last_and_statistics_survive_a_dictionary() -> None:
    rule = Normalization(kind="range", low=0, high=10, clip=(-0.2, 1.5))
    image = np.array([[[-100.0, 5.0, 100.0]]])
    statistics = measure([image], rule, 1, image.dtype)
    np.testing.assert_allclose(normalize(image, statistics, rule), [[[-0.2, 0.5, 1.5]]])
    assert Statistics.from_dict(statistics.to_dict()) == statistics
