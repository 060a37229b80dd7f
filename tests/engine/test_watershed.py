"""The watershed decoder: what it returns for a component depends on that component alone."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_tileseg.engine.watershed import DEFAULTS, decode, foreground, margin
from napari_tileseg.errors import ModelError, OptionsError

PARAMETERS = {"border_weight": 0.7, "depth": 0.15}
SHAPES = st.one_of(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)))


def scene(shape: tuple[int, ...], seed: int, *, ties: bool) -> np.ndarray:
    """Random smooth scores; with ties there are only few different heights, hence many plateaus."""
    generator = np.random.default_rng(seed)
    scores = ndimage.gaussian_filter(generator.standard_normal((3, *shape)), (0, *(1.2,) * len(shape))).astype(np.float32)
    scores *= np.array([12, 12, 2]).reshape(3, *(1,) * len(shape))
    if ties:
        scores = np.round(scores * 2) / 2
    return scores


def components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    return ndimage.label(mask, np.ones((3,) * mask.ndim))


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1]))


def discs(shape: tuple[int, int], *circles: tuple[float, float, float]) -> np.ndarray:
    """Scores of round objects: foreground and border are certain, the distance falls from 1 to 0."""
    y, x = np.indices(shape)
    cones = [1 - np.hypot(y - row, x - column) / radius for row, column, radius in circles]
    distance = np.max([*cones, np.zeros(shape)], axis=0).astype(np.float32)
    return np.stack([np.where(distance > 0, 9, -9), np.full(shape, -20), distance]).astype(np.float32)


@given(shape=SHAPES, seed=st.integers(0, 10**6), ties=st.booleans())
@settings(deadline=None, max_examples=60)
def test_each_component_is_decoded_as_if_it_were_alone(shape: tuple[int, ...], seed: int, ties: bool) -> None:
    scores = scene(shape, seed, ties=ties)
    whole = decode(scores, PARAMETERS)
    parts, count = components(foreground(scores, PARAMETERS))
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        inside = parts[box] == number
        alone = scores[(slice(None), *box)].copy()
        alone[0][~inside] = -50
        alone[1:, ~inside] = 1000  # scores beside the component must not matter
        expected = np.where(inside, whole[box], 0)
        assert same_partition(decode(alone, PARAMETERS), expected)
    assert count == len(ndimage.find_objects(parts))


@given(shape=SHAPES, seed=st.integers(0, 10**6), ties=st.booleans(), shift=st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_objects_move_with_the_image(shape: tuple[int, ...], seed: int, ties: bool, shift: int) -> None:
    scores = scene(shape, seed, ties=ties)
    moved = np.pad(scores, [(0, 0), *[(shift, 2)] * len(shape)], constant_values=-50)
    inner = tuple(slice(shift, shift + length) for length in shape)
    np.testing.assert_array_equal(decode(moved, PARAMETERS)[inner], decode(scores, PARAMETERS))


@given(shape=SHAPES, seed=st.integers(0, 10**6), ties=st.booleans())
@settings(deadline=None, max_examples=40)
def test_objects_cover_the_foreground_and_are_numbered_in_the_order_of_the_scan(shape: tuple[int, ...], seed: int, ties: bool) -> None:
    scores = scene(shape, seed, ties=ties)
    labels = decode(scores, PARAMETERS)
    assert labels.dtype == np.int32
    assert labels.shape == shape
    np.testing.assert_array_equal(labels > 0, foreground(scores, PARAMETERS))
    numbers, first = np.unique(labels[labels > 0], return_index=True)
    np.testing.assert_array_equal(numbers, np.arange(1, len(numbers) + 1))
    assert (np.diff(first) > 0).all()


@given(shape=SHAPES, seed=st.integers(0, 10**6), ties=st.booleans())
@settings(deadline=None, max_examples=40)
def test_every_object_is_connected_and_deeper_summits_are_fewer(shape: tuple[int, ...], seed: int, ties: bool) -> None:
    scores = scene(shape, seed, ties=ties)
    counts = []
    for depth in (0.0, 0.2, 1.0, np.inf):
        labels = decode(scores, {**PARAMETERS, "depth": depth})
        counts.append(labels.max())
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            assert components(labels[box] == number)[1] == 1
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == components(foreground(scores, PARAMETERS))[1]


def test_touching_discs_are_two_objects_cut_half_way() -> None:
    labels = decode(discs((41, 61), (20, 20, 12), (20, 40, 12)), {"depth": 0.1})
    assert labels.max() == 2
    assert labels[20, 20] == 1
    assert labels[20, 40] == 2
    assert set(np.unique(labels[:, 10:30])) == {0, 1}
    assert set(np.unique(labels[:, 31:50])) == {0, 2}


def test_a_shallow_waist_does_not_cut() -> None:
    labels = decode(discs((41, 61), (20, 28, 12), (20, 32, 12)), {"depth": 0.3})
    assert labels.max() == 1


def test_a_border_cuts_where_the_distance_does_not() -> None:
    scores = discs((41, 61), (20, 30, 18))
    scores[1, :, 30] = 9
    assert decode(scores, {"depth": 0.2, "border_weight": 1.0}).max() == 2
    assert decode(scores, {"depth": 0.2, "border_weight": 0.0}).max() == 1


def test_a_flat_object_is_one_object() -> None:
    scores = np.zeros((3, 20, 30), np.float32)
    scores[0] = -5
    scores[0, 3:17, 4:25] = 5
    assert decode(scores, DEFAULTS).max() == 1


def test_small_faint_and_low_objects_go() -> None:
    scores = discs((40, 80), (20, 15, 4), (20, 40, 10), (20, 65, 10))
    scores[0][:, 55:][scores[0][:, 55:] > 0] = 0.1
    assert decode(scores, {}).max() == 3
    assert decode(scores, {"min_size": 100}).max() == 2
    assert decode(scores, {}, min_size=100).max() == 2
    assert decode(scores, {"min_size": 100}, min_size=10).max() == 2
    assert decode(scores, {"min_score": 0.8}).max() == 2
    scores[2][:, :25] *= 0.3
    assert decode(scores, {"min_height": 0.5}).max() == 2


def test_threshold_is_the_least_probability() -> None:
    scores = np.zeros((3, 1, 5), np.float32)
    scores[0, 0] = [-1e30, -1, 0, 1, 1e30]
    for threshold, expected in ((0, 5), (0.1, 4), (0.5, 3), (0.6, 2), (0.9, 1), (1, 0)):
        assert foreground(scores, {}, threshold).sum() == expected
    with pytest.raises(OptionsError, match=r"threshold = 1\.5"):
        foreground(scores, {}, 1.5)


def test_a_bias_moves_the_threshold() -> None:
    scores = discs((40, 80), (20, 20, 10), (20, 60, 10))
    scores[0] = np.where(scores[0] > 0, 1, -1)
    shifted = scores.copy()
    shifted[0] += 2.5
    parameters = {"foreground_bias": 2.5, "min_score": 0.7}
    np.testing.assert_array_equal(foreground(scores, parameters, 0.9), foreground(shifted, {}, 0.9))
    np.testing.assert_array_equal(decode(scores, parameters, threshold=0.9), decode(shifted, {"min_score": 0.7}, threshold=0.9))
    assert decode(scores, parameters, threshold=0.9).max() == 2


def test_nothing_in_nothing_out() -> None:
    scores = np.full((3, 7, 9), -5, np.float32)
    assert not decode(scores, PARAMETERS).any()
    assert margin(PARAMETERS) == 0


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(ModelError, match=r"3 score channels .* the model has 2"):
        decode(np.zeros((2, 5, 5), np.float32), PARAMETERS)


def test_scores_are_left_as_they_are() -> None:
    scores = scene((30, 30), 1, ties=False)
    before = scores.copy()
    decode(scores, PARAMETERS)
    np.testing.assert_array_equal(scores, before)


def test_a_large_field_takes_seconds_not_minutes() -> None:
    field = np.tile(discs((64, 64), (15, 15, 14), (17, 40, 13), (44, 20, 15), (45, 46, 16)), (1, 16, 16))
    start = time.perf_counter()
    labels = decode(field, PARAMETERS)
    assert labels.max() >= 700
    assert time.perf_counter() - start < 5
