"""The decoder "stardist": every pixel proposes a star-convex shape, and the most likely ones that do not cover each other remain.

Scores are the logit of an object and a distance along each ray (Schmidt et al., MICCAI 2018; Weigert et al., WACV 2020). A shape
goes where a more likely one that stays covers more than a share of the smaller of the two.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree
from skimage.draw import polygon

from napari_tileseg.engine.polygons import Polygons
from napari_tileseg.engine.polyhedra import Polyhedra
from napari_tileseg.engine.rays import Rays, circle, golden_spiral
from napari_tileseg.errors import ModelError, OptionsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["DEFAULTS", "decode", "foreground", "margin", "rim"]

DEFAULTS: dict[str, float] = {
    "prob_thresh": 0.5,
    "nms_thresh": 0.4,
    "min_size": 0.0,
    **{f"rim_{axis}": 2.0 for axis in "zyx"},
    **{f"padded_{axis}": 1.0 for axis in "zyx"},
    **{f"anisotropy_{axis}": 1.0 for axis in "zyx"},
}
"""What each parameter is where the model does not say; the first two are called as StarDist calls them.

``prob_thresh``: least probability of an object, where the threshold of the run is one half. ``nms_thresh``: largest share that two
shapes may have in common. ``min_size``: fewest pixels. ``rim_z``, ``rim_y``, ``rim_x``: pixels at the border of the image that
propose nothing. ``padded_z`` ...: what images are padded to multiples of, at their ends, before that rim is laid.
``anisotropy_z`` ...: see `golden_spiral` (3D).
"""

_AT_ONCE = 256
"""Shapes that are compared with another one at once."""

_LEAST = np.float32(1e-3)
"""Least distance, in pixels."""


def margin(parameters: Mapping[str, float]) -> int:
    """Return how many pixels around a component can change its objects: none, but the rim must be known before they are final."""
    return max(rim(parameters, axis, 3, 0)[0] for axis in range(3))


def rim(parameters: Mapping[str, float], axis: int, ndim: int, size: int) -> tuple[int, int]:
    """Return how many pixels before and after an image of that size along an axis of space propose nothing."""
    letter = "zyx"[3 - ndim + axis]
    width, multiple = (int(parameters.get(name, DEFAULTS[name])) for name in (f"rim_{letter}", f"padded_{letter}"))
    return width, max(0, width - -size % max(1, multiple))


def foreground(scores: NDArray[np.float32], parameters: Mapping[str, float], threshold: float = 0.5) -> NDArray[np.bool_]:
    """Return where objects can be: the boxes around all shapes that are proposed.

    Parameters
    ----------
    scores : ndarray of float32, shape (1 + rays, *spatial)
        The logit of an object, and distances in pixels.
    parameters : mapping of str to float
        See `DEFAULTS`.
    threshold : float
        Least probability, 0 to 1.

    Returns
    -------
    ndarray of bool, shape (*spatial)
    """
    shape = scores.shape[1:]
    rays = _rays(len(scores) - 1, len(shape), parameters)
    centres, _, distances = _proposals(scores, parameters, threshold)
    low, high = rays.extents(distances)
    first = np.clip(centres + np.floor(low).astype(np.intp), 0, None)
    stop = np.minimum(centres + np.ceil(high).astype(np.intp) + 1, shape)
    # Every box adds 1 to its pixels: what its corners add to a sum over all pixels before each one.
    sums = np.zeros(tuple(size + 1 for size in shape), np.int32)
    for choice in np.ndindex(*(2,) * len(shape)):
        corner = np.where(np.array(choice, bool), stop, first)
        np.add.at(sums, tuple(corner.T), (-1) ** sum(choice))
    for axis in range(len(shape)):
        np.cumsum(sums, axis=axis, out=sums)
    covered: NDArray[np.bool_] = sums[tuple(slice(size) for size in shape)] > 0
    return covered


def decode(
    scores: NDArray[np.float32], parameters: Mapping[str, float], *, threshold: float = 0.5, min_size: float = 0
) -> NDArray[np.int32]:
    """Turn scores into objects.

    Parameters
    ----------
    scores : ndarray of float32, shape (1 + rays, *spatial)
        As for `foreground`, 2D or 3D.
    parameters : mapping of str to float
        See `DEFAULTS`.
    threshold : float
        Least probability, 0 to 1.
    min_size : float
        Fewest pixels of an object, if more than the parameters say.

    Returns
    -------
    ndarray of int32, shape (*spatial)
        Objects from 1 to n in the order in which a scan of the array meets them; 0 is background.

    Raises
    ------
    ModelError
        If there are too few rays.
    """
    shape = scores.shape[1:]
    rays = _rays(len(scores) - 1, len(shape), parameters)
    values = {**DEFAULTS, **parameters}
    centres, likely, distances = _proposals(scores, parameters, threshold)
    order = np.argsort(-likely, kind="stable")
    centres, distances = centres[order], distances[order]
    kept = _suppress(rays, centres, distances, float(values["nms_thresh"]))
    labels = np.zeros(shape, np.int32)
    for number in kept[::-1].tolist():  # the most likely one is drawn last
        _draw(labels, rays, centres[number], distances[number], number + 1)
    smallest = max(float(values["min_size"]), min_size)
    numbers, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    keep = np.flatnonzero((numbers > 0) & (sizes >= smallest))
    table = np.zeros(len(numbers), np.int32)
    table[keep[np.argsort(first[keep])]] = np.arange(1, len(keep) + 1, dtype=np.int32)
    return table[inverse].reshape(shape)


def _rays(count: int, ndim: int, parameters: Mapping[str, float]) -> Rays:
    if count < ndim + 1:
        raise ModelError(f'The decoder "stardist" needs the score of an object and at least {ndim + 1} distances; the model has {count}.')
    if ndim == 2:
        return circle(count)
    sizes = [parameters.get(f"anisotropy_{axis}", 1.0) for axis in "zyx"]
    return golden_spiral(count, (sizes[0], sizes[1], sizes[2]))


def _proposals(
    scores: NDArray[np.float32], parameters: Mapping[str, float], threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """Return centres (m, D), logits (m,) and distances (m, rays) of all that are likely enough, in the order of a scan."""
    if not 0 <= threshold <= 1:
        raise OptionsError(f"threshold = {threshold} is not accepted: give a number from 0 to 1.")
    odds = [min(max(share, 1e-9), 1 - 1e-9) for share in (threshold, parameters.get("prob_thresh", DEFAULTS["prob_thresh"]))]
    least = sum(math.log(share / (1 - share)) for share in odds)
    places = np.nonzero(scores[0] > np.float32(least))
    everywhere: Any = (slice(None), *places)
    distances = np.maximum(scores[1:][everywhere].T, _LEAST)
    return np.stack(places, axis=1), scores[0][places], distances


def _suppress(rays: Rays, centres: NDArray[np.intp], distances: NDArray[np.float32], most: float) -> NDArray[np.intp]:
    """Return which shapes stay; they are ordered, the most likely first."""
    if not len(centres):
        return np.empty(0, np.intp)
    shapes = Polygons(rays, distances) if rays.ndim == 2 else Polyhedra(rays, distances)
    radii = distances.max(1)
    tree = cKDTree(centres)
    alive = np.ones(len(centres), bool)
    largest = float(radii.max()) + 2
    for number in range(len(centres)):
        if not alive[number]:
            continue
        near = np.array(tree.query_ball_point(centres[number], float(radii[number]) + largest), np.intp)
        near = near[alive[near] & (near > number)]
        away = centres[near] - centres[number]
        meets = ((away + shapes.low[near] <= shapes.high[number]) & (away + shapes.high[near] >= shapes.low[number])).all(1)
        near, away = near[meets], away[meets].astype(np.float32)
        for start in range(0, len(near), _AT_ONCE):
            some = near[start : start + _AT_ONCE]
            common = shapes.common(number, some, away[start : start + _AT_ONCE])
            alive[some] = common <= most * (np.minimum(shapes.sizes[some], shapes.sizes[number]) + 1e-10)
    return np.flatnonzero(alive)


def _draw(labels: NDArray[np.int32], rays: Rays, centre: NDArray[np.intp], distances: NDArray[np.float32], number: int) -> None:
    """Give the pixels of a shape a number."""
    if rays.ndim == 2:
        corners = centre + distances[:, None] * rays.directions.astype(np.float32)
        labels[polygon(corners[:, 0], corners[:, 1], labels.shape)] = number
        return
    low, high = rays.extents(distances[None])
    first = np.maximum(centre + np.floor(low[0]).astype(np.intp), 0)
    stop = np.minimum(centre + np.ceil(high[0]).astype(np.intp) + 1, labels.shape)
    places = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(first, stop, strict=True)), indexing="ij"), axis=-1)
    inside = rays.inside((places - centre).astype(np.float32).reshape(1, -1, 3), distances[None]).reshape(places.shape[:-1])
    box: Any = tuple(slice(a, b) for a, b in zip(first.tolist(), stop.tolist(), strict=True))
    labels[box][inside] = number
