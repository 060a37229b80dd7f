"""``smoothed``: surfaces without the stairs of their voxels, and as large as before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["smoothed"]

_INWARD, _OUTWARD = 0.5, -0.53
"""How far a point goes to the mean of its neighbours, and back: the second step undoes the shrinking of the first (Taubin 1995)."""


def smoothed(points: NDArray[Any], faces: NDArray[Any], rounds: int) -> NDArray[np.float64]:
    """Move the points of a closed surface to where their neighbours are, and back by a little more, some times over.

    Parameters
    ----------
    points : ndarray of float, shape (N, 3)
    faces : ndarray of int, shape (M, 3)
        Indices of points.
    rounds : int
        How often; 10 takes the stairs of voxels away, and 0 changes nothing.

    Returns
    -------
    ndarray of float64, shape (N, 3)
    """
    from scipy.sparse import coo_array, diags_array

    moved: NDArray[np.float64] = np.asarray(points, dtype=np.float64).copy()
    if not rounds or not len(faces):
        return moved
    ends = np.concatenate([faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0], [1, 0], [2, 1], [0, 2])])
    beside = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(moved), len(moved))).tocsr()
    beside.data[:] = 1.0  # an edge of two faces counts once
    counts = np.maximum(np.asarray(beside.sum(axis=1)).ravel(), 1.0)
    mean = diags_array(1.0 / counts) @ beside
    for _ in range(rounds):
        for step in (_INWARD, _OUTWARD):
            moved += step * (mean @ moved - moved)
    return moved
