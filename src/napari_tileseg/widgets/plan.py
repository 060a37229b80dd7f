"""A run that is ready to start: made of the fields, checked, and able to say what it will need."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.levels import choose_view
from napari_tileseg.engine.orientation import turned_spec
from napari_tileseg.engine.recipe import resolve as resolve_recipe
from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.estimation import Estimate, estimate
from napari_tileseg.image import check_dtype
from napari_tileseg.job import Job
from napari_tileseg.volume import check_ndim
from napari_tileseg.widgets.choices import options_from
from napari_tileseg.widgets.layers import array_of, facts_of, stack, topmost_shapes, volume_from_layer
from napari_tileseg.widgets.regions import canvas_of, rectangles, visible_part, words
from napari_tileseg.widgets.states import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import napari
    from napari.layers import Image
    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.job import Regions, SegmentOptions
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume
    from napari_tileseg.widgets.choices import Choices
    from napari_tileseg.widgets.devices import Device

__all__ = ["MOST_SAMPLES", "SPEEDS", "Plan", "RegionError", "Speeds", "TissueMap", "estimate_words", "make_plan"]

MOST_SAMPLES = 32
"""Of more planes and frames than these, background is looked for in one after the other, as they are shown."""


class RegionError(OptionsError):
    """The region cannot be used; its sentence belongs to the fold Where."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything the fields say, checked and frozen."""

    layer: Image
    volume: Volume
    spec: ModelSpec
    axis_map: AxisMap
    job: Job
    unit: str
    region_words: str = ""

    def estimate(self) -> Estimate:
        """Say what the run will need; pure geometry, but there may be many tiles."""
        job = self.job
        need = estimate(self.volume, self.spec, options=job.options, channels=job.channels, region=job.region)
        if job.options.skip_background and self.by_view:
            need = replace(need, notes=(*need.notes, "The preview shows a plane or frame once it is in view."))
        return need

    @property
    def by_view(self) -> bool:
        """Whether there are so many planes and frames that background is looked for only in those that are shown."""
        return self.axis_map.count > MOST_SAMPLES

    def tissue(self, shown: Mapping[str, int]) -> TissueMap:
        """Find what of the image is no background; reads a coarse picture of it.

        Parameters
        ----------
        shown : mapping of str to int
            The plane or frame that the viewer shows; of many it is the only one that is looked at.
        """
        from napari_tileseg.engine.tissue import tissue_map

        view = choose_view(self.volume, self.spec, self.axis_map.spatial, rescale=self.job.options.rescale)
        _, level = view.measured
        axis_map = replace(self.axis_map, shape=level.shape)
        samples = [self.position(shown)] if self.by_view else list(axis_map.samples())
        mask, steps = tissue_map(level, axis_map, samples)
        return TissueMap(mask, tuple(by * self.volume.sizes[axis] / level.sizes[axis] for axis, by in steps.items()))

    def position(self, shown: Mapping[str, int]) -> dict[str, int]:
        """Return which plane or frame is shown."""
        return {axis: min(max(shown.get(axis, 0), 0), self.axis_map.sizes[axis] - 1) for axis in self.axis_map.iterated}


@dataclass(frozen=True, eq=False)
class TissueMap:
    """Where a run that skips background would look.

    Parameters
    ----------
    mask : ndarray of bool
        Axes `AxisMap.grid_axes`.
    steps : tuple of float
        Pixels of the image from one place of the mask to the next, by axis.
    """

    mask: NDArray[Any]
    steps: tuple[float, ...]


