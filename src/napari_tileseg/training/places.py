"""``places_of``: pixels to centre crops on, the same number for each class, however rare it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["places_of"]

_MOST = 20_000
"""Pixels of each class that are remembered for drawing crops; of objects, as many in all."""


def places_of(labels: NDArray[Any], *, instances: bool, sparse: bool, masks: bool = False) -> dict[int, NDArray[np.int32]]:
    """Choose pixels: the same ones each time.

    Parameters
    ----------
    labels : ndarray of int, shape (*spatial), or of masks (K, *spatial)
    instances : bool
        Whether labels are the numbers of objects.
    sparse : bool
        Whether some pixels are not labelled; then background is listed too, because only listed pixels are known at all.
    masks : bool
        Whether there is a mask for each class; pixels of several classes then stand for each of them.

    Returns
    -------
    dict of int to ndarray of int, shape (n, D)
        By class, of masks counted from 1; objects at 1, background at 0.
    """
    generator = np.random.default_rng(0)
    shape = labels.shape[1:] if masks else labels.shape
    if masks:
        planes = labels.reshape(len(labels), -1)
        groups = {number: pixels for number, plane in enumerate(planes, start=1) if (pixels := np.flatnonzero(plane > 0)).size}
        ground = np.flatnonzero((planes >= 0).any(axis=0) & (planes <= 0).all(axis=0))
    else:
        flat = labels.ravel()
        groups = _of_objects(flat, generator) if instances else {int(v): np.flatnonzero(flat == v) for v in np.unique(flat) if v > 0}
        ground = np.flatnonzero(flat == 0) if sparse else np.zeros(0, np.intp)
    if sparse and ground.size:
        groups[0] = ground
    chosen = {value: pixels if len(pixels) <= _MOST else generator.choice(pixels, _MOST, replace=False) for value, pixels in groups.items()}
    return {value: np.stack(np.unravel_index(pixels, shape), axis=1).astype(np.int32) for value, pixels in chosen.items()}


def _of_objects(flat: NDArray[Any], generator: np.random.Generator) -> dict[int, NDArray[np.intp]]:
    """Draw a few pixels of each object: large ones must not have more than their share."""
    inside = np.flatnonzero(flat > 0)
    if not inside.size:
        return {}
    order = inside[np.argsort(flat[inside], kind="stable")]
    counts = np.bincount(flat[inside])[1:]
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    each = max(1, min(64, _MOST // len(counts)))
    drawn = (starts[:, None] + generator.random((len(counts), each)) * counts[:, None]).astype(np.intp)
    return {1: np.unique(order[drawn])}
