"""Where to look first: orders of objects, from what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.blocks import blocks, shape_of
from napari_tileseg.refine.draft import Draft

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.index import Position

__all__ = ["by_disagreement", "by_outlier", "by_size", "by_uncertainty", "disagreement", "mean_uncertainty"]


def by_uncertainty(values: ArrayLike) -> NDArray[np.intp]:
    """Return row numbers, the most uncertain first; rows without a value (NaN) come last, equal ones in their order."""
    return _descending(np.asarray(values, np.float64))


def by_size(sizes: ArrayLike) -> NDArray[np.intp]:
    """Return row numbers, the most unusual size first: by how many robust deviations its logarithm is from the median."""
    values = np.asarray(sizes, np.float64)
    return _descending(_unusual(np.log(np.where(values > 0, values, np.nan))))


def by_outlier(table: Mapping[str, Any], columns: Sequence[str]) -> NDArray[np.intp]:
    """Return row numbers, those first that are most unlike the others.

    Parameters
    ----------
    table : mapping of str to array
        One value per object in each column.
    columns : sequence of str
        Which to look at: of each object the column counts in which it is most unusual, in robust deviations from the median.

    Raises
    ------
    OptionsError
        If none of these columns is there.
    """
    there = [column for column in columns if column in table]
    if not there:
        raise OptionsError(f"The table has none of the columns {', '.join(columns)}; it has {', '.join(table)}.")
    values = np.stack([_unusual(np.asarray(table[column], np.float64)) for column in there])
    nothing = np.isnan(values).all(axis=0)
    return _descending(np.where(nothing, np.nan, np.nan_to_num(values, nan=-1.0).max(axis=0)))


def by_disagreement(overlaps: ArrayLike) -> NDArray[np.intp]:
    """Return row numbers, the least overlap (`disagreement`) first."""
    return _descending(-np.asarray(overlaps, np.float64))


def mean_uncertainty(
    canvas: Canvas, uncertainty: Any, *, at: Position = (), cancel: Callable[[], bool] | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the ids at a position, ascending, and the mean of an array (on the labels' grid) over each object."""
    if tuple(uncertainty.shape) != canvas.shape:
        raise InputError(f"The uncertainty has shape {tuple(uncertainty.shape)}, the labels {canvas.shape}.")
    ids, sizes = canvas.index.table(at)
    sums = np.zeros(len(ids))
    for labels, values in _blocks(canvas, uncertainty, at, cancel):
        numbers, inside = _numbers(labels, ids)
        known = np.nan_to_num(np.asarray(values[inside], np.float64), posinf=0, neginf=0)
        sums += np.bincount(numbers, known, minlength=len(ids))
    return ids, sums / np.maximum(sizes, 1)


def disagreement(
    canvas: Canvas, other: Any, *, at: Position = (), cancel: Callable[[], bool] | None = None
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Compare labels with others of the same image, for example of another model.

    Parameters
    ----------
    canvas : Canvas
    other : array-like of int
        On the labels' grid.
    at : Position
        Time point.
    cancel : callable, optional

    Returns
    -------
    ids : ndarray
        At that position, ascending.
    overlaps : ndarray of float64
        Of each object the largest intersection over union with an object of the other labels; of classes, with the same class.
    """
    if tuple(other.shape) != canvas.shape:
        raise InputError(f"The other labels have shape {tuple(other.shape)}, these {canvas.shape}. Choose labels of the same image.")
    ids, sizes = canvas.index.table(at)
    totals: dict[int, int] = {}
    shared: dict[tuple[int, int], int] = {}
    for labels, others in _blocks(canvas, other, at, cancel):
        values, counts = np.unique(others[others != 0], return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            totals[value] = totals.get(value, 0) + count
        numbers, inside = _numbers(labels, ids)
        theirs, places = np.unique(others[inside], return_inverse=True)
        pairs, counts = np.unique(numbers * max(len(theirs), 1) + places, return_counts=True)
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            mine, theirs_at = divmod(pair, len(theirs))
            if theirs[theirs_at]:
                key = (mine, int(theirs[theirs_at]))
                shared[key] = shared.get(key, 0) + count
    best = np.zeros(len(ids))
    for (mine, theirs_id), count in shared.items():
        if not canvas.classes or theirs_id == ids[mine]:
            best[mine] = max(best[mine], count / (int(sizes[mine]) + totals[theirs_id] - count))
    return ids, best


def _blocks(canvas: Canvas, other: Any, at: Position, cancel: Callable[[], bool] | None) -> Any:
    draft, place = Draft(canvas, cancel), canvas.place(at)
    chunks = canvas.chunks
    for box in blocks(
        tuple(slice(0, canvas.shape[axis]) for axis in place.axes), [chunks[axis] for axis in place.axes] if chunks else None
    ):
        yield draft.read(place, box), np.asarray(other[place.full(box)]).reshape(shape_of(box))


def _numbers(labels: NDArray[Any], ids: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Return the row of each pixel's object, and where there is one."""
    inside = labels != 0
    return np.searchsorted(ids, labels[inside]), inside


def _unusual(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many robust deviations each value is away from the median; NaN stays."""
    known = values[np.isfinite(values)]
    if not len(known):
        return np.full(len(values), np.nan)
    away = np.abs(np.where(np.isfinite(values), values, np.nan) - np.median(known))
    spread = 1.4826 * float(np.nanmedian(away)) or float(np.nanmean(away)) or 1.0
    return np.asarray(away / spread)


def _descending(values: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.argsort(np.where(np.isnan(values), np.inf, -values), kind="stable")
