"""Scores against references: properties first, then brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_tileseg.errors import InputError
from napari_tileseg.training.metrics import average_precision, dice, intersection_over_union

LABELS = hnp.arrays(np.int32, (5, 6), elements=st.integers(0, 4))


def brute_precision(prediction: np.ndarray, reference: np.ndarray, threshold: float) -> float:
    """Try every assignment of predicted to true objects."""
    predicted = [prediction == number for number in np.unique(prediction) if number]
    true = [reference == number for number in np.unique(reference) if number]
    if not predicted and not true:
        return 1.0
    good = np.array([[(p & t).sum() / (p | t).sum() >= threshold for t in true] for p in predicted]).reshape(len(predicted), len(true))
    small, large = (good, good.T)[:: 1 if len(predicted) <= len(true) else -1]
    choices = itertools.permutations(range(len(large)), len(small))
    matched = max(sum(small[row, column] for row, column in enumerate(columns)) for columns in choices)
    return matched / (len(predicted) + len(true) - matched)


@given(prediction=LABELS, reference=LABELS, threshold=st.sampled_from([0.05, 0.2, 0.34, 0.5, 0.51, 0.75, 1.0]))
def test_average_precision_equals_brute_force(prediction: np.ndarray, reference: np.ndarray, threshold: float) -> None:
    assert average_precision(prediction, reference, [threshold])[0] == pytest.approx(brute_precision(prediction, reference, threshold))


@given(prediction=LABELS, reference=LABELS)
def test_average_precision_is_symmetric_and_falls_with_the_threshold(prediction: np.ndarray, reference: np.ndarray) -> None:
    thresholds = [0.1, 0.3, 0.5, 0.7, 0.9]
    scores = average_precision(prediction, reference, thresholds)
    np.testing.assert_allclose(scores, average_precision(reference, prediction, thresholds))
    assert (np.diff(scores) <= 0).all()
    assert ((scores >= 0) & (scores <= 1)).all()


@given(reference=LABELS, seed=st.integers(0, 1000))
def test_numbers_of_objects_do_not_matter(reference: np.ndarray, seed: int) -> None:
    names = np.concatenate([[0], np.random.default_rng(seed).permutation(1000)[:4] + 1])
    assert average_precision(names[reference], reference, [1.0])[0] == 1.0


@given(prediction=LABELS, reference=LABELS)
def test_dice_is_that_of_the_definition(prediction: np.ndarray, reference: np.ndarray) -> None:
    for number, score in zip(range(1, 5), dice(prediction, reference, range(1, 5)), strict=True):
        a, b = {*np.flatnonzero(prediction == number)}, {*np.flatnonzero(reference == number)}
        assert score == pytest.approx(2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0)


def test_half_of_the_union_is_enough_at_one_half() -> None:
    reference = np.array([[1, 1, 1, 1, 0, 2, 2, 2]])
    prediction = np.array([[3, 3, 0, 0, 0, 1, 1, 1]])
    np.testing.assert_allclose(average_precision(prediction, reference, [0.5, 0.51]), [1.0, 1 / 3])


def test_an_object_cut_in_two_halves_counts_once() -> None:
    reference = np.array([[1, 1, 1, 1]])
    prediction = np.array([[1, 1, 2, 2]])
    assert average_precision(prediction, reference, [0.5])[0] == pytest.approx(0.5)


def test_overlaps_are_in_the_order_of_the_numbers() -> None:
    reference = np.array([[0, 7, 7, 9]])
    prediction = np.array([[5, 5, 2, 2]])
    np.testing.assert_allclose(intersection_over_union(prediction, reference).toarray(), [[1 / 3, 1 / 2], [1 / 3, 0]])


def test_nothing_against_nothing_is_perfect_and_against_something_is_not() -> None:
    nothing, something = np.zeros((3, 3), int), np.eye(3, dtype=int)
    assert average_precision(nothing, nothing)[0] == 1.0
    assert average_precision(nothing, something)[0] == 0.0
    np.testing.assert_array_equal(dice(nothing, nothing, [1, 2]), [1, 1])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 2\), the reference \(2, 3\)"):
        average_precision(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(InputError, match="must be equal"):
        dice(np.zeros((2, 2), int), np.zeros((2, 3), int), [1])
