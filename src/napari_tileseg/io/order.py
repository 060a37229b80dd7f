"""Axes put in the order a format wants."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.volume import SPATIAL_AXES

if TYPE_CHECKING:
    from typing import Any

    from napari_tileseg.volume import Volume

__all__ = ["nearest_order", "ordered", "reindexed"]


def ordered(volume: Volume, axes: str) -> Volume:
    """Return the volume with its axes in the order of `axes` (letters it lacks are passed over)."""
    wanted = "".join(axis for axis in axes if axis in volume.axes)
    if wanted == volume.axes:
        return volume
    places = [volume.axes.index(axis) for axis in wanted]
    matrix = [*places, volume.ndim]
    affine = volume.affine[np.ix_(matrix, matrix)]
    units = tuple(volume.units[place] for place in places)
    return replace(volume, data=_moved(volume.data, places), axes=wanted, affine=affine, units=units, levels=())


def nearest_order(volume: Volume) -> tuple[int, ...]:
    """Return the order of the stored axes in which each of space runs most nearly along the world axis of its letter.

    ``(0, 1, 2)`` for all but turned grids, such as sagittal slices in a NIfTI file.
    """
    places = [index for index, axis in enumerate(volume.axes) if axis in SPATIAL_AXES]
    share = np.abs(volume.affine[np.ix_(places, places)])
    share = share / np.maximum(share.sum(axis=0), 1e-12)
    best = max(
        permutations(range(len(places))),
        key=lambda order: (round(sum(share[row, column] for row, column in enumerate(order)), 9), order == tuple(sorted(order))),
    )
    result = list(range(volume.ndim))
    for row, column in enumerate(best):
        result[places[row]] = places[column]
    return tuple(result)


def reindexed(volume: Volume, order: tuple[int, ...]) -> Volume:
    """Return the same voxels in the same places of the world, with the stored axes in another order.

    The letters stay with the world: they name where an axis leads, not where it was stored.
    """
    if order == tuple(range(volume.ndim)):
        return volume
    affine = volume.affine[:, [*order, volume.ndim]]
    return replace(volume, data=_moved(volume.data, list(order)), affine=affine, levels=())


def _moved(data: Any, places: list[int]) -> Any:
    if isinstance(data, np.ndarray):
        return data.transpose(places)
    back = [places.index(axis) for axis in range(len(places))]

    def read(box: tuple[slice, ...]) -> Any:
        return np.asarray(data[tuple(box[axis] for axis in back)]).transpose(places)

    depth = int(getattr(data, "depth", 1)) if places[0] == 0 else 1
    return LazyArray(tuple(data.shape[place] for place in places), data.dtype, read, depth=depth)
