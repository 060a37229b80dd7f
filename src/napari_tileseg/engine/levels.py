"""Which resolution of a pyramid a run reads, and where the boxes of its parts lie there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.engine.grid import SAME, Grid
from napari_tileseg.engine.parts import Part
from napari_tileseg.engine.spacing import is_skewed, spacing_ratios

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["View", "choose_level", "choose_view"]

_MEASURED = 1 << 30
"""Most values that are measured where a coarser resolution could be measured instead; more take minutes."""


def choose_level(ratios: Sequence[Mapping[str, float]]) -> int:
    """Choose the coarsest resolution that is not coarser than the model's pixel size.

    Parameters
    ----------
    ratios : sequence of mapping
        For each resolution, the finest first: its pixel size as a multiple of the model's, by axis. Axes on which a resolution
        is not coarser than the first do not count: nothing is lost there.

    Returns
    -------
    int
        0 where none of the others is fine enough.
    """
    finest = ratios[0]
    fits = [
        index
        for index, level in enumerate(ratios)
        if all(ratio <= 1 + SAME or ratio <= finest[axis] * 1.001 for axis, ratio in level.items())
    ]
    return max([0, *fits])


def choose_view(image: Volume, spec: ModelSpec, spatial: str, *, rescale: bool) -> View:
    """Decide what a run reads of an image.

    Parameters
    ----------
    spatial : str
        Letters that the model sees as space.
    rescale : bool
        Whether pixel sizes are matched; the finest resolution is read otherwise.
    """
    finest = spacing_ratios(image, spec) if rescale else None
    if finest is None:
        return View(image, 0, image, None)
    usable = [image]
    for level in image.levels:
        if level.axes != image.axes or any(level.sizes[axis] != size for axis, size in image.sizes.items() if axis not in spatial):
            break  # a file whose resolutions differ in more than their size is read as if it had none
        usable.append(level)
    # The sizes tell how coarse a level is; what files say of the spacing of their levels is less to be trusted.
    ratios = [finest, *({axis: finest[axis] * image.sizes[axis] / level.sizes[axis] for axis in finest} for level in usable[1:])]
    index = choose_level(ratios)
    rule = spec.resampling
    points = rule.anchor == "points"
    centred = points and is_skewed(image, spec, spatial)
    return View(image, index, usable[index], ratios[index], rule.tolerance, points, centred, spec.from_end, rule.down)


@dataclass(frozen=True, eq=False)
class View:
    """The resolution that a run reads, below the grid on which its labels lie.

    Parameters
    ----------
    image : Volume
        The finest resolution: the grid of the result.
    level : int
        Which resolution is read, 0 the finest.
    volume : Volume
        It.
    ratios : mapping of str to float or None
        Its pixel size as a multiple of the model's; None where either is unknown.
    tolerance : float
        Share by which the two may differ and be taken for equal.
    points : bool
        Whether the first pixels of both grids coincide, see `Grid.match`.
    centred : bool
        Whether it is places at half the length that do.
    from_end : str
        Axes along which pixels are counted from the end.
    down : bool
        Whether sizes on the model's grid are rounded down.
    """

    image: Volume
    level: int
    volume: Volume
    ratios: Mapping[str, float] | None
    tolerance: float = SAME
    points: bool = False
    centred: bool = False
    from_end: str = ""
    down: bool = False

    def matched(self, shape: tuple[int, ...]) -> Grid:
        """Return the grids of a box of the level."""
        how = {"points": self.points, "centred": self.centred, "down": self.down}
        return Grid.match(shape, self.ratios, self.tolerance, from_end=self.from_end, **how)

    @property
    def measured(self) -> tuple[int, Volume]:
        """The resolution whose values are measured for normalisation: what is read, or a coarser one where that is huge."""
        levels = [self.volume, *self.image.levels[self.level :]] if self.level < len(self.image.levels) else [self.volume]
        fits = (place for place, level in enumerate(levels) if math.prod(level.shape) <= _MEASURED)
        place = next(fits, len(levels) - 1)
        return self.level + place, levels[place]

    def factors(self, spatial: str) -> tuple[float, ...]:
        """Return how many pixels of the image lie along one of the level, by axis."""
        return tuple(self.image.sizes[axis] / self.volume.sizes[axis] for axis in spatial)

    def snapped(self, part: Part, spatial: str) -> tuple[Part, Part]:
        """Move the box of a part outwards to whole pixels of the level.

        Returns
        -------
        Part
            The box in pixels of the image.
        Part
            The same box in pixels of the level; its `wanted` is all of it.
        """
        if self.level == 0:
            return part, part
        steps = self.factors(spatial)
        sizes = [self.volume.sizes[axis] for axis in spatial]
        start = tuple(math.floor(low / step + 1e-9) for low, step in zip(part.start, steps, strict=True))
        stop = tuple(min(size, math.ceil(high / step - 1e-9)) for high, step, size in zip(part.stop, steps, sizes, strict=True))
        outer = [(round(low * step), round(high * step)) for low, high, step in zip(start, stop, steps, strict=True)]
        moved = Part(part.position, tuple(low for low, _ in outer), tuple(high for _, high in outer), part.wanted)
        return moved, Part(part.position, start, stop, (tuple(zip(start, stop, strict=True)),))

    def cut(self, part: Part, read: Part, start: tuple[int, ...], stop: tuple[int, ...], spatial: str) -> tuple[Part, Part]:
        """Return a box, as `snapped` gave it, cut down to `start` and `stop` in pixels of the level."""
        steps = self.factors(spatial)
        outer = [(round(low * step), round(high * step)) for low, high, step in zip(start, stop, steps, strict=True)]
        moved = Part(part.position, tuple(low for low, _ in outer), tuple(high for _, high in outer), part.wanted)
        return moved, Part(read.position, start, stop, read.wanted)

    def spacings(self, spec: ModelSpec) -> tuple[dict[str, float], dict[str, float]]:
        """Return pixel sizes of the level and of the model along all axes of space that the image has, in one unit."""
        sizes = {axis: self.volume.spacing[axis] for axis in self.volume.spatial_axes}
        ratios = self.ratios or {}
        return sizes, {axis: size / ratios.get(axis, 1.0) for axis, size in sizes.items()}

    def grids(self, part: Part, read: Part) -> tuple[Grid, Grid]:
        """Return the grid on which a box is read, and that on which its labels are written; both have the same model's pixels."""
        reading = self.matched(read.shape)
        return reading, reading.over(part.shape)
