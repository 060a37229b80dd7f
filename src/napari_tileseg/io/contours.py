"""Contours along the edges of pixels: exact polygons of a mask, and the mask that polygons cover.

::

    x 0   1   2   3        pixel (0, 0) covers the square from corner (0, 0) to corner (1, 1);
    y ┌───┬───┐            the shell runs clockwise as seen on the screen, with the mask on its right:
    0 │ ■ │ ■ │            (0, 0) → (2, 0) → (2, 1) → (1, 1) → (1, 2) → (0, 2) → (0, 0)
    1 ├───┼───┘
      │ ■ │                where two pixels touch by a corner only, the line keeps to its own pixel,
    2 └───┘                so that each polygon is one piece of 4-connected pixels
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Ring = list[list[int]]
    Polygon = list[Ring]

__all__ = ["fill", "polygons"]

_AHEAD = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Step (y, x) of each direction: right, down, left, up."""


def polygons(mask: NDArray[np.bool_], *, top: int = 0, left: int = 0) -> list[Polygon]:
    """Return the polygons of a mask: simple rings through corners of pixels, the shell first, then its holes.

    Filled again (`fill`), they cover exactly the pixels of the mask. No ring touches itself, and holes touch others at
    single points at most, as GeoJSON and the programs behind it ask for.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
    top, left : int
        Where the mask lies in its image, in pixels.

    Returns
    -------
    list of polygons
        One for each 4-connected piece. A ring is a list of ``[x, y]``; the last point is the first one.
    """
    from scipy import ndimage

    pieces, count = ndimage.label(mask)
    if not count:
        return []
    found: list[Polygon] = [[] for _ in range(count)]
    for piece, ring in _rings(np.pad(pieces, 1)):
        placed = [[x + left, y + top] for y, x in ring]
        if _turning(ring) > 0:
            found[piece - 1].insert(0, placed)
        else:
            found[piece - 1].append(placed)
    return found


def _rings(pieces: NDArray[Any]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield the simple rings around and within each piece; `pieces` has a border of zeros."""
    after, owner = _edges(pieces)
    wide = pieces.shape[1]
    for begin, piece in owner.items():
        edge, trail, seen = begin, list[int](), dict[int, int]()
        while trail or edge in after:
            corner = edge >> 2
            if corner in seen:  # the line touches itself here: what it has gone round since then is a ring of its own
                first = seen[corner]
                yield piece, _corners(trail[first:], wide)
                for gone in trail[first:]:
                    del seen[gone >> 2]
                del trail[first:]
                continue
            seen[corner] = len(trail)
            trail.append(edge)
            edge = after.pop(edge)


def _edges(pieces: NDArray[Any]) -> tuple[dict[int, int], dict[int, int]]:
    """Return which edge follows each, and whose it is.

    An edge is ``4 * corner + direction``; it starts at its corner, and has its own pixel on the right.
    """
    wide = pieces.shape[1]
    keys, owners = [], []
    for way, (own, other, row, column) in enumerate(
        (
            (np.s_[1:, :], np.s_[:-1, :], 1, 0),  # above a pixel, to the right
            (np.s_[:, :-1], np.s_[:, 1:], 0, 1),  # right of it, down
            (np.s_[:-1, :], np.s_[1:, :], 1, 1),  # below it, to the left
            (np.s_[:, 1:], np.s_[:, :-1], 1, 1),  # left of it, up
        )
    ):
        inside = pieces[own]
        y, x = np.nonzero((inside != pieces[other]) & (inside != 0))
        keys.append(4 * ((y + row) * wide + x + column) + way)
        owners.append(inside[y, x])
    edges: NDArray[np.int64] = np.concatenate(keys).astype(np.int64)
    owned = np.concatenate(owners)
    direction = edges & 3
    steps = np.array([y * wide + x for y, x in _AHEAD], np.int64)
    ends = (edges >> 2) + steps[direction]
    # At the end of an edge: right if the pixel ahead on the right is not of the piece (the line keeps to its own pixel), straight
    # on if the one ahead on the left is not, else left.
    flat = pieces.ravel()
    ahead_right, ahead_left = _beside(ends, direction, wide)
    turn = np.where(flat[ahead_right] != owned, 1, np.where(flat[ahead_left] != owned, 0, -1))
    following = 4 * ends + (direction + turn) % 4
    return dict(zip(edges.tolist(), following.tolist(), strict=True)), dict(zip(edges.tolist(), owned.tolist(), strict=True))


def _beside(corner: NDArray[np.int64], direction: NDArray[np.int64], wide: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pixels ahead of a corner, right and left of the direction; corner (y, x) is the upper left one of pixel (y, x)."""
    around = np.array([0, -1, -wide - 1, -wide])  # lower right of the corner, lower left, upper left, upper right
    return corner + around[direction], corner + around[(direction + 3) % 4]


def _corners(trail: list[int], wide: int) -> list[tuple[int, int]]:
    """Return the points (y, x) where a ring of edges turns, without the border; the first one again at the end."""
    before = [trail[-1], *trail[:-1]]
    points = [divmod(edge >> 2, wide) for edge, last in zip(trail, before, strict=True) if edge & 3 != last & 3]
    ring = [(y - 1, x - 1) for y, x in points]
    return [*ring, ring[0]]


def _turning(ring: Sequence[tuple[int, int]]) -> int:
    """Return twice the area that a ring goes round, positive if clockwise on the screen."""
    return sum(x * below - right * y for (y, x), (below, right) in itertools.pairwise(ring))


def fill(rings: Iterable[Any], shape: tuple[int, int], *, top: float = 0, left: float = 0) -> NDArray[np.bool_]:
    """Return which pixels have their centre inside an odd number of rings, so that holes stay open.

    Parameters
    ----------
    rings : iterable of array-like, shape (N, 2)
        Points ``[x, y]`` in pixels; pixel (0, 0) covers the square from 0 to 1.
    shape : tuple of int
        Rows and columns of the result.
    top, left : float
        Where the result lies in the image.
    """
    toggles = np.zeros((shape[0], shape[1] + 1), np.int64)
    for ring in rings:
        points = np.asarray(ring, np.float64)[:, :2] - (left, top)
        x, y = points[:, 0], points[:, 1]
        x_to, y_to = np.roll(x, -1), np.roll(y, -1)
        # Rows whose centre lies between both ends of a line.
        first = np.clip(np.ceil(np.minimum(y, y_to) - 0.5), 0, shape[0]).astype(np.int64)
        last = np.clip(np.ceil(np.maximum(y, y_to) - 0.5), 0, shape[0]).astype(np.int64)
        count = last - first
        line = np.repeat(np.arange(len(x)), count)
        row = np.repeat(first - np.cumsum(count) + count, count) + np.arange(count.sum())
        along = (row + 0.5 - y[line]) / (y_to - y)[line]
        crossing = x[line] + along * (x_to - x)[line]
        column = np.clip(np.ceil(crossing - 0.5), 0, shape[1]).astype(np.int64)
        np.add.at(toggles, (row, column), 1)
    inside: NDArray[np.bool_] = np.cumsum(toggles[:, :-1], axis=1) % 2 == 1
    return inside
