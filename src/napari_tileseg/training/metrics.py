"""Scores of a prediction against a reference: Dice of each class, average precision of objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from napari_tileseg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["average_precision", "dice", "intersection_over_union"]


def dice(prediction: NDArray[Any], reference: NDArray[Any], classes: Sequence[int]) -> NDArray[np.float64]:
    """Compute 2 |A and B| / (|A| + |B|) for each class.

    Parameters
    ----------
    prediction, reference : ndarray of int, same shape
        Class of each pixel.
    classes : sequence of int
        Which to compare.

    Returns
    -------
    ndarray of float64, shape (len(classes),)
        1 where a class is in neither.
    """
    _check_shapes(prediction, reference)
    scores = []
    for number in classes:
        predicted, true = prediction == number, reference == number
        total = int(predicted.sum()) + int(true.sum())
        scores.append(2 * int((predicted & true).sum()) / total if total else 1.0)
    return np.array(scores)


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
    _check_shapes(prediction, reference)
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


def _check_shapes(prediction: NDArray[Any], reference: NDArray[Any]) -> None:
    if prediction.shape != reference.shape:
        raise InputError(f"The prediction has the shape {prediction.shape}, the reference {reference.shape}. They must be equal.")
