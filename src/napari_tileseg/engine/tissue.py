"""Where on an image there is something: a coarse mask, so that empty ground need not go through the network."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import binary_dilation, uniform_filter

from napari_tileseg.engine.prepare import SampleReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.grid import Grid
    from napari_tileseg.engine.parts import Part, Region
    from napari_tileseg.engine.tiles import Tile
    from napari_tileseg.volume import Volume

__all__ = ["Tissue", "ground", "holding", "tissue_map", "tissue_mask"]

_SAMPLES = 1 << 21
"""Most pixels that are looked at."""
_MARGIN = 8
"""Pixels of the image that are added around what stands out, and at least two of the mask."""
_GREY = 0.1
"""Most difference between the channels of a ground of glass, as a share of the brightest value."""
_SPREAD = 6.0
"""Standard deviations of the ground that do not stand out yet."""
_LEAST = 0.05
"""Share of the distance from the ground to the tissue that does not stand out either."""
_CLEAR = 0.1
"""Most spread of the ground, as a share of that distance, for which there is a ground at all."""


@dataclass(frozen=True, eq=False)
class Tissue:
    """A mask of one plane or volume, on a coarse grid.

    Parameters
    ----------
    mask : ndarray of bool
        Axes of space as the model has them.
    step : int
        Pixels of the image from one of the mask to the next, along every axis: a layer of the mask has `step` times the scale.
    """

    mask: NDArray[np.bool_]
    step: int

    @property
    def share(self) -> float:
        """Share of the image that holds something."""
        return float(self.mask.mean())

    def touches(self, region: Region) -> bool:
        """Whether anything of a box of the image (start and stop along each axis) is tissue."""
        box = tuple(slice(max(0, start // self.step), max(-(-stop // self.step), start // self.step + 1)) for start, stop in region)
        return bool(self.mask[box].any())


def tissue_mask(
    volume: Volume,
    axis_map: AxisMap,
    position: Mapping[str, int] | None = None,
    *,
    check: Callable[[], None] = lambda: None,
) -> Tissue:
    """Find tissue (or cells) on the ground of one plane or volume, looking at every n-th pixel only.

    The ground may be bright (stained slides) or dark (fluorescence); it is the side of Otsu's threshold that varies less. What
    differs from it clearly in brightness, or in colourfulness, is tissue, with a margin. An image without an even ground is
    tissue all over.

    Parameters
    ----------
    volume : Volume
        The image.
    axis_map : AxisMap
        How its axes meet the model's.
    position : mapping of str to int, optional
        Which plane or frame; the first one by default.
    check : callable
        Called now and then; may raise to stop.

    Returns
    -------
    Tissue

    Source: N. Otsu, A threshold selection method from gray-level histograms, IEEE Transactions on Systems, Man, and
    Cybernetics 9, 1979.
    """
    reader = SampleReader(volume, axis_map, position if position is not None else next(axis_map.samples()))
    pixels, step = _thumbnail(reader, check)
    mask = ground(pixels.mean(0))
    if len(pixels) == 3:
        colour = pixels.max(0) - pixels.min(0)
        if not mask.all() and np.median(colour[~mask]) > _GREY * pixels.max():
            mask[:] = True  # glass has no colour: this is the paler part of the tissue
        mask |= ground(colour, bright=False)
    return Tissue(binary_dilation(mask, iterations=max(2, math.ceil(_MARGIN / step))), step)


def tissue_map(
    volume: Volume, axis_map: AxisMap, positions: Iterable[Mapping[str, int]], *, check: Callable[[], None] = lambda: None
) -> tuple[NDArray[np.bool_], dict[str, int]]:
    """Find tissue on several planes, frames or volumes of an image, to be looked at.

    Parameters
    ----------
    volume, axis_map, check
        As for `tissue_mask`.
    positions : iterable of mapping of str to int
        Which planes, frames or volumes; the others stay empty.

    Returns
    -------
    map : ndarray of bool
        Axes `AxisMap.grid_axes`; as many places as the image along those that are run one by one, fewer in space.
    steps : dict of str to int
        Pixels of `volume` from one place to the next, by axis.
    """
    found: NDArray[np.bool_] | None = None
    step = 1
    order = [axis_map.spatial.index(axis) for axis in axis_map.grid_axes if axis in axis_map.spatial]
    for position in positions:
        tissue = tissue_mask(volume, axis_map, position, check=check)
        sizes = dict(zip(axis_map.spatial, tissue.mask.shape, strict=True))
        if found is None:
            step = tissue.step
            found = np.zeros([sizes.get(axis, axis_map.sizes[axis]) for axis in axis_map.grid_axes], bool)
        found[tuple(position.get(axis, slice(None)) for axis in axis_map.grid_axes)] = tissue.mask.transpose(order)
    if found is None:
        raise ValueError("at least one position is needed")
    return found, {axis: step if axis in axis_map.spatial else 1 for axis in axis_map.grid_axes}


def holding(tissue: Tissue, level: Volume, image: Volume, spatial: str, grid: Grid, part: Part) -> Callable[[Tile], bool]:
    """Return which boxes of the model's grid hold tissue.

    Parameters
    ----------
    tissue : Tissue
        Of a sample.
    level : Volume
        The resolution that it was looked for in.
    image : Volume
        The finest resolution.
    spatial : str
        Axes of space as the model has them.
    grid : Grid
        From the pixels of the image to those of the model.
    part : Part
        The box of the image that the grid is for.
    """
    factors = [level.sizes[axis] / image.sizes[axis] for axis in spatial]
    scales = [by * size / model for by, size, model in zip(factors, grid.image, grid.model, strict=True)]
    origins = [by * start for by, start in zip(factors, part.start, strict=True)]

    def wanted(tile: Tile) -> bool:
        region = tuple(
            (math.floor(origin + start * scale), math.ceil(origin + stop * scale))
            for (start, stop), origin, scale in zip(tile.bounds, origins, scales, strict=True)
        )
        return tissue.touches(region)

    return wanted


def ground(values: NDArray[np.float32], *, bright: bool | None = None) -> NDArray[np.bool_]:
    """Return what stands out from an even ground; everything where there is none, unless its side is known.

    Parameters
    ----------
    values : ndarray of float
    bright : bool, optional
        Whether the ground is brighter than the rest; judged by the values if not given.
    """
    from skimage.filters import threshold_otsu

    known = bright is not None
    smooth = uniform_filter(np.nan_to_num(values).astype(np.float32), 3)  # single bright pixels are noise
    if smooth.min() == smooth.max():
        return np.full(values.shape, not known)
    cut = threshold_otsu(smooth)
    low, high = smooth[smooth <= cut], smooth[smooth > cut]
    bright = high.std() < low.std() if bright is None else bright
    inside, outside = (high, low) if bright else (low, high)
    middle = float(np.median(inside))
    spread = 1.4826 * float(np.median(np.abs(inside - middle)))
    distance = abs(float(outside.mean()) - middle)
    if spread > _CLEAR * distance:
        return np.full(values.shape, not known)
    reach = min(abs(cut - middle), max(_SPREAD * spread, _LEAST * distance))
    mask: NDArray[np.bool_] = smooth < middle - reach if bright else smooth > middle + reach
    return mask


def _thumbnail(reader: SampleReader, check: Callable[[], None]) -> tuple[NDArray[np.float32], int]:
    """Read every n-th pixel along each axis, some rows at a time."""
    shape = reader.shape[1:]
    step = max(1, math.ceil((math.prod(shape) / _SAMPLES) ** (1 / len(shape))))
    rows = []
    for start in range(0, shape[0], 64 * step):
        check()
        stop = min(start + 64 * step, shape[0])
        region = (slice(start, stop, step), *(slice(0, size, step) for size in shape[1:]))
        rows.append(np.asarray(reader.read(region), dtype=np.float32))
    joined: NDArray[Any] = np.concatenate(rows, axis=1)
    return joined, step
