"""``Kernel``: which values of an axis add up to a value between them; and an image resampled by it, tile by tile.

Index i of n pixels of the result lies at ``(i + 0.5) * m / n - 0.5`` of m pixels of what is resampled. Orders are those of
`scipy.ndimage.zoom` with ``grid_mode=True`` and ``mode="nearest"``, which scikit-image's ``resize`` calls; and, for orders 0 and 1,
of `torch.nn.functional.interpolate` with ``"nearest-exact"`` and ``"trilinear"``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import spline_filter1d

from napari_tileseg.engine.grid import taps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from napari_tileseg.engine.grid import Grid
    from napari_tileseg.engine.protocols import Source
    from napari_tileseg.engine.scan import Turn
    from napari_tileseg.models.resampling import Interpolation

    Limits = Callable[[int | None, int], tuple[NDArray[np.float64], NDArray[np.float64]]]

__all__ = ["InterpolatedSource", "Kernel", "Return", "choose_kernel"]

_EDGE = 12
"""Pixels by which SciPy repeats the border before it looks for the coefficients of a spline."""

_REACH = 32
"""Pixels beyond which a value changes the coefficient of a spline by less than a double can hold."""


@dataclass(frozen=True)
class Kernel:
    """How each axis of space is interpolated.

    Parameters
    ----------
    orders : tuple of int
        0, 1 or 3 for each axis.
    across : str
        Axis whose slices are interpolated each by itself; empty where there is none.
    clip : bool
        Whether splines are kept within the range of the image, or of each slice.
    """

    orders: tuple[int, ...]
    across: str = ""
    clip: bool = False


def choose_kernel(rule: Interpolation, source: Mapping[str, float], target: Mapping[str, float], spatial: str) -> Kernel:
    """Decide whether slices are interpolated one by one.

    Parameters
    ----------
    rule : Interpolation
        What the model says.
    source, target : mapping of str to float
        Pixel sizes before and after, by axis, in one unit; axes that the model does not see included. An image of one plane has
        no pixel size across it and counts as slices.
    spatial : str
        Axes that are interpolated.
    """
    axis = ""
    if rule.slices != "never":
        axis = _coarsest(source) if rule.slices == "always" or _ratio(source) > rule.anisotropy else ""
        if not axis and rule.slices == "auto" and _ratio(source) <= rule.anisotropy and _ratio(target) > rule.anisotropy:
            axis = _coarsest(target)
    orders = tuple(rule.slice_order if letter == axis else rule.order for letter in spatial)
    return Kernel(orders, axis, rule.clip and 3 in orders)


def _ratio(sizes: Mapping[str, float]) -> float:
    return float("inf") if len(sizes) < 3 else max(sizes.values()) / min(sizes.values())


def _coarsest(sizes: Mapping[str, float]) -> str:
    """Return the axis with the largest pixel size; empty where two share it."""
    if len(sizes) < 3:
        return "Z"
    largest = [axis for axis, size in sizes.items() if max(sizes.values()) / size == 1]
    return largest[0] if len(largest) == 1 else ""


@dataclass(frozen=True)
class Return:
    """How scores come back to the image's grid.

    Parameters
    ----------
    grid : Grid
        Of the image and of the model.
    orders : tuple of int
        Of the interpolation, 0 or 1 for each axis of space.
    activation : str
        "softmax" or "sigmoid": scores are probabilities on their way, and logits again at its end. Empty: they stay what they are.
    """

    grid: Grid
    orders: tuple[int, ...]
    activation: str = ""

    def turned(self, turn: Turn) -> Return:
        """Return the same for axes in the order of the loop."""
        return Return(self.grid.turned(turn.forth), turn.forth(self.orders), self.activation)


class InterpolatedSource:
    """A source on the model's grid over one on the image's; reads only what a tile needs, and what a spline reaches around it.

    Parameters
    ----------
    source : Source
        Normalised image on its own grid.
    grid : Grid
        Of the whole source.
    kernel : Kernel
        How.
    limits : callable
        Gives the least and the greatest value of each channel, of one slice along an axis of space, or (None) of the whole image;
        asked only where splines are clipped.
    spatial : str
        Letters of the axes.
    """

    def __init__(self, source: Source, grid: Grid, kernel: Kernel, limits: Limits, spatial: str) -> None:
        self._source, self._grid, self._kernel, self._limits = source, grid, kernel, limits
        self._slices = spatial.find(kernel.across) if kernel.across else -1

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) on the model's grid."""
        return (self._source.shape[0], *self._grid.model)

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return normalised intensities of a region of the model's grid, shape (C, *region)."""
        mixes: list[tuple[int, NDArray[np.intp], NDArray[np.float64]] | None] = []
        spans = []
        for axis, (span, order) in enumerate(zip(region, self._kernel.orders, strict=True)):
            size = self._grid.image[axis]
            if self._grid.unchanged(axis):
                mixes.append(None)
                spans.append(span)
                continue
            places, weights = taps(order, span.start, span.stop, self._grid, axis)
            reach = _REACH if order == 3 else 0
            spans.append(slice(max(0, int(places.min()) - reach), min(size, int(places.max()) + 1 + reach)))
            mixes.append((order, places, weights))
        block = self._source.read(tuple(spans)).astype(np.float64)
        for axis, (mix, span) in enumerate(zip(mixes, spans, strict=True)):
            if mix is not None:
                block = _interpolated(block, axis + 1, span, self._grid.image[axis], *mix)
        if self._kernel.clip:
            self._clip(block, region)
        return block.astype(np.float32)

    def _clip(self, block: NDArray[np.float64], region: tuple[slice, ...]) -> None:
        """Keep values within those of the image, as scikit-image's ``resize`` does."""
        if self._slices < 0:
            low, high = (limit.reshape(-1, *(1,) * (block.ndim - 1)) for limit in self._limits(None, 0))
            np.clip(block, low, high, out=block)
            return
        axis, span = self._slices, region[self._slices]
        order = 0 if self._grid.unchanged(axis) else self._kernel.orders[axis]
        if order:
            return  # slices are mixed afterwards
        places, _ = taps(0, span.start, span.stop, self._grid, axis)
        for index, place in enumerate(places[:, 0]):
            low, high = self._limits(axis, int(place))
            part = block.take(index, axis=axis + 1)
            bounds = (limit.reshape(-1, *(1,) * (part.ndim - 1)) for limit in (low, high))
            block[(slice(None),) * (axis + 1) + (index,)] = np.clip(part, *bounds)


def _interpolated(
    block: NDArray[np.float64], axis: int, span: slice, size: int, order: int, places: NDArray[np.intp], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return weighted sums along an axis of a block that holds `span` of its `size` values."""
    first = span.start
    if order == 3:
        # Cut ends are far enough away to change nothing; at the border of the image SciPy's own way is gone.
        before, after = _EDGE * (span.start == 0), _EDGE * (span.stop == size)
        padding = [(before, after) if index == axis else (0, 0) for index in range(block.ndim)]
        block = spline_filter1d(np.pad(block, padding, mode="edge"), order, axis=axis, output=np.float64, mode="nearest")
        first -= before
    along = (-1, *(1,) * (block.ndim - axis - 1))
    total: NDArray[np.float64] = block.take(places[:, 0] - first, axis=axis) * weights[:, 0].reshape(along)
    for index in range(1, places.shape[1]):
        total += block.take(places[:, index] - first, axis=axis) * weights[:, index].reshape(along)
    return total
