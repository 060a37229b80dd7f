"""``Sample``: one plane, frame or volume as the engine shows it to a network, and labels brought to the same place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.grid import taps
from napari_tileseg.engine.levels import choose_view
from napari_tileseg.engine.orientation import facing
from napari_tileseg.engine.parts import Part
from napari_tileseg.engine.preparation import Preparation
from napari_tileseg.engine.prepare import blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.grid import Grid
    from napari_tileseg.engine.orientation import Facing
    from napari_tileseg.engine.protocols import Source
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["Sample", "samples_of"]


@dataclass(frozen=True)
class Sample:
    """What a network sees of one sample of an image.

    Parameters
    ----------
    number : int
        Its place among all samples of the image, those of which nothing is seen included.
    axis_map : AxisMap
        How the image's axes meet the network's.
    part : Part
        The box of the sample that is seen, in pixels of the image.
    source : Source
        That box, prepared, as it lies in the image.
    grid : Grid
        From the box in pixels of the image to the pixels of `source`.
    facing : Facing, optional
        How it is turned before the network sees it; None if it is not.
    """

    number: int
    axis_map: AxisMap
    part: Part
    source: Source
    grid: Grid
    facing: Facing | None

    def pixels(self) -> NDArray[np.float16]:
        """Return all that the network sees, shape (C, *spatial); read block by block, kept in half precision."""
        found = np.empty(self.source.shape, np.float16)
        for region in blocks_of(self.source.shape):
            found[(slice(None), *region)] = self.source.read(region)
        return self._turned(found)

    def labels(self, numbers: NDArray[Any], axes: str) -> NDArray[Any]:
        """Bring labels to where `pixels` are; each pixel gets that of the nearest one.

        Parameters
        ----------
        numbers : ndarray
            Labels of the whole image.
        axes : str
            Theirs: those of the image without C, behind a C where there is a mask for each class.

        Returns
        -------
        ndarray, shape (*spatial) or (K, *spatial)
        """
        position = self.part.position
        sample = numbers[tuple(position.get(axis, slice(None)) for axis in axes)]
        have = [axis for axis in axes if axis not in position]
        masks = "C" if "C" in have else ""
        sample = sample.transpose([have.index(axis) for axis in masks + self.axis_map.spatial])
        box = tuple(slice(start, stop) for start, stop in zip(self.part.start, self.part.stop, strict=True))
        sample = sample[(slice(None),) * len(masks) + box]
        for axis, size in enumerate(self.grid.model):
            if not self.grid.unchanged(axis):
                sample = sample.take(taps(0, 0, size, self.grid, axis)[0][:, 0], axis=len(masks) + axis)
        return self._turned(sample)

    def _turned(self, array: NDArray[Any]) -> NDArray[Any]:
        return array if self.facing is None else np.ascontiguousarray(self.facing.turned(array))


def samples_of(image: Volume, spec: ModelSpec, check: Callable[[], None] = lambda: None) -> Iterator[Sample]:
    """Yield the samples of an image of which a network sees anything.

    Parameters
    ----------
    image : Volume
    spec : ModelSpec
        The model's card, for volumes that lie as it knows them.
    check : callable
        Called before every block that is measured; may raise to stop.

    Raises
    ------
    AxesError, InputError
        If the image does not fit the model.
    UnreadableError
        If a part of it cannot be read.
    """
    found = facing(image, spec)
    card = spec if found is None else found.spec(spec)
    axis_map = map_axes(image.axes, image.shape, card)
    view = choose_view(image, card, axis_map.spatial, rescale=True)
    preparation = Preparation(axis_map, card, view, check=check)
    shape = axis_map.spatial_shape
    for number, position in enumerate(axis_map.samples()):
        whole = Part(position, (0,) * len(shape), shape, (tuple((0, size) for size in shape),))
        if (seen := preparation.seen(*view.snapped(whole, axis_map.spatial))) is not None:
            yield Sample(number, axis_map, seen[0], preparation.source(*seen), view.grids(*seen)[1], found)
