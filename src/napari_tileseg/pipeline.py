"""``segment``: the one path from an image to its labels; widget, command line, batch and worker all take it."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_tileseg.engine.axes import AxisMap, map_axes
from napari_tileseg.engine.events import Event, Finished, Planned, Progress, SlabDone, Warned
from napari_tileseg.engine.grid import Grid, ResampledSink, ResampledSource
from napari_tileseg.engine.memory import default_batch
from napari_tileseg.engine.memory import estimate as estimate_memory
from napari_tileseg.engine.parts import Part, Region, plan_parts
from napari_tileseg.engine.prepare import PreparedSource, SampleReader, measure_frame
from napari_tileseg.engine.recipe import Recipe
from napari_tileseg.engine.recipe import resolve as resolve_recipe
from napari_tileseg.engine.sinks import GridSink
from napari_tileseg.engine.spacing import spacing_note, spacing_ratios
from napari_tileseg.errors import Cancelled, OptionsError, OutputError, RunError
from napari_tileseg.estimation import Estimate, estimate
from napari_tileseg.image import as_volume, check_dtype
from napari_tileseg.job import SegmentOptions
from napari_tileseg.provenance import describe
from napari_tileseg.segmentation import Segmentation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.normalize import Statistics
    from napari_tileseg.engine.precision import Verdict
    from napari_tileseg.engine.protocols import Predictor, Sink, Source
    from napari_tileseg.engine.tiles import Tile, TilePlan
    from napari_tileseg.volume import Volume

__all__ = ["Estimate", "estimate", "save_segmentation", "segment"]


def segment(
    volume: Volume | NDArray[Any] | str | Path,
    model: str | Path | Predictor,
    *,
    options: SegmentOptions | None = None,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    region: Region | None = None,
    out: str | Path | NDArray[Any] | None = None,
    scores_out: NDArray[np.float32] | None = None,
    uncertainty_out: NDArray[np.float32] | None = None,
    skip: int = 0,
    on_event: Callable[[Event], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Segmentation:
    """Segment an image.

    Parameters
    ----------
    volume : Volume, ndarray or path
        The image. An array needs `axes` where they cannot be told from its shape.
    model : str, path or Predictor
        Name of a model, path of a package, ``"ensemble:REF,REF"`` for the mean of several, or a loaded predictor.
    options : SegmentOptions, optional
        How; as the model says by default.
    axes : str, optional
        One letter of TCZYX per dimension of the image; overrides what the file says.
    channels : sequence of int, optional
        Index along C for each input channel of the model.
    region : tuple of (start, stop), optional
        Part of the result to compute, one pair for each axis of the image without C. The network still sees
        its surroundings; labels elsewhere are 0.
    out : path or ndarray, optional
        A path: the result is saved there. An array (a memory map, say) of the result's shape and dtype: it is filled
        while the run goes on.
    scores_out : ndarray of float32, optional
        Array for the raw scores, class first; made in memory if `options.scores` and not given.
    uncertainty_out : ndarray of float32, optional
        Array for the uncertainty, of the result's axes without C; made in memory if `options.uncertainty` and not given.
    skip : int
        Rows that an earlier, interrupted run has finished (`AxisMap.rows_until` of its last slab); `out` holds them.
    on_event : callable, optional
        Receives every event of `napari_tileseg.engine.events` as it happens.
    cancel : callable, optional
        Asked before every tile; true stops the run.

    Returns
    -------
    Segmentation

    Raises
    ------
    InputError, AxesError, OptionsError, ModelError, OutputError
        Before the run, each with a sentence that says what to do.
    Cancelled, PredictorError, DeviceMemoryError
        During the run; the finished part is in `out`, or beside it as ``name_unfinished.suffix`` if `out` is a path.
    """
    options = options or SegmentOptions()
    tell = on_event or (lambda event: None)
    target = _output_path(out)
    predictor = _predictor(model, options)
    image = as_volume(volume, axes=axes, spec=predictor.spec)
    axis_map = map_axes(image.axes, image.shape, predictor.spec, channels=channels)
    check_dtype(image)
    run = _Run(image, axis_map, predictor, options, region, skip, tell, cancel or (lambda: False))
    labels = _labels_array(axis_map, None if target else out)
    shape = (len(predictor.spec.score_names), *axis_map.grid_shape)
    run.scores = _float_array("scores", shape, scores_out) if options.scores else None
    run.uncertainty = _float_array("uncertainty", axis_map.grid_shape, uncertainty_out) if options.uncertainty else None
    try:
        run.execute(labels)
    except RunError as error:
        if target is not None and run.slabs:
            error.kept = _keep(run.result(labels), target, str(error))
        raise
    result = run.result(labels)
    if target is not None:
        save_segmentation(result, target, overwrite=True)
    return result


def save_segmentation(segmentation: Segmentation, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write labels with spacing, units, class names, colours and provenance; the suffix decides the format.

    Raises
    ------
    OutputError
        If the suffix is unknown, the file is there already, or the disk refuses.
    """
    from napari_tileseg.io import write_labels

    return write_labels(
        segmentation.labels_volume(),
        path,
        classes=segmentation.classes,
        colors=segmentation.colors,
        provenance=dict(segmentation.provenance),
        overwrite=overwrite,
    )


