"""``Preparation``: an image as a model sees it: which resolution, which box of it, measured, normalised, on the model's grid.

A run and a training both take what a network gets from here, so that a network learns what it is going to see. ::

    image -> resolution -> box (not 0, a region) -> measured -> normalised, resampled -> Source
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.engine.cascade import StackedSource, label_source
from napari_tileseg.engine.crop import Inside, cropped, find_inside
from napari_tileseg.engine.damage import Damage
from napari_tileseg.engine.grid import ResampledSource
from napari_tileseg.engine.interpolate import InterpolatedSource, choose_kernel
from napari_tileseg.engine.limits import Limits
from napari_tileseg.engine.normalize import Statistics, measure_passes
from napari_tileseg.engine.prepare import NormalizedSource, PreparedSource, SampleReader, blocks_of, frame_readers, measure_frame
from napari_tileseg.errors import ModelError
from napari_tileseg.models.resampling import Interpolation
from napari_tileseg.models.spec import Normalization

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Literal

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.grid import Grid
    from napari_tileseg.engine.levels import View
    from napari_tileseg.engine.parts import Part
    from napari_tileseg.engine.protocols import Source
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["Preparation"]


class Preparation:
    """What a model sees of an image, sample after sample; nothing is read before it is asked for.

    Parameters
    ----------
    axis_map : AxisMap
        How the image's axes meet the model's.
    spec : ModelSpec
        The model, turned to the image.
    view : View
        Which resolution of the image is read.
    unreadable : {"stop", "skip"}
        What to do about places that cannot be read.
    check : callable
        Called before every block that is measured; may raise to stop.
    on_measured : callable
        Told the statistics of each time point, and which one it is (None without T), as soon as they are known.

    Attributes
    ----------
    statistics : dict of (int or None) to Statistics
        Of the time points that were measured; those of an earlier run may be put in.
    previous : Volume or None
        Labels of the first model of a cascade, on the image's grid; must be there before a source of the second one is asked for.
    """

    def __init__(
        self,
        axis_map: AxisMap,
        spec: ModelSpec,
        view: View,
        *,
        unreadable: Literal["stop", "skip"] = "stop",
        check: Callable[[], None] = lambda: None,
        on_measured: Callable[[Statistics, int | None], None] = lambda statistics, frame: None,
    ) -> None:
        self.axis_map, self.spec, self.view = axis_map, spec, view
        self.statistics: dict[int | None, Statistics] = {}
        self.previous: Volume | None = None
        self._unreadable, self._check, self._on_measured = unreadable, check, on_measured
        self._insides: dict[int | None, Inside] = {}
        self._limits: dict[int | None, Limits] = {}
        self.damage = self._damage(self.view.level)

    @property
    def crops(self) -> bool:
        """Whether no more than the box of what is not 0 is seen."""
        return self.spec.crop == "nonzero"

    @property
    def measured_level(self) -> int:
        """The resolution whose values are measured."""
        return self.view.level if self.crops else self.view.measured[0]

    def seen(self, part: Part, read: Part) -> tuple[Part, Part] | None:
        """Return what of a box, as `View.snapped` gives it, the model sees; None where that is nothing but background."""
        if not self.crops:
            return part, read
        statistics = self.measured(part.position.get("T"))
        box = cropped(read, statistics.box[1:])
        if box is None or not Inside(statistics.box).holds(self._ordinal(part.position)):
            return None
        return self.view.cut(part, read, *box, self.axis_map.spatial)

    def source(self, part: Part, read: Part) -> Source:
        """Return a box of a sample as the network sees it."""
        image = self._image(part, read)
        return image if self.spec.previous is None else StackedSource(image, self._labels_before(part, read))

    def mapped(self, level: Volume) -> AxisMap:
        """Return how the axes of a resolution are used."""
        return replace(self.axis_map, shape=level.shape)

    def measured(self, frame: int | None) -> Statistics:
        """Return the statistics of a time point; the first call for it reads the image."""
        if frame not in self.statistics:
            level, volume = (self.view.level, self.view.volume) if self.crops else self.view.measured
            rule = self.spec.normalization
            damage = self.damage if level == self.view.level else self._damage(level)
            inside = self._inside(frame) if self.crops else None
            if self.spec.resampling.before and rule.measured and not self.view.matched(self.mapped(self.view.volume).spatial_shape).same:
                statistics = self._measured_after(frame)
            else:
                statistics = measure_frame(volume, self.mapped(volume), rule, frame, damage=damage, check=self._check, inside=inside)
            self.statistics[frame] = replace(statistics, box=inside.box) if inside is not None else statistics
            self._on_measured(self.statistics[frame], frame)
        return self.statistics[frame]

    def _damage(self, level: int) -> Damage:
        image = self.view.image.name
        name = f"{image}, resolution {level}" if level else image
        return Damage(name, self._unreadable)

    def _image(self, part: Part, read: Part) -> Source:
        reading, _ = self.view.grids(part, read)
        if reading.same:
            return self._prepared(part.position, read.start, read.stop)
        if not self.spec.resampling.before:
            return self._resampled(self._prepared(part.position, read.start, read.stop), part.position, reading)
        raw = self._raw(part.position, read.start, read.stop)
        statistics = self.measured(part.position.get("T"))
        return NormalizedSource(self._resampled(raw, part.position, reading), statistics, self.spec.normalization)

    def _labels_before(self, part: Part, read: Part) -> Source:
        """Return the labels of the first model of a cascade as channels."""
        stage = self.spec.previous
        assert stage is not None  # `source` has looked
        if self.previous is None:
            raise ModelError(f"{self.spec.label} needs the labels of {stage.model.label}. Load it with load_model.")
        inside = partial(self._inside(read.position.get("T")).of, self._ordinal(read.position)) if self.crops else None
        kernel = choose_kernel(stage.resampling, *self.view.spacings(self.spec), self.axis_map.spatial)
        return label_source(self.previous, self.axis_map, read, stage.labels, self.view.grids(part, read)[0], kernel, inside)

    def _ordinal(self, position: Mapping[str, int]) -> int:
        """Return the place of a sample among those of its time point."""
        samples = [other for other in self.axis_map.samples() if other.get("T") == position.get("T")]
        return samples.index(dict(position))

    def _raw(self, position: Mapping[str, int], start: tuple[int, ...], stop: tuple[int, ...]) -> Source:
        """Return a box of a sample as it is stored."""
        reader = SampleReader(self.view.volume, self.mapped(self.view.volume), position, self.damage)
        return PreparedSource(reader, Statistics(), Normalization(), origin=start, stop=stop)

    def _prepared(self, position: Mapping[str, int], start: tuple[int, ...], stop: tuple[int, ...]) -> PreparedSource:
        """Return a box of a sample, normalised."""
        frame = position.get("T")
        statistics = self.measured(frame)
        reader = SampleReader(self.view.volume, self.mapped(self.view.volume), position, self.damage)
        if not self._masked:
            return PreparedSource(reader, statistics, self.spec.normalization, origin=start, stop=stop)
        inside = partial(self._inside(frame).of, self._ordinal(position))
        return PreparedSource(reader, statistics, self.spec.normalization, origin=start, stop=stop, inside=inside)

    def _resampled(self, source: Source, position: Mapping[str, int], grid: Grid) -> Source:
        """Return a prepared box on the model's grid."""
        spec, spatial = self.spec, self.axis_map.spatial
        if spec.resampling.image == Interpolation():
            return ResampledSource(source, grid)
        kernel = choose_kernel(spec.resampling.image, *self.view.spacings(spec), spatial)
        limits = Limits([source], source, self._check)
        if kernel.clip and not kernel.across and (self.crops or self.axis_map.iterated):
            limits = self._limits_of(position.get("T"))
        return InterpolatedSource(source, grid, kernel, limits, spatial)

    def _measured_after(self, frame: int | None) -> Statistics:
        """Measure a time point on the model's grid."""
        mapped = self.mapped(self.view.volume)
        shape, rule = mapped.spatial_shape, self.spec.normalization
        grid = self.view.matched(shape)
        samples = [position for position in mapped.samples() if frame is None or position.get("T") == frame]
        sources = [self._resampled(self._raw(position, (0,) * len(shape), shape), position, grid) for position in samples]

        def blocks() -> Iterator[NDArray[np.float32]]:
            for source in sources:
                for region in blocks_of(source.shape):
                    self._check()
                    yield source.read(region)

        return measure_passes(blocks, rule, sources[0].shape[0], np.dtype(np.float32))

    def _limits_of(self, frame: int | None) -> Limits:
        """Return the limits of all samples of a time point together; asked for once."""
        if frame not in self._limits:
            statistics = self.measured(frame)
            mapped = self.mapped(self.view.volume)
            samples = [position for position in mapped.samples() if position.get("T") == frame]
            (first, last), *spans = statistics.box or ((0, len(samples)), *((0, size) for size in mapped.spatial_shape))
            start, stop = tuple(low for low, _ in spans), tuple(high for _, high in spans)
            sources = [self._prepared(position, start, stop) for position in samples[first:last]]
            self._limits[frame] = Limits(sources, sources[0], self._check)
        return self._limits[frame]

    @property
    def _masked(self) -> bool:
        return any(rule.masked for rule in self.spec.normalization.channels) or (self.spec.previous is not None and self.crops)

    def _inside(self, frame: int | None) -> Inside:
        """Return what of a time point is not 0; looked for once, and again by a run that goes on."""
        if frame not in self._insides:
            readers = frame_readers(self.view.volume, self.mapped(self.view.volume), frame, self.damage)
            self._insides = {frame: find_inside(readers, blocks_of, masked=self._masked, check=self._check)}
        return self._insides[frame]
