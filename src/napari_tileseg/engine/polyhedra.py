"""``Polyhedra``: star-convex shapes in space, and how much any two of them have in common."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.engine.rays import Rays

__all__ = ["Polyhedra"]

_POINTS = 4096
"""Points of the lattice in the box of a shape, about; every voxel where those are fewer."""


class Polyhedra:
    """Polyhedra by their distances along rays.

    What two share is counted in voxels of one of them, as StarDist counts it; in larger ones not every voxel counts.

    Parameters
    ----------
    rays : Rays
        Of space.
    distances : ndarray of float32, shape (m, n)
        In voxels.
    """

    def __init__(self, rays: Rays, distances: NDArray[np.float32]) -> None:
        self._rays, self._distances = rays, distances
        self.low, self.high = rays.extents(distances)
        self.sizes = rays.volumes(distances)

    def common(self, number: int, others: NDArray[np.intp], away: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the volume that one polyhedron shares with others.

        Parameters
        ----------
        number : int
            The one.
        others : ndarray of int, shape (k,)
        away : ndarray of float32, shape (k, 3)
            Their centres, seen from its centre.

        Returns
        -------
        ndarray of float64, shape (k,)
        """
        low, high = self.low[number], self.high[number]
        pitch = max(1, math.ceil((float(np.prod(high - low)) / _POINTS) ** (1 / 3)))
        sides = [np.arange(math.ceil(a / pitch), math.floor(b / pitch) + 1) * pitch for a, b in zip(low, high, strict=True)]
        points = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)
        points = points[self._rays.inside(points[None], self._distances[number][None])[0]]
        inside = self._rays.inside(points[None] - away[:, None], self._distances[others])
        result: NDArray[np.float64] = inside.sum(1, dtype=np.float64) * pitch**3
        return result
