"""``shown_at`` and ``drawn_at``: between the pixels of a layer and the places of the world at which napari draws them.

napari cuts an oblique layer along its own axes and draws the cut without what of its matrix leads out of the slice. What a person
points at is what is drawn there, so the mouse and rectangles go by the same two parts of the matrix; of layers that lie along the
world's axes they are all of it. ::

              displayed  hidden
    displayed [   A         . ]     world = A pixel + translation     along the axes on the canvas
    hidden    [   .         . ]     pixel = B world + translation     along the others, B a part of the inverse
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.widgets.layers import layer_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer
    from numpy.typing import ArrayLike, NDArray

__all__ = ["drawn_at", "is_oblique", "shown_at"]


def is_oblique(layer: Layer) -> bool:
    """Whether napari draws a layer otherwise than it lies, in some order of the axes at least."""
    linear = layer_matrix(layer)[:-1, :-1]
    return layer.ndim > 2 and bool(np.abs(linear - np.diag(np.diag(linear))).max() > 1e-6 * np.abs(linear).max())


def shown_at(layer: Layer, place: ArrayLike, displayed: Sequence[int]) -> NDArray[np.float64]:
    """Return the pixel of a layer that is drawn at a place.

    Parameters
    ----------
    layer : Layer
    place : array-like of float
        Along the viewer's axes, of which the layer has the last ones.
    displayed : sequence of int
        The viewer's axes on the canvas.

    Returns
    -------
    ndarray of float64, shape (layer.ndim,)
        Between pixels too.
    """
    world = _own(layer, place)
    matrix, shown, hidden = _parts(layer, np.size(place), displayed)
    back = _inverse(matrix)
    block = _inverse(_part(matrix, shown))
    if back is None or block is None:
        return np.asarray(layer.world_to_data(world), dtype=np.float64)
    pixel = np.empty(layer.ndim)
    pixel[shown] = (block @ [*world[shown], 1])[:-1]
    pixel[hidden] = (_part(back, hidden) @ [*world[hidden], 1])[:-1]
    return pixel


def drawn_at(layer: Layer, pixel: ArrayLike, displayed: Sequence[int], ndim: int) -> NDArray[np.float64]:
    """Return the place at which a pixel of a layer is drawn; the opposite of `shown_at`.

    Parameters
    ----------
    layer : Layer
    pixel : array-like of float, of length layer.ndim
    displayed : sequence of int
        The viewer's axes on the canvas.
    ndim : int
        How many axes the viewer has.

    Returns
    -------
    ndarray of float64, shape (ndim,)
        0 along axes that the layer does not have.
    """
    place, own = np.zeros(ndim), np.asarray(pixel, dtype=np.float64)
    matrix, shown, hidden = _parts(layer, ndim, displayed)
    back = _inverse(matrix)
    block = None if back is None else _inverse(_part(back, hidden))
    if block is None:
        place[ndim - layer.ndim :] = layer.data_to_world(own)
        return place
    world = np.empty(layer.ndim)
    world[shown] = (_part(matrix, shown) @ [*own[shown], 1])[:-1]
    world[hidden] = (block @ [*own[hidden], 1])[:-1]
    place[ndim - layer.ndim :] = world
    return place


def _own(layer: Layer, place: ArrayLike) -> NDArray[np.float64]:
    """Return a place along the layer's axes only; 0 along those that are missing."""
    given = np.asarray(place, dtype=np.float64)[-layer.ndim :]
    return np.concatenate([np.zeros(layer.ndim - len(given)), given])


def _parts(layer: Layer, ndim: int, displayed: Sequence[int]) -> tuple[NDArray[np.float64], list[int], list[int]]:
    """Return the layer's matrix and which of its axes are on the canvas and which are not."""
    before = max(ndim, layer.ndim, max(displayed, default=0) + 1) - layer.ndim
    shown = [axis - before for axis in displayed if axis >= before]
    return layer_matrix(layer), shown, [axis for axis in range(layer.ndim) if axis not in shown]


def _part(matrix: NDArray[np.float64], axes: Sequence[int]) -> NDArray[np.float64]:
    """Leave only some axes of a matrix with its translation."""
    kept = [*axes, len(matrix) - 1]
    return matrix[np.ix_(kept, kept)]


def _inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return the inverse; None where a matrix turns an axis out of sight altogether."""
    if abs(np.linalg.det(matrix)) < 1e-12 * max(float(np.abs(matrix[:-1, :-1]).max(initial=0)), 1e-300) ** (len(matrix) - 1):
        return None
    return np.asarray(np.linalg.inv(matrix), np.float64)