def make_plan(viewer: napari.viewer.Viewer, layer: Image, spec: ModelSpec, choices: Choices, inputs: Sequence[Image] = ()) -> Plan:
    """Check the fields in the order in which they stand and freeze them.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        Tells what is visible and which rectangles are meant.
    layer : napari.layers.Image
    spec : ModelSpec
    choices : Choices
    inputs : sequence of napari.layers.Image
        A layer for each channel of the model, where they lie in several layers.

    Raises
    ------
    AxesError, InputError
        About the image, its axes and channels.
    OptionsError
        About an option; `RegionError` about the region.
    """
    facts = facts_of(layer)
    shape = array_of(layer).shape
    if 0 in shape:
        raise InputError(f'"{layer.name}" is empty: its shape is {tuple(shape)}. Choose an image with at least one pixel.')
    check_ndim(len(shape))
    axes = choices.axes.replace(" ", "").replace(",", "").upper()
    if "?" in axes:
        map_axes(axes, shape, spec)  # asks
    volume = volume_from_layer(layer, axes)
    if inputs:
        volume = stack([volume_from_layer(item, axes) for item in inputs], layer.name)
    axis_map = map_axes(volume.axes, volume.shape, turned_spec(volume, spec), channels=choices.channels)
    check_dtype(volume)
    pixel, unit = facts.pixel(axes, spec.spatial_axes)
    options = options_from(choices, spec, pixel)
    resolve_recipe(spec, options)
    regions = _regions(viewer, layer, axis_map, choices.region)
    path = getattr(layer.source, "path", None)
    job = Job(
        model=spec.name,
        options=options,
        input=str(path) if path else None,
        axes=volume.axes,
        channels=choices.channels,
        region=regions or None,
    )
    return Plan(layer, volume, spec, axis_map, job, unit, words(regions, axis_map) if regions else "")


def estimate_words(need: Estimate, device: Device | None, seconds: float | None) -> str:
    """Say what will happen: ``"12 tiles of 256 × 256. About 3 s."`` and what memory that takes."""
    window = " × ".join(str(size) for size in need.window)
    tiles = f"{need.tiles} tile{'s' * (need.tiles != 1)} of {window}."
    time = f" About {duration(seconds)}." if seconds is not None else ""
    on_gpu = device is not None and device.key != "cpu"
    wanted = need.device_bytes if on_gpu else max(need.host_bytes, need.device_bytes)
    kind = "GPU memory" if on_gpu else "memory"
    room = f" of {_size(device.free)}" if device is not None and device.free is not None else ""
    memory = f"{_size(wanted)}{room} {kind}."
    short = device is not None and device.free is not None and wanted > device.free
    advice = ["That is more than is free. Choose a smaller window in Options."] if short else []
    return "\n".join([tiles + time, memory, *advice, *need.notes])


class Speeds:
    """How fast each model was in this session, by device and arithmetic; for models whose times are not kept between sessions."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[Any, ...], float] = {}

    def learn(self, model: str, options: SegmentOptions, tiles: int, window: Sequence[int], seconds: float) -> None:
        """Remember how long so many tiles took."""
        if tiles and seconds > 0:
            self._seconds[_pace(model, options)] = seconds / (tiles * math.prod(window))

    def seconds(self, model: str, options: SegmentOptions, need: Estimate) -> float | None:
        """Guess the time of a run; None before the first."""
        speed = self._seconds.get(_pace(model, options))
        return None if speed is None else speed * need.tiles * math.prod(need.window)


def _pace(model: str, options: SegmentOptions) -> tuple[Any, ...]:
    """Return what the time of a pixel depends on."""
    return model, options.device, options.precision, options.tta


SPEEDS = Speeds()
"""What this process has learned."""


def _regions(viewer: napari.viewer.Viewer, layer: Image, axis_map: AxisMap, kind: str) -> Regions:
    dims = viewer.dims
    try:
        if kind == "visible":
            return (visible_part(layer, axis_map, dims.displayed, dims.current_step, dims.ndim, canvas_of(viewer)),)
        if kind == "rectangles":
            shapes: Any = topmost_shapes(viewer.layers, viewer.layers.selection.active)
            return rectangles(shapes, layer, axis_map, dims.displayed, dims.ndim)
    except OptionsError as error:
        raise RegionError(str(error)) from None
    return ()


def _size(count: int | None) -> str:
    if count is None:
        return "?"
    gigabytes = count / 1e9
    return f"{gigabytes:.0f} GB" if gigabytes >= 9.95 else f"{gigabytes:.1f} GB" if gigabytes >= 0.095 else f"{max(count / 1e6, 1):.0f} MB"
