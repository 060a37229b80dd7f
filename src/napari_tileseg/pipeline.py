"""``segment``: the one path from an image to its labels; widget, command line, batch and worker all take it."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_tileseg.engine.axes import AxisMap, map_axes
from napari_tileseg.engine.clock import Clock
from napari_tileseg.engine.damage import Damage
from napari_tileseg.engine.events import Event, Finished, Planned, Progress, SlabDone, Warned
from napari_tileseg.engine.faults import Relief
from napari_tileseg.engine.grid import Grid, ResampledSink, ResampledSource
from napari_tileseg.engine.journal import Keeper, damaged, disk_error
from napari_tileseg.engine.memory import default_batch
from napari_tileseg.engine.memory import estimate as estimate_memory
from napari_tileseg.engine.normalize import Statistics
from napari_tileseg.engine.parts import Part, Region, plan_parts
from napari_tileseg.engine.prepare import PreparedSource, SampleReader, measure_frame
from napari_tileseg.engine.recipe import resolve as resolve_recipe
from napari_tileseg.engine.scan import plan_scan
from napari_tileseg.engine.sinks import GridSink
from napari_tileseg.engine.spacing import spacing_note, spacing_ratios
from napari_tileseg.errors import Cancelled, OptionsError, OutputError, RunError
from napari_tileseg.estimation import Estimate, estimate
from napari_tileseg.image import as_volume, check_dtype
from napari_tileseg.job import SegmentOptions
from napari_tileseg.provenance import describe
from napari_tileseg.segmentation import Segmentation
from napari_tileseg.unfinished import Unfinished, folder_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.journal import Journal
    from napari_tileseg.engine.precision import Verdict
    from napari_tileseg.engine.protocols import Sink, Source
    from napari_tileseg.engine.recipe import Recipe
    from napari_tileseg.engine.scan import Turn
    from napari_tileseg.engine.tiles import TilePlan
    from napari_tileseg.models.predictor import Predictor
    from napari_tileseg.models.spec import ModelSpec
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
    journal: str | Path | None = None,
    resume: bool = True,
    on_event: Callable[[Event], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Segmentation:
    """Segment an image.

    Parameters
    ----------
    volume : Volume, ndarray or path
        The image. An array needs `axes` where they cannot be told from its shape.
    model : str, path or Predictor
        Name of a model, path of a package, or a loaded predictor.
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
        while the run goes on; with a journal, it must still hold what it held when the run was interrupted.
    scores_out : ndarray of float32, optional
        Array for the raw scores, class first; made in memory if `options.scores` and not given.
    journal : path, optional
        Folder for a journal, with which the run can be killed at any moment and continued by the same call. Beside `out`, as
        ``.name.tileseg``, if that is a path; none otherwise. It is deleted when the result is in place.
    resume : bool
        Whether to go on with what the journal says; False begins anew.
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
        Before the run, each with a sentence that says what to do. OutputError also where a journal is there of a run on another
        image, with another model or other options, and where the disk is full.
    Cancelled, PredictorError, DeviceMemoryError, UnreadableError
        During the run; the finished part is in `out`, or beside it as ``name_unfinished.suffix`` if `out` is a path.
    """
    options = options or SegmentOptions()
    tell = on_event or (lambda event: None)
    target = _output_path(out)
    predictor = _predictor(model, options)
    image = as_volume(volume, axes=axes, spec=predictor.spec, partial=options.unreadable == "skip")
    axis_map = map_axes(image.axes, image.shape, predictor.spec, channels=channels)
    check_dtype(image)
    place = Path(journal) if journal is not None else folder_beside(target) if target is not None else None
    run = _Run(image, axis_map, predictor, options, region, tell, cancel or (lambda: False))
    run.prepare()
    with ExitStack() as stack:
        unfinished = None if place is None else _open_unfinished(place, run, resume=resume)
        if unfinished is not None:
            stack.callback(unfinished.close)
        given = out if target is None else None
        labels = _labels_array(axis_map, given, unfinished)
        scores = _scores_array(axis_map, predictor.spec, scores_out, unfinished) if options.scores else None
        if unfinished is not None:
            unfinished.attach(labels, scores)
            run.take_up(unfinished.journal)
        try:
            run.execute(labels, scores)
        except RunError as error:
            if target is not None and run.begun:
                error.kept = _keep(run.result(labels, scores), target, str(error))
            raise
        result = run.result(labels, scores)
        if unfinished is None:
            return result
        if target is not None:
            _save(result, target, place)
        stack.pop_all()
        result = replace(result, labels=unfinished.taken(result.labels), scores=unfinished.taken(result.scores))
        del labels, scores  # Windows deletes no file that is mapped
        unfinished.remove()
        if target is not None and unfinished.journal.resumed:
            _unfinished_name(target).unlink(missing_ok=True)
        return result


def _save(result: Segmentation, target: Path, folder: Path | None) -> None:
    """Save the result by way of the run's own folder, where a half-written file is in nobody's way after a power cut."""
    if folder != folder_beside(target):
        save_segmentation(result, target, overwrite=True)
        return
    written = save_segmentation(result, folder / target.name, overwrite=True)
    try:
        os.replace(written, target)
    except OSError as error:
        raise disk_error(error, target) from error


def _open_unfinished(place: Path, run: _Run, *, resume: bool) -> Unfinished:
    from napari_tileseg.engine.fingerprint import fingerprint

    told = fingerprint(run.image, run.axis_map, run.predictor, run.options, run.region)
    return Unfinished.open(place, told, resume=resume)


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
    noted = replace(unfinished, provenance={**unfinished.provenance, "state": "unfinished", "reason": reason})
    try:
        return save_segmentation(noted, _unfinished_name(path), overwrite=True)
    except OutputError:
        return None


def _unfinished_name(path: Path) -> Path:
    from napari_tileseg.io import suffix_of

    suffix = suffix_of(path, purpose="write")
    return path.with_name(f"{path.name[: len(path.name) - len(suffix)]}_unfinished{path.name[len(path.name) - len(suffix) :]}")


@dataclass
class _Run:
    """One call of `segment`: every sample in turn, its events told on the grid of the whole result."""

    image: Volume
    axis_map: AxisMap
    predictor: Predictor
    options: SegmentOptions
    region: Region | None
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
    relief: Relief = field(default_factory=Relief)
    journal: Journal | None = None

    def __post_init__(self) -> None:
        self.damage = Damage(self.image.name, self.options.unreadable)
        self.parts: list[Part]  # what `prepare` decides
        self.recipe: Recipe
        self.turn: Turn
        self.plan: TilePlan

    @property
    def begun(self) -> bool:
        """Whether anything is finished, by this run or the one that it continues."""
        return self.slabs > 0 or (self.journal is not None and self.journal.begun)

    def prepare(self) -> None:
        """Lay the tiles; nothing is read or written."""
        recipe = resolve_recipe(self.predictor.spec, self.options)
        ratios = spacing_ratios(self.image, self.predictor.spec) if self.options.rescale else None
        self.parts = list(plan_parts(self.axis_map, self.region, recipe.window, ratios))
        self.grid = Grid.match(self.parts[0].shape, ratios)
        self.turn, self.plan = plan_scan(self.grid.model, self.predictor.spec, self.options)
        self.recipe = recipe
        self.settings = {**asdict(recipe), "grid": self.grid.model}

    def take_up(self, journal: Journal) -> None:
        """Go on where the journal is, and keep it."""
        self.journal = journal
        if journal.resumed:
            try:
                self._restore(journal.state)
            except (LookupError, TypeError, ValueError) as error:
                raise damaged(journal.folder) from error
        journal.collect = self._state

    def _restore(self, state: dict[str, Any]) -> None:
        self.warnings = list(state["warnings"])
        self.statistics = {frame: Statistics.from_dict(values) for frame, values in state["statistics"]}
        self.objects = int(state["found"])
        self.settings |= state["settings"]
        self.relief = Relief.from_dict(state["relief"])
        self.verdict = _verdict(state["verdict"])
        self.damage.restore(state["damage"])

    def _state(self) -> dict[str, Any]:
        """Return what a run that continues this one needs to know."""
        return {
            "warnings": self.warnings,
            "statistics": [(frame, measured.to_dict()) for frame, measured in self.statistics.items()],
            "found": self.objects,
            "settings": {key: self.settings[key] for key in ("device", "batch", "precision", "threads") if key in self.settings},
            "relief": self.relief.to_dict(),
            "verdict": asdict(self.verdict) if self.verdict else None,
            "damage": self.damage.state(),
        }

    def execute(self, labels: NDArray[Any], scores: NDArray[np.float32] | None) -> None:
        from napari_tileseg.engine.fingerprint import threads

        began = time.monotonic()
        clock = Clock(len(self.plan) * len(self.parts))
        self._announce(clock.total)
        if (note := spacing_note(self.image, self.predictor.spec, rescale=self.options.rescale)) is not None:
            self._warn(note)
        with threads(self.settings.get("threads")) as count:
            self.settings["threads"] = count
            self._run_parts(labels, scores, clock)
        self.seconds = time.monotonic() - began
        self.counts = self._count(labels)
        objects = self.objects if self.axis_map.output == "instances" else None
        self.tell(Finished(objects=objects, seconds=self.seconds, voxels=self.counts))

    def _run_parts(self, labels: NDArray[Any], scores: NDArray[np.float32] | None, clock: Clock) -> None:
        journal = self.journal
        first = journal.state["sample"] if journal is not None else 0
        for ordinal, part in enumerate(self.parts[first:], start=first):
            keeper = journal.keeper(ordinal) if journal is not None else Keeper()
            sink = GridSink(self.axis_map, part, labels, scores, self.damage)
            self._run_part(part, keeper, sink, clock, (ordinal + 1) * len(self.plan))
            self._tell_damage()
            if journal is not None:
                journal.finish_sample(last=ordinal + 1 == len(self.parts))

    def _run_part(self, part: Part, keeper: Keeper, sink: GridSink, clock: Clock, after: int) -> None:
        from napari_tileseg.engine.run import run

        statistics = self._measured(part.position.get("T"))
        reader = SampleReader(self.image, self.axis_map, part.position, self.damage)
        source: Source = PreparedSource(reader, statistics, self.predictor.spec.normalization, origin=part.start, stop=part.stop)
        target: Sink = sink
        if not self.grid.same:
            source, target = ResampledSource(source, self.grid), ResampledSink(sink, self.grid)
        events = run(
            source,
            self.predictor,
            target,
            options=self.options,
            cancel=self.cancel,
            first_id=self.objects + 1,
            verdict=self._decided(source),
            axis=self.turn.axis,
            keeper=keeper,
            relief=self.relief,
        )
        for event in events:
            match event:
                case SlabDone(region):
                    if (moved := sink.grid_region(self.grid.image_region(region))) is not None:
                        self.slabs += 1
                        self.tell(SlabDone(moved))
                case Progress(done, total, _):
                    self.tell(clock.progress(done, total))
                case Finished(objects):
                    self.objects += objects or 0
                case Warned(message):
                    self._warn(message)
                case Planned(tiles=tiles, device=device, batch=batch):
                    clock.plan(after, tiles)
                    self.settings["device"] = device
                    self.settings.setdefault("batch", batch)  # what was planned; `relief` notes what became of it

    def _decided(self, source: Source) -> Verdict | None:
        """Choose the precision once, on the first plane, frame or volume, for all of them."""
        if self.options.precision != "auto":
            return None
        if self.verdict is None:
            from napari_tileseg.engine.precision import decide

            self.verdict = decide(source, self.predictor, self.options, check=self._raise_if_cancelled)
            self.settings["precision"] = "fast" if self.verdict.fast else "exact"
        return self.verdict

    def _announce(self, tiles: int) -> None:
        batch = self.options.batch or default_batch(self.plan, self.predictor.device)
        needs = estimate_memory(self.plan, self.predictor.spec, batch=batch, scores=self.options.scores)
        memory = needs.device_bytes + needs.host_bytes
        self.tell(Planned(tiles, self.recipe.window, self.axis_map.spatial_shape, self.predictor.device, batch, memory))

    def _measured(self, frame: int | None) -> Statistics:
        if frame not in self.statistics:
            rule = self.predictor.spec.normalization
            self.statistics[frame] = measure_frame(
                self.image, self.axis_map, rule, frame, damage=self.damage, check=self._raise_if_cancelled
            )
            self._judge(self.statistics[frame], frame)
            self._tell_damage()
            if self.journal is not None:
                self.journal.save()
        return self.statistics[frame]

    def _tell_damage(self) -> None:
        for sentence in self.damage.news():
            self._warn(sentence)

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

    def result(self, labels: NDArray[Any], scores: NDArray[np.float32] | None) -> Segmentation:
        spec = self.predictor.spec
        settings = {key: value for key, value in self.settings.items() if key != "threads"}
        provenance = describe(self.image, spec, self.axis_map, self.options, self.region, settings, self.statistics, self.warnings)
        return Segmentation(
            labels=labels,
            axes=self.axis_map.result_axes,
            volume=self.image,
            classes=tuple(spec.classes),
            colors=tuple(spec.colors),
            counts=self.counts,
            scores=scores,
            provenance={**provenance, "adaptations": list(self.relief.notes), "unreadable": self.damage.places},
            warnings=tuple(self.warnings),
            seconds=self.seconds,
        )


def _verdict(values: dict[str, Any] | None) -> Verdict | None:
    from napari_tileseg.engine.precision import Verdict

    return Verdict(**values) if values else None


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


def _labels_array(axis_map: AxisMap, given: Any, unfinished: Unfinished | None) -> NDArray[Any]:
    if given is None and unfinished is not None:
        return unfinished.array("labels", axis_map.result_shape, axis_map.result_dtype)
    if given is None:
        return np.zeros(axis_map.result_shape, axis_map.result_dtype)
    if tuple(given.shape) != axis_map.result_shape or given.dtype != axis_map.result_dtype:
        raise OptionsError(
            f"The array for the labels has shape {tuple(given.shape)} and type {given.dtype}; "
            f"{axis_map.result_shape} and {axis_map.result_dtype} are needed."
        )
    return cast("NDArray[Any]", given)


def _scores_array(
    axis_map: AxisMap, spec: ModelSpec, given: NDArray[np.float32] | None, unfinished: Unfinished | None
) -> NDArray[np.float32]:
    shape = (len(spec.score_names), *axis_map.grid_shape)
    if given is None and unfinished is not None:
        return unfinished.array("scores", shape, np.dtype(np.float32))
    if given is None:
        return np.zeros(shape, np.float32)
    if tuple(given.shape) != shape or given.dtype != np.float32:
        raise OptionsError(
            f"The array for the scores has shape {tuple(given.shape)} and type {given.dtype}; {shape} and float32 are needed."
        )
    return given
