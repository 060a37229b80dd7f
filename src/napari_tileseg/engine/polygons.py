"""``Polygons``: star-convex shapes in the plane, and how much any two of them have in common.

Corners are whole pixels, rounded down, as those that StarDist compares are. Along a line through both polygons, the length that
they share is a sum over the edges of one of them: of what the other has beyond each crossing, with the sign of the edge's
direction. So no polygon is ever cut, and hundreds are compared at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.engine.rays import Rays

__all__ = ["Polygons"]

_LINES = 64
"""Lines through a polygon, at most; two for each row of pixels where that is less."""

_COLUMNS = 128
"""Places on a line at which what a polygon has beyond them is known; linear in between."""


class Polygons:
    """Polygons by their distances along rays.

    Parameters
    ----------
    rays : Rays
        Of the plane, in order around the centre.
    distances : ndarray of float32, shape (m, n)
        In pixels.
    """

    def __init__(self, rays: Rays, distances: NDArray[np.float32]) -> None:
        offsets = distances[..., None] * rays.directions.astype(np.float32)
        # Where a ray runs along an axis, its sine is not quite 0.
        self._corners = np.floor(offsets + np.float32(1e-5))
        self.low, self.high = self._corners.min(1), self._corners.max(1)
        y, x = self._corners[..., 0].astype(np.float64), self._corners[..., 1].astype(np.float64)
        self.sizes: NDArray[np.float64] = np.abs((x * np.roll(y, -1, 1) - y * np.roll(x, -1, 1)).sum(1)) / 2

    def common(self, number: int, others: NDArray[np.intp], away: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the area that one polygon shares with others.

        Parameters
        ----------
        number : int
            The one.
        others : ndarray of int, shape (k,)
        away : ndarray of float32, shape (k, 2)
            Their centres, seen from its centre.

        Returns
        -------
        ndarray of float64, shape (k,)
        """
        (top, left), (bottom, right) = self.low[number], self.high[number]
        if bottom <= top or right <= left:
            return np.zeros(len(others))
        count = int(min(_LINES, 2 * (bottom - top)))
        pitch = (bottom - top) / count
        lines = (top + (np.arange(count) + 0.5) * pitch).astype(np.float32)
        places, signs = _crossings(self._corners[number][None], lines)
        columns = np.linspace(left, right, _COLUMNS + 1, dtype=np.float32)
        # What the one has beyond each column, line by line.
        beyond = (signs[0, ..., None] * np.maximum(places[0, ..., None], columns) - signs[0, ..., None] * columns).sum(1)
        places, signs = _crossings(self._corners[others] + away[:, None], lines)
        scaled = np.clip((places - left) * (_COLUMNS / (right - left)), 0, _COLUMNS)
        low = np.minimum(scaled.astype(np.intp), _COLUMNS - 1)
        part = scaled - low
        flat = beyond.reshape(-1)
        start = low + np.arange(count)[:, None] * (_COLUMNS + 1)
        shared = signs * (flat[start] * (1 - part) + flat[start + 1] * part)
        areas: NDArray[np.float64] = np.abs(shared.sum((1, 2), dtype=np.float64)) * pitch
        return areas


def _crossings(corners: NDArray[np.float32], lines: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return where each edge crosses each line, and 1 or -1 by its direction, 0 where it does not: two arrays (m, lines, edges)."""
    first, second = corners, np.roll(corners, -1, axis=1)
    y, x = first[:, None, :, 0], first[:, None, :, 1]
    rise, run = second[:, None, :, 0] - y, second[:, None, :, 1] - x
    height = lines[None, :, None] - y
    meets = (height >= 0) != (height >= rise)
    with np.errstate(divide="ignore", invalid="ignore"):
        places = np.where(meets, x + height * (run / rise), np.float32(0))
    return places, np.where(meets, np.sign(rise), np.float32(0))
