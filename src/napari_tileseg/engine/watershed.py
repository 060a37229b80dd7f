"""The decoder "watershed": scores of foreground, border and distance to objects, each inside one component of the foreground.

Every foreground pixel climbs to its highest neighbour until it stands on a summit; the pixels of a summit are a basin. Two basins
that meet at a saddle belong to one object unless both summits rise above that saddle by at least `depth` (the persistence, or
dynamics, of the lower summit: Grimaud, Proc. SPIE 1769, 1992). The landscape is ``distance - border_weight * sigmoid(border)``.

Nothing here looks outside the foreground, at the whole image, or at absolute positions: the objects of a component (pixels that
touch at sides or corners) are the same wherever the component lies and whatever lies beside it.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import ModelError, OptionsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["DEFAULTS", "decode", "foreground", "margin"]

DEFAULTS: dict[str, float] = {
    "foreground_bias": 0.0,
    "border_weight": 1.0,
    "depth": 0.1,
    "min_size": 0.0,
    "min_score": 0.0,
    "min_height": 0.0,
}
"""What each parameter is where the model does not say.

``foreground_bias``: what is added to the foreground's logit, so that one half is the best threshold. ``border_weight``: how deep
a certain border cuts into the distance. ``depth``: least persistence of an object's summit. ``min_size``: fewest pixels.
``min_score``: least mean probability of the foreground in an object (0 to 1). ``min_height``: least distance score at an object's
highest pixel.
"""

_FOREGROUND, _BORDER, _DISTANCE = 0, 1, 2


def margin(parameters: Mapping[str, float]) -> int:
    """Return how many pixels around a component can change its objects: none."""
    return 0


def foreground(scores: NDArray[np.float32], parameters: Mapping[str, float], threshold: float = 0.5) -> NDArray[np.bool_]:
    """Return where objects can be.

    Parameters
    ----------
    scores : ndarray of float32, shape (3, *spatial)
        Raw scores: foreground (logit), border (logit), distance (0 outside to 1 in an object's middle).
    parameters : mapping of str to float
        See `DEFAULTS`.
    threshold : float
        Least probability of the foreground, 0 to 1.

    Returns
    -------
    ndarray of bool, shape (*spatial)
    """
    if not 0 <= threshold <= 1:
        raise OptionsError(f"threshold = {threshold} is not accepted: give a number from 0 to 1.")
    if threshold in (0, 1):  # the logit of these is infinite
        return np.full(scores.shape[1:], threshold == 0)
    bias = parameters.get("foreground_bias", DEFAULTS["foreground_bias"])
    result: NDArray[np.bool_] = scores[_FOREGROUND] >= np.float32(math.log(threshold / (1 - threshold)) - bias)
    return result


def decode(
    scores: NDArray[np.float32], parameters: Mapping[str, float], *, threshold: float = 0.5, min_size: float = 0
) -> NDArray[np.int32]:
    """Turn scores into objects.

    Parameters
    ----------
    scores : ndarray of float32, shape (3, *spatial)
        As for `foreground`, 2D or 3D.
    parameters : mapping of str to float
        See `DEFAULTS`.
    threshold : float
        Least probability of the foreground, 0 to 1.
    min_size : float
        Fewest pixels of an object, if more than the parameters say.

    Returns
    -------
    ndarray of int32, shape (*spatial)
        Objects from 1 to n in the order in which a scan of the array meets them; 0 is background.

    Raises
    ------
    ModelError
        If there are not three score channels.
    """
    if len(scores) != 3:
        raise ModelError(f'The decoder "watershed" needs 3 score channels (foreground, border, distance); the model has {len(scores)}.')
    values = {**DEFAULTS, **parameters}
    # A rim of one pixel, so that neighbours can be found by adding to a flat index.
    mask = np.pad(foreground(scores, parameters, threshold), 1)
    pixels = np.flatnonzero(mask)
    labels = np.zeros(mask.size, np.int32)
    if len(pixels):
        heights = np.full(mask.size, -np.inf, np.float32)
        inside = mask[(slice(1, -1),) * mask.ndim]
        border = _sigmoid(scores[_BORDER][inside])
        heights[pixels] = scores[_DISTANCE][inside] - np.float32(values["border_weight"]) * border
        basins, count = _climb(heights, pixels, _neighbours(mask.shape))
        objects = _merge(heights, pixels, basins, count, _neighbours(mask.shape), values["depth"])
        kept = _select(objects, scores[:, inside], values, min_size)
        labels[pixels] = kept
    return np.ascontiguousarray(labels.reshape(mask.shape)[(slice(1, -1),) * mask.ndim])


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    # tanh does not overflow.
    result: NDArray[np.float32] = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * x))
    return result


def _neighbours(shape: tuple[int, ...]) -> list[int]:
    """Return the flat offsets of all neighbours at sides and corners, ascending."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    steps = itertools.product((-1, 0, 1), repeat=len(shape))
    return sorted(sum(step * stride for step, stride in zip(move, strides, strict=True)) for move in steps if any(move))


def _climb(heights: NDArray[np.float32], pixels: NDArray[np.intp], neighbours: list[int]) -> tuple[NDArray[np.int32], int]:
    """Return the basin of each pixel, numbered from 0, and how many there are."""
    # Of equally high neighbours the last one in the scan counts: a total order, so no pixel can walk in circles on a plateau.
    best, uphill = np.full(len(pixels), -np.inf, np.float32), pixels.copy()
    for offset in sorted([*neighbours, 0]):
        candidate = heights[pixels + offset]
        higher = candidate >= best
        best[higher] = candidate[higher]
        uphill[higher] = pixels[higher] + offset
    position = np.zeros(len(heights), np.int32)
    position[pixels] = np.arange(len(pixels), dtype=np.int32)
    summit = position[uphill]
    while True:
        further = summit[summit]
        if np.array_equal(further, summit):
            break
        summit = further
    tops = np.flatnonzero(summit == np.arange(len(pixels)))
    number = np.zeros(len(pixels), np.int32)
    number[tops] = np.arange(len(tops), dtype=np.int32)
    return number[summit], len(tops)


def _merge(
    heights: NDArray[np.float32], pixels: NDArray[np.intp], basins: NDArray[np.int32], count: int, neighbours: list[int], depth: float
) -> NDArray[np.int32]:
    """Unite basins across saddles that are not deep enough; return the number of the object of each pixel."""
    first, second, saddle = _saddles(heights, pixels, basins, count, neighbours)
    peak = np.full(count, -np.inf, np.float32)
    np.maximum.at(peak, basins, heights[pixels])
    parent, top = list(range(count)), peak.tolist()

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for a, b, height in zip(first.tolist(), second.tolist(), saddle.tolist(), strict=True):
        one, other = root(a), root(b)
        if one != other and min(top[one], top[other]) - height < depth:
            parent[other] = one
            top[one] = max(top[one], top[other])
    return np.array([root(index) for index in range(count)], np.int32)[basins]


def _saddles(
    heights: NDArray[np.float32], pixels: NDArray[np.intp], basins: NDArray[np.int32], count: int, neighbours: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Return the pairs of basins that meet and the highest pass between them, the highest first."""
    owner = np.full(len(heights), -1, np.int32)
    owner[pixels] = basins
    pairs, passes = [], []
    for offset in neighbours[len(neighbours) // 2 :]:
        other = owner[pixels + offset]
        meets = np.flatnonzero((other >= 0) & (other != basins))
        one, two = basins[meets].astype(np.int64), other[meets].astype(np.int64)
        pairs.append(np.minimum(one, two) * count + np.maximum(one, two))
        passes.append(np.minimum(heights[pixels[meets]], heights[pixels[meets] + offset]))
    keys, saddles = np.concatenate(pairs), np.concatenate(passes)
    order = np.lexsort((-saddles, keys))
    keys, saddles = keys[order], saddles[order]
    leading = np.flatnonzero(np.diff(keys, prepend=-1))
    keys, saddles = keys[leading], saddles[leading]
    # Equal heights go by the basins' numbers, whose order does not change with the component's place.
    order = np.lexsort((keys, -saddles))
    return keys[order] // count, keys[order] % count, saddles[order]


def _select(objects: NDArray[np.int32], scores: NDArray[np.float32], values: Mapping[str, Any], min_size: float) -> NDArray[np.int32]:
    """Drop what is too small or too faint; number the others from 1 in the order of the scan."""
    numbers, first, inverse = np.unique(objects, return_index=True, return_inverse=True)
    sizes = np.bincount(inverse)
    keep = sizes >= max(float(values["min_size"]), min_size)
    if values["min_score"] > 0:
        keep &= np.bincount(inverse, _sigmoid(scores[_FOREGROUND] + np.float32(values["foreground_bias"]))) / sizes >= values["min_score"]
    if values["min_height"] > 0:
        highest = np.full(len(numbers), -np.inf, np.float32)
        np.maximum.at(highest, inverse, scores[_DISTANCE])
        keep &= highest >= values["min_height"]
    table = np.zeros(len(numbers), np.int32)
    order = np.argsort(first)
    table[order[keep[order]]] = np.arange(1, int(keep.sum()) + 1, dtype=np.int32)
    return table[inverse]
