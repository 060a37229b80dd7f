"""``Inside``: the part of an image that is not 0, for models that see no more than that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_fill_holes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.parts import Part, Region
    from napari_tileseg.engine.prepare import SampleReader

__all__ = ["Inside", "cropped", "find_inside"]


@dataclass(frozen=True, eq=False)
class Inside:
    """What of the samples of one time point is not 0 in all channels.

    Parameters
    ----------
    box : tuple of (start, stop)
        Along the samples (the planes of a stack, or the one volume), then along the axes of space.
    mask : ndarray of bool or None
        Of the box; holes, however they run through the planes, belong to the inside. None: all of the box, or not asked for.
    """

    box: Region
    mask: NDArray[np.bool_] | None = None

    def holds(self, sample: int) -> bool:
        """Whether a sample lies in the box."""
        start, stop = self.box[0]
        return start <= sample < stop

    def of(self, sample: int, region: tuple[slice, ...]) -> NDArray[np.bool_] | None:
        """Return the mask of a region of a sample, both inside the box; None: all of it."""
        if self.mask is None:
            return None
        place = tuple(slice(span.start - start, span.stop - start) for span, (start, _) in zip(region, self.box[1:], strict=True))
        found: NDArray[np.bool_] = self.mask[sample - self.box[0][0]][place]
        return found


def find_inside(
    readers: Sequence[SampleReader],
    blocks: Callable[[tuple[int, ...]], Iterable[tuple[slice, ...]]],
    *,
    masked: bool,
    check: Callable[[], None] = lambda: None,
) -> Inside:
    """Look through the samples of one time point.

    Parameters
    ----------
    readers : sequence of SampleReader
        One for each plane, or one for the volume.
    blocks : callable
        Cuts (C, *spatial) into regions to read at once.
    masked : bool
        Whether the mask is needed; one byte for each pixel is held then.
    check : callable
        Called before every block; may raise to stop.

    Returns
    -------
    Inside
        The whole image where it is 0 everywhere.
    """
    spatial = readers[0].shape[1:]
    shape = (len(readers), *spatial)
    mask = np.zeros(shape, np.bool_) if masked else None
    filled = [np.zeros(size, np.bool_) for size in shape]  # whether anything lies at each place of an axis
    for index, reader in enumerate(readers):
        for region in blocks(reader.shape):
            check()
            inside = (reader.read(region) != 0).any(axis=0)
            if mask is not None:
                mask[index][region] = inside
            filled[0][index] |= inside.any()
            for axis, span in enumerate(region):
                others = tuple(other for other in range(len(region)) if other != axis)
                filled[axis + 1][span] |= inside.any(axis=others)
    box = tuple(_extent(places) for places in filled)
    if mask is None:
        return Inside(box)
    mask = mask[tuple(slice(*span) for span in box)]
    whole = mask if len(spatial) == 2 else mask[0]
    whole = binary_fill_holes(whole)
    return Inside(box, None if whole.all() else whole.reshape(mask.shape))


def cropped(part: Part, box: Region) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return start and stop of what a part has in common with a box of space; None if that is nothing."""
    start = tuple(max(low, begin) for low, (begin, _) in zip(part.start, box, strict=True))
    stop = tuple(min(high, end) for high, (_, end) in zip(part.stop, box, strict=True))
    return (start, stop) if all(low < high for low, high in zip(start, stop, strict=True)) else None


def _extent(places: NDArray[np.bool_]) -> tuple[int, int]:
    found = np.flatnonzero(places)
    return (int(found[0]), int(found[-1]) + 1) if found.size else (0, len(places))