def _keep(unfinished: Segmentation, path: Path, reason: str) -> Path | None:
    """Save what an interrupted run has finished, under a name that cannot be taken for the whole; None if the disk refuses."""
    from napari_tileseg.io import suffix_of

    suffix = suffix_of(path, purpose="write")
    noted = replace(unfinished, provenance={**unfinished.provenance, "state": "unfinished", "reason": reason})
    try:
        return save_segmentation(noted, path.with_name(f"{path.name.removesuffix(suffix)}_unfinished{suffix}"), overwrite=True)
    except OutputError:
        return None


@dataclass
class _Run:
    """One call of `segment`: every sample in turn, its events told on the grid of the whole result."""

    image: Volume
    axis_map: AxisMap
    predictor: Predictor
    options: SegmentOptions
    region: Region | None
    skip: int
    tell: Callable[[Event], None]
    cancel: Callable[[], bool]
    warnings: list[str] = field(default_factory=list)
    statistics: dict[int | None, Statistics] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    objects: int = 0
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    grid: Grid = field(default_factory=lambda: Grid((), ()))
    verdict: Verdict | None = None
    slabs: int = 0
    windows: int = 0
    scores: NDArray[np.float32] | None = None
    uncertainty: NDArray[np.float32] | None = None

    def execute(self, labels: NDArray[Any]) -> None:
        began = time.monotonic()
        recipe = resolve_recipe(self.predictor.spec, self.options)
        ratios = spacing_ratios(self.image, self.predictor.spec) if self.options.rescale else None
        parts = list(plan_parts(self.axis_map, self.region, recipe.window, ratios))
        self.grid = Grid.match(parts[0].shape, ratios)
        plan = recipe.plan(self.grid.model)
        clock = _Clock(len(plan) * len(parts))
        self._plan(recipe, plan, clock.total)
        if (note := spacing_note(self.image, self.predictor.spec, rescale=self.options.rescale)) is not None:
            self._warn(note)
        rows = self.axis_map.spatial_shape[0]
        # Objects cannot be taken up in the middle of a sample: the ones cut by the interruption are not in the labels.
        skipped = self.skip // rows * rows if self.axis_map.output == "instances" else self.skip
        self.objects = int(labels.max()) if skipped and self.axis_map.output == "instances" else 0
        for ordinal, part in enumerate(parts):
            done = skipped - self.axis_map.ordinal(part.position) * rows
            if done >= part.wanted[0][1]:
                continue
            sink = GridSink(self.axis_map, part, labels, self.scores, self.uncertainty)
            self._run_part(part, max(0, done - part.start[0]), sink, clock, (ordinal + 1) * len(plan))
        self.seconds = time.monotonic() - began
        self.counts = self._count(labels)
        objects = self.objects if self.axis_map.output == "instances" else None
        self.tell(Finished(objects=objects, seconds=self.seconds, voxels=self.counts, windows=self.windows))

    def _run_part(self, part: Part, skip_rows: int, sink: GridSink, clock: _Clock, after: int) -> None:
        from napari_tileseg.engine.run import run

        statistics = self._measured(part.position.get("T"))
        reader = SampleReader(self.image, self.axis_map, part.position)
        source: Source = PreparedSource(reader, statistics, self.predictor.spec.normalization, origin=part.start, stop=part.stop)
        target: Sink = sink
        if not self.grid.same:
            source, target = ResampledSource(source, self.grid), ResampledSink(sink, self.grid)
            skip_rows = self.grid.model_row(skip_rows)
        events = run(
            source,
            self.predictor,
            target,
            options=self.options,
            cancel=self.cancel,
            first_id=self.objects + 1,
            skip_rows=skip_rows,
            verdict=self._decided(source),
            wanted=self._tissue(part),
        )
        for event in events:
            match event:
                case SlabDone(region):
                    if (moved := sink.grid_region(self.grid.image_region(region))) is not None:
                        self.slabs += 1
                        self.tell(SlabDone(moved))
                case Progress(done, total, _):
                    self.tell(clock.progress(after - total + done))
                case Finished(objects, windows=windows):
                    self.objects += objects or 0
                    self.windows += windows
                case Warned(message):
                    self._warn(message)
                case Planned(tiles=tiles, device=device, batch=batch):
                    clock.start(after - tiles)
                    self.settings.update(device=device, batch=batch)

    def _decided(self, source: Source) -> Verdict | None:
        """Choose the precision once, on the first plane, frame or volume, for all of them."""
        if self.options.precision != "auto":
            return None
        if self.verdict is None:
            from napari_tileseg.engine.precision import decide

            self.verdict = decide(source, self.predictor, self.options, check=self._raise_if_cancelled)
            self.settings["precision"] = "fast" if self.verdict.fast else "exact"
        return self.verdict

    def _tissue(self, part: Part) -> Callable[[Tile], bool] | None:
        """Return which boxes of the model's grid hold tissue; None where all are to be computed."""
        if not self.options.skip_background:
            return None
        from napari_tileseg.engine.tissue import tissue_mask

        tissue = tissue_mask(self.image, self.axis_map, part.position, check=self._raise_if_cancelled)
        scales = [image / model for image, model in zip(self.grid.image, self.grid.model, strict=True)]

        def wanted(tile: Tile) -> bool:
            region = tuple(
                (origin + math.floor(start * scale), origin + math.ceil(stop * scale))
                for (start, stop), origin, scale in zip(tile.bounds, part.start, scales, strict=True)
            )
            return tissue.touches(region)

        return wanted

    def _plan(self, recipe: Recipe, plan: TilePlan, tiles: int) -> None:
        self.settings = {**asdict(recipe), "grid": self.grid.model}
        batch = self.options.batch or default_batch(plan, self.predictor.device)
        needs = estimate_memory(plan, self.predictor.spec, batch=batch, scores=self.options.scores or bool(self.options.uncertainty))
        memory = needs.device_bytes + needs.host_bytes
        self.tell(Planned(tiles, recipe.window, self.axis_map.spatial_shape, self.predictor.device, batch, memory))

    def _measured(self, frame: int | None) -> Statistics:
        if frame not in self.statistics:
            self.statistics[frame] = measure_frame(
                self.image, self.axis_map, self.predictor.spec.normalization, frame, check=self._raise_if_cancelled
            )
            self._judge(self.statistics[frame], frame)
        return self.statistics[frame]

    def _judge(self, statistics: Statistics, frame: int | None) -> None:
        where = "" if frame is None else f"In frame {frame}, "
        if statistics.nonfinite:
            many = "value is" if statistics.nonfinite == 1 else "values are"
            self._warn(f"{where}{statistics.nonfinite:,} {many} NaN or infinite. They count as 0.")
        if statistics.constant:
            self._warn(f"{where}{'all' if where else 'All'} pixels have the same value, so there is nothing to tell apart.")

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)
            self.tell(Warned(message))

    def _raise_if_cancelled(self) -> None:
        if self.cancel():
            raise Cancelled("Cancelled while the image was being measured. Nothing is in the layer yet.")

    def _count(self, labels: NDArray[Any]) -> dict[str, int]:
        names = self.predictor.spec.classes
        if self.axis_map.output == "instances":
            return {names[-1]: self.objects}
        if self.axis_map.output == "sigmoid":
            return {name: int(np.count_nonzero(mask)) for name, mask in zip(names, labels, strict=True)}
        counts = np.zeros(len(names), np.int64)
        for plane in labels.reshape(-1, labels.shape[-1]) if labels.ndim == 2 else labels:
            counts += np.bincount(np.ravel(plane), minlength=len(names))
        return {name: int(count) for name, count in zip(names, counts, strict=True)}

    def result(self, labels: NDArray[Any]) -> Segmentation:
        spec = self.predictor.spec
        return Segmentation(
            labels=labels,
            axes=self.axis_map.result_axes,
            volume=self.image,
            classes=tuple(spec.classes),
            colors=tuple(spec.colors),
            counts=self.counts,
            scores=self.scores,
            uncertainty=self.uncertainty,
            provenance=describe(self.image, spec, self.axis_map, self.options, self.region, self.settings, self.statistics, self.warnings),
            warnings=tuple(self.warnings),
            seconds=self.seconds,
            windows=self.windows,
        )


