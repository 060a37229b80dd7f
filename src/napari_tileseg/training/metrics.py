"""Scores of a prediction against a reference: Dice and Jaccard of each class; precision, F1, Dice and panoptic quality of objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from napari_tileseg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "GlandScores",
    "average_precision",
    "check_shapes",
    "dice",
    "gland_scores",
    "intersection_over_union",
    "jaccard",
    "panoptic_quality",
]


def dice(prediction: NDArray[Any], reference: NDArray[Any], classes: Sequence[int], *, empty: float = 1.0) -> NDArray[np.float64]:
    """Compute 2 |A and B| / (|A| + |B|) for each class.

    Parameters
    ----------
    prediction, reference : ndarray of int, same shape
        Class of each pixel.
    classes : sequence of int
        Which to compare.
    empty : float
        The score of a class that is in neither; NaN leaves it out of means.

    Returns
    -------
    ndarray of float64, shape (len(classes),)
        0 where a class is in one of them only.
    """
    check_shapes(prediction, reference)
    scores = []
    for number in classes:
        predicted, true = prediction == number, reference == number
        total = int(predicted.sum()) + int(true.sum())
        scores.append(2 * int((predicted & true).sum()) / total if total else empty)
    return np.array(scores)


def jaccard(dices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union, |A and B| / |A or B|, that belongs to a Dice."""
    return dices / (2 - dices)


def intersection_over_union(prediction: NDArray[Any], reference: NDArray[Any]) -> sparse.csr_array:
    """Compute the overlap of every pair of objects that touch.

    Parameters
    ----------
    prediction, reference : ndarray of int, same shape
        Objects; 0 is background.

    Returns
    -------
    sparse array of float64, shape (objects predicted, objects in the reference)
        In the order of their numbers.
    """
    check_shapes(prediction, reference)
    predicted, predicted_sizes = _compact(prediction)
    true, true_sizes = _compact(reference)
    both = (predicted > 0) & (true > 0)
    rows, columns = predicted[both] - 1, true[both] - 1
    shape = (len(predicted_sizes), len(true_sizes))
    shared = sparse.coo_array((np.ones(len(rows), np.int64), (rows, columns)), shape=shape).tocsr().tocoo()
    union = predicted_sizes[shared.row] + true_sizes[shared.col] - shared.data
    return sparse.coo_array((shared.data / union, (shared.row, shared.col)), shape=shape).tocsr()


