"""``Grid``: an image resampled to the pixel size a model was trained at, tile by tile, and its labels brought back.

Both grids cover the same box; pixels are little boxes, so index i of n pixels and index j of m pixels meet where
``(i + 0.5) / n == (j + 0.5) / m``. ::

    image   |   0   |   1   |   2   |      n = 3
    model   | 0 | 1 | 2 | 3 | 4 | 5 |      m = 6
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.parts import Region
    from napari_tileseg.engine.protocols import Sink, Source

__all__ = ["SAME", "Grid", "ResampledSink", "ResampledSource", "taps"]

SAME = 0.1
"""Pixel sizes that differ by less than this share are taken for equal, unless the model says otherwise: interpolation would cost
more than it gains."""


@dataclass(frozen=True)
class Grid:
    """The size of a box in pixels of the image, and in pixels of the model.

    Parameters
    ----------
    image, model : tuple of int
        Pixels along each axis of space.
    steps : tuple of float, optional
        Where pixels are points instead of boxes: how many pixels of the image lie between two of the model, along each axis.
    shifts : tuple of float, optional
        With `steps`: where the model's first pixel lies among those of the image; 0 where the first ones coincide.
    from_end : tuple of bool, optional
        Along which axes pixels are counted from the end for that.
    """

    image: tuple[int, ...]
    model: tuple[int, ...]
    steps: tuple[float, ...] | None = None
    shifts: tuple[float, ...] = ()
    from_end: tuple[bool, ...] = ()

    @classmethod
    def match(
        cls,
        shape: tuple[int, ...],
        ratios: Mapping[str, float] | None,
        tolerance: float = SAME,
        *,
        points: bool = False,
        centred: bool = False,
        from_end: str = "",
        down: bool = False,
    ) -> Grid:
        """Choose the model's number of pixels for a box of the image.

        Parameters
        ----------
        shape : tuple of int
            The box in pixels of the image.
        ratios : mapping of str to float, optional
            The image's pixel size as a multiple of the model's, along each axis in the order of `shape`; None if unknown.
        tolerance : float
            Share by which pixel sizes may differ and be taken for equal.
        points : bool
            Whether the first pixels of both grids coincide; both cover the same box otherwise.
        centred : bool
            With points, whether it is the places at half the length that coincide.
        from_end : str
            Axes along which pixels are counted from the end.
        down : bool
            Whether the model's number of pixels is rounded down.
        """
        if ratios is None or all(abs(ratio - 1) <= tolerance for ratio in ratios.values()):
            return cls(shape, shape)
        if points:
            model = tuple(max(1, round((size - 1) * ratio + 1)) for size, ratio in zip(shape, ratios.values(), strict=True))
            steps = tuple(1 / ratio for ratio in ratios.values())
            ends = zip(shape, model, steps, strict=True)
            shifts = tuple(size / 2 - count / 2 * step if centred else 0.0 for size, count, step in ends)
            return cls(shape, model, steps, shifts, tuple(axis in from_end for axis in ratios))
        rounded = math.floor if down else round
        return cls(shape, tuple(max(1, rounded(size * ratio)) for size, ratio in zip(shape, ratios.values(), strict=True)))

    @property
    def same(self) -> bool:
        """Whether nothing needs to be resampled."""
        return self.image == self.model and all(self.unchanged(axis) for axis in range(len(self.image)))

    def unchanged(self, axis: int) -> bool:
        """Whether nothing needs to be resampled along an axis."""
        return self.image[axis] == self.model[axis] and (
            self.steps is None or (abs(self.steps[axis] - 1) < 1e-6 and abs(self.shifts[axis]) < 1e-6)
        )

    def reversed(self) -> Grid:
        """Return the way back: what was the image's is the model's."""
        if self.steps is None:
            return Grid(self.model, self.image)
        shifts = tuple(-shift / step for shift, step in zip(self.shifts, self.steps, strict=True))
        return Grid(self.model, self.image, tuple(1 / step for step in self.steps), shifts, self.from_end)

    def over(self, image: tuple[int, ...]) -> Grid:
        """Return the same pixels of the model over another resolution of the image."""
        if self.steps is None:
            return Grid(image, self.model)
        factors = [new / old for new, old in zip(image, self.image, strict=True)]
        steps, shifts = (tuple(by * value for by, value in zip(factors, values, strict=True)) for values in (self.steps, self.shifts))
        return Grid(image, self.model, steps, shifts, self.from_end)

    def turned(self, forth: Callable[[Sequence[Any]], tuple[Any, ...]]) -> Grid:
        """Return the same for axes in another order."""
        if self.steps is None:
            return Grid(forth(self.image), forth(self.model))
        return Grid(forth(self.image), forth(self.model), forth(self.steps), forth(self.shifts), forth(self.from_end))

    def centres(self, axis: int, start: int, stop: int) -> NDArray[np.float64]:
        """Return where the pixels of the model from `start` to `stop` lie among those of the image.

        Along axes whose last pixels coincide, both are counted from the end.
        """
        if self.steps is not None:
            return np.arange(start, stop, dtype=np.float64) * self.steps[axis] + self.shifts[axis]
        return (np.arange(start, stop, dtype=np.float64) + 0.5) * (self.image[axis] / self.model[axis]) - 0.5

    def image_region(self, region: Region) -> Region:
        """Return the pixels of the image whose centres lie in a box of the model's grid; possibly none."""
        return tuple((self._first(start, axis), self._first(stop, axis)) for axis, (start, stop) in enumerate(region))

    def nearest(self, axis: int, start: int, stop: int) -> NDArray[np.intp]:
        """Return the pixel of the model that covers the centre of each pixel of the image from `start` to `stop`."""
        if self.steps is not None:
            return taps(0, start, stop, self.reversed(), axis)[0][:, 0]
        centres = (np.arange(start, stop) + 0.5) * self.model[axis] / self.image[axis]
        return np.minimum(np.floor(centres).astype(np.intp), self.model[axis] - 1)

    def weights(self, axis: int, start: int, stop: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        """Return how pixels of the image add up to those of the model from `start` to `stop`.

        Linear interpolation where the model's pixels are smaller, a triangle as wide as two of them where they are larger
        (so that fine texture does not turn into noise). A pixel's own do not depend on `start` and `stop`.

        Returns
        -------
        places : ndarray of int, shape (stop - start, N)
            The pixels of the image; where fewer than N count, the others have no weight.
        weights : ndarray of float32, shape (stop - start, N)
            Every row adds up to 1.
        """
        size = self.image[axis]
        step = size / self.model[axis]
        width = max(1.0, step)
        centres = np.clip((np.arange(start, stop) + 0.5) * step - 0.5, 0, size - 1)[:, None]
        places = np.ceil(centres - width).astype(np.intp) + np.arange(math.floor(2 * width) + 1)
        weights = np.where((places >= 0) & (places < size), np.maximum(0, 1 - np.abs(places - centres) / width), 0)
        return np.clip(places, 0, size - 1), (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)

    def _first(self, row: int, axis: int) -> int:
        if self.steps is not None:
            return int(np.searchsorted(self.nearest(axis, 0, self.image[axis]), row))
        # The smallest i with floor((i + 0.5) * m / n) >= row.
        exact = row * self.image[axis] / self.model[axis] - 0.5
        return min(self.image[axis], max(0, math.ceil(exact - 1e-9)))


def taps(order: int, start: int, stop: int, grid: Grid, axis: int) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return which pixels of the image add up to those of the model from `start` to `stop` along an axis.

    Parameters
    ----------
    order : int
        0: the nearest one. 1: linear between two. 3: a cubic spline.

    Returns
    -------
    places : ndarray of int, shape (stop - start, N)
        For order 3 those of coefficients of the spline, which reach beyond the border.
    weights : ndarray of float64, shape (stop - start, N)
        Every row adds up to 1.
    """
    size, resampled = grid.image[axis], grid.model[axis]
    turned = bool(grid.from_end) and grid.from_end[axis]
    first, last = (resampled - stop, resampled - start) if turned else (start, stop)
    places, weights = _taps(order, grid.centres(axis, first, last), size, even=grid.steps is not None)
    return (size - 1 - places[::-1], weights[::-1]) if turned else (places, weights)


def _taps(order: int, centres: NDArray[np.float64], size: int, *, even: bool) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    if order == 3:
        first = np.floor(centres)
        part = centres - first
        rest = 1 - part
        weights = [rest**3 / 6, (4 - 6 * part**2 + 3 * part**3) / 6, (4 - 6 * rest**2 + 3 * rest**3) / 6, part**3 / 6]
        return first.astype(np.intp)[:, None] + np.arange(-1, 3), np.stack(weights, axis=1)
    centres = np.clip(centres, 0, size - 1)
    if order == 0:  # halfway between two: the even one, as torch's grid_sample has it, or the later one
        nearest = np.rint(centres) if even else np.floor(centres + 0.5)
        return nearest.astype(np.intp)[:, None], np.ones((len(centres), 1))
    first = np.floor(centres)
    part = centres - first
    low = first.astype(np.intp)
    return np.stack([low, np.minimum(low + 1, size - 1)], axis=1), np.stack([1 - part, part], axis=1)


class ResampledSource:
    """A source on the model's grid over one on the image's; reads only what a tile needs.

    Parameters
    ----------
    source : Source
        Normalised image on its own grid.
    grid : Grid
        Of the whole source.
    """

    def __init__(self, source: Source, grid: Grid) -> None:
        self._source = source
        self._grid = grid

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) on the model's grid."""
        return (self._source.shape[0], *self._grid.model)

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return normalised intensities of a region of the model's grid, shape (C, *region)."""
        mixes = [self._grid.weights(axis, span.start, span.stop) for axis, span in enumerate(region)]
        block = self._source.read(tuple(slice(int(places.min()), int(places.max()) + 1) for places, _ in mixes))
        for axis, (places, weights) in enumerate(mixes, start=1):
            block = _mixed(block, axis, places - places.min(), weights)
        return block


def _mixed(block: NDArray[np.float32], axis: int, places: NDArray[np.intp], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weighted sums of entries along an axis.

    Not a product of matrices: those round in an order that depends on how many rows are asked for, and a run that goes on after
    an interruption reads other rows at once.
    """
    along = (-1, *(1,) * (block.ndim - axis - 1))
    mixed = block.take(places[:, 0], axis=axis) * weights[:, 0].reshape(along)
    part = np.empty_like(mixed)
    for index in range(1, places.shape[1]):
        np.take(block, places[:, index], axis=axis, out=part, mode="clip")  # the default mode would buffer
        part *= weights[:, index].reshape(along)
        mixed += part
    return mixed


class ResampledSink:
    """Takes labels on the model's grid and passes them on, each pixel of the image from the model's pixel at its centre.

    Parameters
    ----------
    sink : Sink
        Takes labels on the image's grid.
    grid : Grid
        Of the whole sink.
    """

    def __init__(self, sink: Sink, grid: Grid) -> None:
        self._sink = sink
        self._grid = grid

    def write(self, region: tuple[slice, ...], labels: NDArray[Any]) -> None:
        """Take labels, shape (*region) or (K, *region)."""
        target, block = self._moved(region, labels)
        if block.size:
            self._sink.write(target, block)

    def write_scores(self, region: tuple[slice, ...], scores: NDArray[np.float32]) -> None:
        """Take raw scores, shape (K, *region)."""
        target, block = self._moved(region, scores)
        if block.size:
            self._sink.write_scores(target, block)

    def write_uncertainty(self, region: tuple[slice, ...], uncertainty: NDArray[np.float32]) -> None:
        """Take uncertainty, shape (*region)."""
        target, block = self._moved(region, uncertainty)
        if block.size:
            self._sink.write_uncertainty(target, block)

    def _moved(self, region: tuple[slice, ...], values: NDArray[Any]) -> tuple[tuple[slice, ...], NDArray[Any]]:
        spans = self._grid.image_region(tuple((span.start, span.stop) for span in region))
        leading = values.ndim - len(region)
        for axis, ((start, stop), span) in enumerate(zip(spans, region, strict=True)):
            values = values.take(self._grid.nearest(axis, start, stop) - span.start, axis=leading + axis)
        return tuple(slice(*span) for span in spans), values