class _Clock:
    """Turns finished tiles into progress with the seconds that are left; tiles of an earlier run cost no time."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._began = time.monotonic()
        self._first: int | None = None

    def start(self, done: int) -> None:
        """Say how many tiles were done before the first one of this run."""
        if self._first is None:
            self._first = done

    def progress(self, done: int) -> Progress:
        worked = done - (self._first or 0)
        elapsed = time.monotonic() - self._began
        return Progress(done, self.total, elapsed / worked * (self.total - done) if worked > 0 else None)


def _predictor(model: str | Path | Predictor, options: SegmentOptions) -> Predictor:
    if isinstance(model, str | Path):
        from napari_tileseg.models.predictor import load_model

        return load_model(str(model), device=options.device)
    return model


def _output_path(out: str | Path | NDArray[Any] | None) -> Path | None:
    if not isinstance(out, str | Path):
        return None
    from napari_tileseg.io import check_writable

    return check_writable(out)


def _labels_array(axis_map: AxisMap, given: Any) -> NDArray[Any]:
    if given is None:
        return np.zeros(axis_map.result_shape, axis_map.result_dtype)
    if tuple(given.shape) != axis_map.result_shape or given.dtype != axis_map.result_dtype:
        raise OptionsError(
            f"The array for the labels has shape {tuple(given.shape)} and type {given.dtype}; "
            f"{axis_map.result_shape} and {axis_map.result_dtype} are needed."
        )
    return cast("NDArray[Any]", given)


def _float_array(what: str, shape: tuple[int, ...], given: NDArray[np.float32] | None) -> NDArray[np.float32]:
    if given is None:
        return np.zeros(shape, np.float32)
    if tuple(given.shape) != shape or given.dtype != np.float32:
        raise OptionsError(
            f"The array for the {what} has shape {tuple(given.shape)} and type {given.dtype}; {shape} and float32 are needed."
        )
    return given
