"""``LabelSource``: labels of an earlier model as channels of a later one, one for each class, read tile by tile.

The labels lie on the image's grid. They are brought to the model's as nnU-Net does it: the share that each label has at a place is
interpolated, and the label with the largest share wins; the nearest pixel's, where several have the same. ::

    labels        0  0  1  1  2           share of label 1     0   0   1   1   0
    model's grid   0  0  0  1 ...         halfway between      0   0 .5 .75 ...
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.grid import taps
from napari_tileseg.engine.prepare import SampleReader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.grid import Grid
    from napari_tileseg.engine.interpolate import Kernel
    from napari_tileseg.engine.parts import Part
    from napari_tileseg.engine.protocols import Source
    from napari_tileseg.volume import Volume

__all__ = ["LabelSource", "StackedSource", "label_source", "resampled_labels"]

OUTSIDE = -1
"""Stands for background outside of what is not 0: nnU-Net does not mix it with other background."""

_EQUAL = 1e-9
"""Shares that differ by less are equal but for rounding."""


class LabelSource:
    """One mask for each class, on the model's grid.

    Parameters
    ----------
    read : callable
        Returns the labels of a region of the box, integers of shape (*region).
    values : sequence of int
        The label of each channel.
    grid : Grid
        Of the box.
    kernel : Kernel
        Orders 0 and 1 only.
    """

    def __init__(
        self, read: Callable[[tuple[slice, ...]], NDArray[np.integer[Any]]], values: Sequence[int], grid: Grid, kernel: Kernel
    ) -> None:
        self._read, self._values, self._grid, self._kernel = read, tuple(values), grid, kernel

    @property
    def shape(self) -> tuple[int, ...]:
        """(len(values), *spatial) on the model's grid."""
        return (len(self._values), *self._grid.model)

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return the masks, 0 or 1, of a region of the model's grid, shape (len(values), *region)."""
        labels = resampled_labels(self._read, region, self._grid, self._kernel.orders)
        return np.stack([labels == value for value in self._values]).astype(np.float32)


class StackedSource:
    """Channels of several sources, one after another.

    Parameters
    ----------
    sources : Source
        Of equal size.
    """

    def __init__(self, *sources: Source) -> None:
        self._sources = sources

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) with the channels of all of them."""
        return (sum(source.shape[0] for source in self._sources), *self._sources[0].shape[1:])

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return a region, shape (C, *region)."""
        return np.concatenate([source.read(region) for source in self._sources])


def label_source(
    labels: Volume,
    axis_map: AxisMap,
    part: Part,
    values: Sequence[int],
    grid: Grid,
    kernel: Kernel,
    inside: Callable[[tuple[slice, ...]], NDArray[np.bool_] | None] | None = None,
) -> LabelSource:
    """Return the labels of a box of one sample as channels.

    Parameters
    ----------
    labels : Volume
        Of the whole image, without C.
    axis_map : AxisMap
        Of the image.
    part : Part
        The box.
    values, grid, kernel
        As for `LabelSource`.
    inside : callable, optional
        Gives the mask of a region of the sample (None: all of it); background elsewhere is another background.
    """
    mapped = replace(axis_map, axes=labels.axes, shape=labels.shape, channels=(None,))
    reader = SampleReader(labels, mapped, part.position)

    def read(region: tuple[slice, ...]) -> NDArray[np.integer[Any]]:
        moved = tuple(slice(span.start + start, span.stop + start) for span, start in zip(region, part.start, strict=True))
        found = reader.read(moved)[0].astype(np.int32)
        mask = inside(moved) if inside is not None else None
        return found if mask is None else np.where(mask | (found != 0), found, np.int32(OUTSIDE))

    return LabelSource(read, values, grid, kernel)


def resampled_labels(
    read: Callable[[tuple[slice, ...]], NDArray[np.integer[Any]]], region: tuple[slice, ...], grid: Grid, orders: Sequence[int]
) -> NDArray[np.integer[Any]]:
    """Return the labels of a region of the model's grid.

    Parameters
    ----------
    read : callable
        Returns the labels of a region of the image's grid.
    region : tuple of slice
        On the model's grid.
    grid : Grid
        How the two meet.
    orders : sequence of int
        0 or 1 for each axis.
    """
    if all(grid.unchanged(axis) for axis in range(len(region))):
        return read(region)
    mixes = []
    for axis, (span, order) in enumerate(zip(region, orders, strict=True)):
        order = 0 if grid.unchanged(axis) else order
        mixes.append((taps(order, span.start, span.stop, grid, axis), taps(0, span.start, span.stop, grid, axis)[0][:, 0]))
    low = [min(int(places.min()), int(nearest.min())) for (places, _), nearest in mixes]
    high = [max(int(places.max()), int(nearest.max())) + 1 for (places, _), nearest in mixes]
    block = read(tuple(slice(*span) for span in zip(low, high, strict=True)))
    nearest = block[np.ix_(*(nearest - first for (_, nearest), first in zip(mixes, low, strict=True)))]
    values = np.unique(block)
    if len(values) == 1:
        return nearest
    best = np.full(nearest.shape, -1.0)
    found = np.zeros(nearest.shape, block.dtype)
    tied = np.zeros(nearest.shape, bool)  # whether the nearest label has the largest share, maybe with others
    for value in values:
        share = (block == value).astype(np.float64)
        for axis, (((places, weights), _), first) in enumerate(zip(mixes, low, strict=True)):
            share = _mixed(share, axis, places - first, weights)
        more = share > best + _EQUAL
        level = ~more & (share >= best - _EQUAL)
        found[more] = value
        tied = np.where(more, nearest == value, tied | (level & (nearest == value)))
        np.maximum(best, share, out=best)
    return np.where(tied, nearest, found)


def _mixed(block: NDArray[np.float64], axis: int, places: NDArray[np.intp], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weighted sums of entries along an axis."""
    along = (-1, *(1,) * (block.ndim - axis - 1))
    total: NDArray[np.float64] = block.take(places[:, 0], axis=axis) * weights[:, 0].reshape(along)
    for index in range(1, places.shape[1]):
        total += block.take(places[:, index], axis=axis) * weights[:, index].reshape(along)
    return total
