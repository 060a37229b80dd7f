"""``specks``: the connected parts of a mask that have few pixels.

In a plane the mask is taken as runs of pixels in rows, of which there are far fewer than pixels; those that touch in neighbouring rows
are joined::

    row 0    ..##..###.     runs a, b        a touches c, b touches d: corners count
    row 1    .#..##..#.     runs c, d, e     c and a are a part; b, d, e another one
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from napari_tileseg.refine.scope import touching

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["specks"]

_FEW = 24
"""So many pixels for each run at least: in noise, counting pixels is faster than joining runs."""


def specks(mask: NDArray[np.bool_], min_size: float) -> NDArray[np.bool_]:
    """Return the connected parts (corners count) that have fewer pixels.

    Parameters
    ----------
    mask : ndarray of bool
        A plane or a volume.
    min_size : float
        Fewest pixels of a part that is no speck.

    Returns
    -------
    ndarray of bool, of the mask's shape
    """
    if mask.ndim == 2:
        width = mask.shape[1] + 2  # no run goes on in the next row
        rows = np.zeros((len(mask), width), np.int8)
        rows[:, 1:-1] = mask
        flat = rows.ravel()
        changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        if len(changes) // 2 * _FEW <= mask.size:
            few = _few(changes[::2], changes[1::2], width, min_size)
            sides = np.zeros(flat.size, np.int8)
            sides[changes[::2][few]] = 1
            sides[changes[1::2][few]] = -1
            return np.cumsum(sides, dtype=np.int8).view(np.bool_).reshape(rows.shape)[:, 1:-1]
    parts, _ = ndimage.label(mask, structure=touching(mask.ndim))
    small = np.bincount(parts.ravel()) < min_size
    small[0] = False
    return np.asarray(np.take(small, parts))


def _few(starts: NDArray[np.intp], stops: NDArray[np.intp], width: int, min_size: float) -> NDArray[np.bool_]:
    """Return for each run whether the part that it belongs to is a speck; runs are given in the rows put one after the other."""
    first = np.searchsorted(stops, starts + width)  # of the runs below that it touches
    count = np.maximum(np.searchsorted(starts, stops + width, side="right") - first, 0)
    above = np.repeat(np.arange(len(starts)), count)
    below = np.arange(len(above)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    touches = coo_matrix((np.ones(len(above), np.int8), (above, below)), shape=(len(starts),) * 2)
    _, parts = connected_components(touches, directed=False)
    sizes = np.bincount(parts, weights=stops - starts)
    return np.asarray(sizes[parts] < min_size)