def _compact(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the flat labels with objects numbered 1, 2, 3, ..., and the objects' sizes."""
    flat = labels.ravel()
    objects, sizes = np.unique(flat[flat != 0], return_counts=True)
    compact = np.zeros(len(flat), np.int64)
    compact[flat != 0] = np.searchsorted(objects, flat[flat != 0]) + 1
    return compact, sizes


def average_precision(prediction: NDArray[Any], reference: NDArray[Any], thresholds: Sequence[float] = (0.5,)) -> NDArray[np.float64]:
    """Compute AP = TP / (TP + FP + FN) at each threshold of the intersection over union (Caicedo et al., 2019).

    Each object may be matched once; the matching has the most pairs there can be with at least that overlap.

    Parameters
    ----------
    prediction, reference : ndarray of int, same shape
        Objects; 0 is background.
    thresholds : sequence of float
        In (0, 1]; a pair counts from this overlap on.

    Returns
    -------
    ndarray of float64, shape (len(thresholds),)
        1 where neither has an object.
    """
    overlaps = intersection_over_union(prediction, reference)
    predicted, true = overlaps.shape
    return np.array([_precision(overlaps, predicted, true, threshold) for threshold in thresholds])


def _precision(overlaps: sparse.csr_array, predicted: int, true: int, threshold: float) -> float:
    if not predicted + true:
        return 1.0
    pairs = overlaps.tocoo()
    good = pairs.data >= threshold
    if threshold > 0.5:
        # More than half of the union: no object can have two such partners.
        matched = int(good.sum())
    else:
        matched = _matching(pairs.row[good], pairs.col[good])
    return matched / (predicted + true - matched)


def _matching(rows: NDArray[Any], columns: NDArray[Any]) -> int:
    """Return the largest number of pairs in which no row and no column occurs twice."""
    if len(np.unique(rows)) == len(rows) and len(np.unique(columns)) == len(columns):
        return len(rows)
    row, column = np.unique(rows, return_inverse=True)[1], np.unique(columns, return_inverse=True)[1]
    possible = np.zeros((row.max() + 1, column.max() + 1))
    possible[row, column] = 1
    chosen = linear_sum_assignment(possible, maximize=True)
    return int(possible[chosen].sum())


def panoptic_quality(prediction: NDArray[Any], reference: NDArray[Any]) -> float:
    """Compute the panoptic quality of objects (Kirillov et al., 2019, equation 1).

    The sum of the intersections over union of all pairs above one half, over TP + FP / 2 + FN / 2.

    Returns
    -------
    float
        1 where neither has an object.
    """
    overlaps = intersection_over_union(prediction, reference)
    predicted, true = overlaps.shape
    if not predicted + true:
        return 1.0
    good = overlaps.data[overlaps.data > 0.5]
    return float(good.sum() / ((predicted + true) / 2))


class GlandScores(NamedTuple):
    """Scores of the GlaS challenge for one image, and what is needed to pool them over many.

    Parameters
    ----------
    f1 : float
        2 P R / (P + R) of detected objects; NaN where neither image has one.
    object_dice : float
        Dice of each object with its partner, weighted by area, from both sides; NaN where neither image has an object.
    found, spurious, missed : int
        True positives, false positives, false negatives.
    """

    f1: float
    object_dice: float
    found: int
    spurious: int
    missed: int


def gland_scores(prediction: NDArray[Any], reference: NDArray[Any]) -> GlandScores:
    """Score objects as the GlaS challenge does (Sirinukunwattana et al., Medical Image Analysis 35, 2017).

    An object's partner is the one of the other image that it shares most pixels with. A segmented object is found when it covers at
    least half of its partner in the reference; a reference object without such a partner is missed.

    Parameters
    ----------
    prediction, reference : ndarray of int, same shape
        Objects; 0 is background.
    """
    check_shapes(prediction, reference)
    predicted, predicted_sizes = _compact(prediction)
    true, true_sizes = _compact(reference)
    if not len(predicted_sizes) + len(true_sizes):
        return GlandScores(float("nan"), float("nan"), 0, 0, 0)
    both = (predicted > 0) & (true > 0)
    shape = (len(predicted_sizes), len(true_sizes))
    shared = sparse.coo_array((np.ones(int(both.sum()), np.int64), (predicted[both] - 1, true[both] - 1)), shape=shape).tocsr()
    partners, common = _partners(shared)
    good = (common > 0) & (2 * common >= true_sizes[partners]) if len(true_sizes) else np.zeros(len(partners), bool)
    found, detected = int(good.sum()), len(np.unique(partners[good]))
    spurious, missed = len(predicted_sizes) - found, len(true_sizes) - detected
    f1 = 2 * found / (2 * found + spurious + missed)
    sides = [_weighted_dice(shared, predicted_sizes, true_sizes), _weighted_dice(shared.T.tocsr(), true_sizes, predicted_sizes)]
    return GlandScores(f1, sum(sides) / 2, found, spurious, missed)


def _partners(shared: sparse.csr_array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each row the column with most shared pixels, and how many those are; 0 and 0 where there is none."""
    rows, columns = shared.shape
    if not rows or not columns:
        return np.zeros(rows, np.int64), np.zeros(rows, np.int64)
    return np.asarray(shared.argmax(axis=1)).ravel(), np.asarray(shared.max(axis=1).todense()).ravel()


def _weighted_dice(shared: sparse.csr_array, sizes: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """Return the Dice of each row's object with its partner, weighted by the object's share of all their pixels."""
    if not len(sizes) or not len(others):
        return 0.0
    partners, common = _partners(shared)
    return float((sizes / sizes.sum() * 2 * common / (sizes + others[partners])).sum())


def check_shapes(prediction: NDArray[Any], reference: NDArray[Any]) -> None:
    """Raise InputError where two arrays cannot be compared pixel by pixel."""
    if prediction.shape != reference.shape:
        raise InputError(f"The prediction has the shape {prediction.shape}, the reference {reference.shape}. They must be equal.")
