"""``Rays``: the directions of star-convex shapes, and which points such shapes hold.

A shape is a centre and a distance along each ray; its surface is flat between neighbouring rays: a polygon in 2D, a polyhedron in
3D. A point lies between the D rays of one face: it is a sum of those, and inside where the shares, each divided by the distance of
its ray, add up to 1 at most.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import ConvexHull

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Rays", "circle", "golden_spiral"]

_CELLS = 64
"""Cells along each side of the cube on which the face of a direction is looked up."""


class Rays:
    """Directions, and the faces between them.

    Parameters
    ----------
    directions : ndarray of float64, shape (n, D)
        Vectors of length 1, slowest axis first.
    faces : ndarray of int, shape (F, D)
        Rays between which a surface is flat; together they cover all directions.
    """

    def __init__(self, directions: NDArray[np.float64], faces: NDArray[np.intp]) -> None:
        self.directions, self.faces = directions, faces
        corners = directions[faces]
        self.inverse: NDArray[np.float64] = np.asarray(np.linalg.inv(corners.transpose(0, 2, 1)), np.float64)
        self._volumes = np.abs(np.linalg.det(corners)) / math.factorial(directions.shape[1])
        self._table = _face_table(self.inverse) if directions.shape[1] == 3 else None

    @property
    def ndim(self) -> int:
        """Axes of space."""
        return int(self.directions.shape[1])

    def volumes(self, distances: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return areas or volumes of shapes, distances (m, n)."""
        products: NDArray[np.float64] = distances[:, self.faces].astype(np.float64).prod(-1)
        volumes: NDArray[np.float64] = products @ self._volumes
        return volumes

    def extents(self, distances: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return how far shapes reach below and above their centres, two arrays of shape (m, D)."""
        low, high = np.empty((2, len(distances), self.ndim), np.float32)
        for axis, along in enumerate(self.directions.T.astype(np.float32)):
            reached = distances * along
            low[:, axis], high[:, axis] = reached.min(1), reached.max(1)
        return np.minimum(low, 0), np.maximum(high, 0)

    def split(self, points: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Take points apart into the rays beside them.

        Parameters
        ----------
        points : ndarray of float32, shape (..., D)
            From the centre of a shape.

        Returns
        -------
        rays : ndarray of int, shape (..., D)
            The rays of the face.
        shares : ndarray of float32, shape (..., D)
            ``sum(share * direction)`` is the point.
        """
        if self._table is None:
            angle = np.arctan2(points[..., 0], points[..., 1]) * (len(self.faces) / (2 * np.pi))
            face = np.floor(angle).astype(np.intp) % len(self.faces)
        else:
            face = _look_up(self._table, points)
        shares = np.einsum("...ij,...j->...i", self.inverse[face].astype(np.float32), points)
        return self.faces[face], shares

    def inside(self, points: NDArray[np.float32], distances: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Tell which points each shape holds.

        Parameters
        ----------
        points : ndarray of float32, shape (m, k, D)
            From the centre of each of m shapes.
        distances : ndarray of float32, shape (m, n)

        Returns
        -------
        ndarray of bool, shape (m, k)
        """
        rays, shares = self.split(points)
        of_rays = np.take_along_axis(distances[:, None], rays.reshape(len(rays), -1)[:, None], 2).reshape(rays.shape)
        result: NDArray[np.bool_] = (shares / of_rays).sum(-1) <= 1
        return result


@lru_cache(maxsize=16)
def circle(count: int) -> Rays:
    """Return rays in the plane at equal angles, from X towards Y."""
    angles = np.arange(count) * (2 * np.pi / count)
    faces = np.stack([np.arange(count), (np.arange(count) + 1) % count], axis=1)
    return Rays(np.stack([np.sin(angles), np.cos(angles)], axis=1), faces)


@lru_cache(maxsize=16)
def golden_spiral(count: int, anisotropy: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Rays:
    """Return rays in space along a spiral from pole to pole that turns by the golden angle (Vogel), a Fibonacci lattice.

    Parameters
    ----------
    count : int
        Number of rays, at least 4.
    anisotropy : tuple of float
        Size of a voxel along Z, Y and X: the lattice is even in the world, not in voxels.
    """
    turns = (3 - math.sqrt(5)) * np.pi * np.arange(count)
    height = np.linspace(-1, 1, count)
    radius = np.sqrt(1 - height**2)
    points = np.stack([height, radius * np.sin(turns), radius * np.cos(turns)], axis=1) / np.asarray(anisotropy)
    faces = ConvexHull(points).simplices.astype(np.intp)
    return Rays(points / np.linalg.norm(points, axis=1, keepdims=True), faces)


def _face_table(inverse: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the face that lies in the direction of each cell of a cube's sides, shape (6, cells, cells)."""
    places = (np.arange(_CELLS) + 0.5) * (2 / _CELLS) - 1
    first, second = np.meshgrid(places, places, indexing="ij")
    table = np.empty((6, _CELLS, _CELLS), np.intp)
    for side in range(6):
        axis, sign = side // 2, 1 if side % 2 else -1
        points = np.insert(np.stack([first, second], -1), axis, sign, axis=-1).reshape(-1, 3)
        shares = np.einsum("fij,pj->pfi", inverse, points).min(-1)
        table[side] = shares.argmax(1).reshape(_CELLS, _CELLS)
    return table


def _look_up(table: NDArray[np.intp], points: NDArray[np.float32]) -> NDArray[np.intp]:
    axis = np.abs(points).argmax(-1)
    along = np.take_along_axis(points, axis[..., None], -1)[..., 0]
    safe = np.where(along == 0, 1, np.abs(along))
    scaled = points / safe[..., None]
    others = np.array([[1, 2], [0, 2], [0, 1]])[axis]
    cells = np.clip(((np.take_along_axis(scaled, others, -1) + 1) * (_CELLS / 2)).astype(np.intp), 0, _CELLS - 1)
    faces: NDArray[np.intp] = table[2 * axis + (along > 0), cells[..., 0], cells[..., 1]]
    return faces
