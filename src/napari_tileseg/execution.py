"""``Run``: one call of `segment`, sample after sample; what it settles on its way goes into the journal and the provenance."""

from __future__ import annotations

import time
import weakref
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from napari_tileseg.engine.clock import Clock
from napari_tileseg.engine.events import Event, Finished, Planned, Progress, SlabDone, Warned
from napari_tileseg.engine.faults import Relief
from napari_tileseg.engine.grid import ResampledSink
from napari_tileseg.engine.interpolate import Return, choose_kernel
from napari_tileseg.engine.journal import Keeper, damaged
from napari_tileseg.engine.layout import Layout, largest, lay, lay_parts, seen
from napari_tileseg.engine.memory import default_batch
from napari_tileseg.engine.memory import estimate as estimate_memory
from napari_tileseg.engine.normalize import Statistics
from napari_tileseg.engine.preparation import Preparation
from napari_tileseg.engine.recipe import resolve as resolve_recipe
from napari_tileseg.engine.sinks import GridSink
from napari_tileseg.engine.spacing import spacing_note
from napari_tileseg.engine.tally import Tally, summary
from napari_tileseg.errors import Cancelled
from napari_tileseg.job import told
from napari_tileseg.models.doubts import assumptions
from napari_tileseg.provenance import describe
from napari_tileseg.results import count, count_objects
from napari_tileseg.segmentation import Segmentation
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.damage import Damage
    from napari_tileseg.engine.journal import Journal
    from napari_tileseg.engine.levels import View
    from napari_tileseg.engine.parts import Part
    from napari_tileseg.engine.precision import Verdict
    from napari_tileseg.engine.protocols import Predictor, Sink, Source
    from napari_tileseg.engine.recipe import Recipe
    from napari_tileseg.engine.tiles import Tile
    from napari_tileseg.engine.tissue import Tissue
    from napari_tileseg.job import Regions, SegmentOptions

__all__ = ["Run"]

_KEPT = ("device", "batch", "precision", "precision_reason", "measured_level", "threads")
"""What a run settles on its way, and one that continues it takes over."""


@dataclass
class Run:
    """One call of `segment`: every sample in turn, its events told on the grid of the whole result."""

    image: Volume
    axis_map: AxisMap
    predictor: Predictor
    options: SegmentOptions
    regions: Regions
    tell: Callable[[Event], None]
    cancel: Callable[[], bool]
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    objects: int = 0
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    verdict: Verdict | None = None
    slabs: int = 0
    windows: int = 0
    scores: NDArray[np.float32] | None = None
    uncertainty: NDArray[np.float32] | None = None
    tally: Tally | None = None
    """Sums up the map of a model of what is normal; None where there is no map, or a part of it is not known."""
    relief: Relief = field(default_factory=Relief)
    journal: Journal | None = None
    previous: Segmentation | None = None
    """What the first model of a cascade has found, on the image's grid."""

    def __post_init__(self) -> None:
        self._tissues: dict[tuple[tuple[str, int], ...], Tissue] = {}
        self.preparation: Preparation  # what `prepare` decides
        self.view: View
        self.recipe: Recipe
        self.layouts: list[Layout]
        self.layout: Layout  # of the part that is going on

    @property
    def begun(self) -> bool:
        """Whether anything is finished, by this run or the one that it continues."""
        return self.slabs > 0 or (self.journal is not None and self.journal.begun)

    def prepare(self) -> None:
        """Lay the tiles; nothing is read or written."""
        self.view, self.layouts = lay_parts(self.image, self.axis_map, self.predictor.spec, self.options, self.regions)
        self.layout = self.layouts[0]
        self.recipe = resolve_recipe(self.predictor.spec, self.options)
        run = weakref.proxy(self)  # two that hold each other would keep what is found, and its files, until Python looks for such pairs
        self.preparation = Preparation(
            self.axis_map,
            self.predictor.spec,
            self.view,
            unreadable=self.options.unreadable,
            check=lambda: run._raise_if_cancelled(),
            on_measured=lambda statistics, frame: run._take_in(statistics, frame),
        )
        self.settings = {**asdict(self.recipe), "grid": self.layout.grid.model, "level": self.view.level}
        # Scores that are brought back before they are decoded may come twice where a run goes on.
        self.tally = Tally() if self.predictor.spec.output == "anomaly" and not self.restored else None

    @property
    def damage(self) -> Damage:
        """Places that could not be read."""
        return self.preparation.damage

    @property
    def statistics(self) -> dict[int | None, Statistics]:
        """What was measured of each time point."""
        return self.preparation.statistics

    @statistics.setter
    def statistics(self, measured: dict[int | None, Statistics]) -> None:
        self.preparation.statistics = measured

    @property
    def tiles(self) -> int:
        """Tiles of all parts together."""
        return sum(len(layout.plan) for layout in self.layouts)

    @property
    def seen(self) -> Regions:
        """The parts of the result's grid that the network sees, where only regions are wanted."""
        return seen(self.axis_map, self.layouts) if self.regions else ()

    @property
    def restored(self) -> bool:
        """Whether scores, not labels, are brought to the image's grid."""
        return self.predictor.spec.resampling.scores is not None and not self.layout.grid.same

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
        if self.tally is not None:  # a run that an earlier version has begun did not sum up
            self.tally = Tally.from_dict(kept) if (kept := state.get("tally")) else None

    def _state(self) -> dict[str, Any]:
        """Return what a run that continues this one needs to know."""
        return {
            "warnings": self.warnings,
            "statistics": [(frame, measured.to_dict()) for frame, measured in self.statistics.items()],
            "found": self.objects,
            "settings": {key: self.settings[key] for key in _KEPT if key in self.settings},
            "relief": self.relief.to_dict(),
            "verdict": asdict(self.verdict) if self.verdict else None,
            "damage": self.damage.state(),
            "tally": self.tally.to_dict() if self.tally else None,
        }

    def execute(self, labels: NDArray[Any]) -> None:
        from napari_tileseg.engine.fingerprint import threads

        began = time.monotonic()
        clock = Clock(self.tiles)
        self._announce(clock.total)
        if (note := spacing_note(self.image, self.predictor.spec, rescale=self.options.rescale)) is not None:
            self.warn(note)
        if (note := assumptions(self.predictor.spec)) is not None:
            self.warn(note)
        with threads(self.settings.get("threads")) as count:
            self.settings["threads"] = count
            self._run_parts(labels, clock)
        self.seconds = time.monotonic() - began
        if self.journal is None or not self.journal.resumed:
            from napari_tileseg.engine.precision import remember_run

            worked = self.seconds - getattr(self.predictor, "waited", 0.0)  # for others that use the model too
            remember_run(self.predictor, self.options, self.verdict, worked / clock.total)
        self.count(labels)
        objects = sum(self.counts.values()) if self.axis_map.finds_objects else None
        self.tell(Finished(objects=objects, seconds=self.seconds, voxels=self.counts, windows=self.windows))

    def _run_parts(self, labels: NDArray[Any], clock: Clock) -> None:
        journal = self.journal
        first = journal.state["sample"] if journal is not None else 0
        after = sum(len(layout.plan) for layout in self.layouts[:first])
        for ordinal, layout in enumerate(self.layouts[first:], start=first):
            self.layout = layout
            after += len(layout.plan)
            keeper = journal.keeper(ordinal) if journal is not None else Keeper()
            self._run_part(layout.part, layout.read, keeper, self.sink(layout.part, labels), clock, after)
            self.tell_damage()
            if journal is not None:
                journal.finish_sample(last=ordinal + 1 == len(self.layouts))

    def source(self, part: Part, read: Part) -> Source:
        """Return a box of a sample as the network sees it."""
        if (before := self.previous) is not None:
            self.preparation.previous = Volume(before.labels, before.axes, name=before.volume.name)
        return self.preparation.source(part, read)

    def sink(self, part: Part, labels: Any) -> GridSink:
        """Return what puts the labels of a sample, on the image's grid, where they belong; places that were lost stay empty."""
        lost = partial(self.damage.covered, factors=self.view.factors(self.axis_map.spatial))
        return GridSink(self.axis_map, part, labels, self.scores, self.uncertainty, lost, self.tally)

    def target(self, sink: Sink) -> Sink:
        """Return what takes labels on the model's grid and gives them to a sink on the image's."""
        return sink if self.layout.grid.same or self.restored else ResampledSink(sink, self.layout.grid)

    def _run_part(self, part: Part, read: Part, keeper: Keeper, sink: GridSink, clock: Clock, after: int) -> None:
        from napari_tileseg.engine.run import run

        self.preparation.measured(part.position.get("T"))  # before anything else is told
        if self.preparation.crops:
            box = self.preparation.seen(part, read)
            if box is None:
                clock.plan(after, 0)
                return  # nothing but background
            part, read = box
            self.layout = lay(self.view, part, read, self.predictor.spec, self.options)
            sink = sink.of(part)
        source = self.source(part, read)
        events = run(
            source,
            self.predictor,
            self.target(sink),
            options=self.options,
            cancel=self.cancel,
            first_id=self.objects + 1,
            verdict=self.decided(source),
            axis=self.layout.turn.axis,
            keeper=keeper,
            relief=self.relief,
            wanted=self.tissue(part),
            back=self._return() if self.restored else None,
        )
        for event in events:
            match event:
                case SlabDone(region):
                    if (moved := sink.grid_region(region if self.restored else self.layout.grid.image_region(region))) is not None:
                        self.slabs += 1
                        self.tell(SlabDone(moved))
                case Progress(done, total, _):
                    self.tell(clock.progress(done, total))
                case Finished(objects, windows=windows):
                    self.objects += objects or 0
                    self.windows += windows
                case Warned(message):
                    self.warn(message)
                case Planned(tiles=tiles, device=device, batch=batch):
                    clock.plan(after, tiles)
                    self.settings["device"] = device
                    self.settings.setdefault("batch", batch)  # what was planned; `relief` notes what became of it

    def _return(self) -> Return:
        """Return how scores come back to the image's grid."""
        rule = self.predictor.spec.resampling.scores
        assert rule is not None  # `restored` has looked
        ours, models = self.view.spacings(self.predictor.spec)
        activation = (
            {"softmax": "softmax"}.get(self.predictor.spec.output, "sigmoid") if self.predictor.spec.resampling.probabilities else ""
        )
        return Return(self.layout.grid, choose_kernel(rule, models, ours, self.axis_map.spatial).orders, activation)

    def decided(self, source: Source) -> Verdict | None:
        """Choose the precision once, on the first plane, frame or volume, for all of them."""
        if self.options.precision != "auto":
            return None
        if self.verdict is None:
            from napari_tileseg.engine.precision import decide

            self.verdict = decide(source, self.predictor, self.options, tiles=self.tiles, check=self._raise_if_cancelled)
            self.settings["precision"] = self.verdict.backend if self.verdict.fast else "exact"
            self.settings["precision_reason"] = self.verdict.reason
            usual = default_batch(largest(self.layouts), self.predictor.device)
            if self.verdict.fast and not self.options.batch and self.verdict.batch > usual:
                self.settings["batch"] = self.verdict.batch
        return self.verdict

    def tissue(self, part: Part) -> Callable[[Tile], bool] | None:
        """Return which boxes of the model's grid hold tissue; None where all are to be computed."""
        if not self.options.skip_background:
            return None
        from napari_tileseg.engine.tissue import holding, tissue_mask

        _, level = self.view.measured  # a coarse one where the image is huge
        sample = tuple(part.position.items())
        if sample not in self._tissues:  # the parts of a sample come one after the other
            mapped = self.preparation.mapped(level)
            self._tissues = {sample: tissue_mask(level, mapped, part.position, check=self._raise_if_cancelled)}
        tissue = self._tissues[sample]
        return holding(tissue, level, self.image, self.axis_map.spatial, self.layout.grid, part)

    def _announce(self, tiles: int) -> None:
        plan = largest(self.layouts)
        batch = self.options.batch or default_batch(plan, self.predictor.device)
        scores = self.options.scores or bool(self.options.uncertainty)
        needs = estimate_memory(plan, self.predictor.spec, batch=batch, scores=scores)
        memory = needs.device_bytes + needs.host_bytes
        self.tell(Planned(tiles, self.recipe.window, self.axis_map.spatial_shape, self.predictor.device, batch, memory))

    def measured(self, frame: int | None) -> Statistics:
        """Return the statistics of a time point; the first call for it reads the image."""
        return self.preparation.measured(frame)

    def _take_in(self, statistics: Statistics, frame: int | None) -> None:
        """Tell and keep what was measured."""
        self.settings["measured_level"] = self.preparation.measured_level
        self._judge(statistics, frame)
        self.tell_damage()
        if self.journal is not None:
            self.journal.save()

    def tell_damage(self) -> None:
        """Warn of places that could not be read, once."""
        for sentence in self.damage.news():
            self.warn(sentence)

    def _judge(self, statistics: Statistics, frame: int | None) -> None:
        where = "" if frame is None else f"In frame {frame}, "
        if statistics.nonfinite:
            many = "value is" if statistics.nonfinite == 1 else "values are"
            self.warn(f"{where}{statistics.nonfinite:,} {many} NaN or infinite. They count as 0.")
        if statistics.constant:
            self.warn(f"{where}{'all' if where else 'All'} pixels have the same value, so there is nothing to tell apart.")

    def warn(self, message: str) -> None:
        """Tell the user something, once."""
        if message not in self.warnings:
            self.warnings.append(message)
            self.tell(Warned(message))

    def _raise_if_cancelled(self) -> None:
        if self.cancel():
            raise Cancelled("Cancelled while the image was being measured. Nothing is in the layer yet.")

    def count(self, labels: Any) -> None:
        """Count objects, or the pixels of each class."""
        names = self.predictor.spec.classes
        if self.axis_map.finds_objects:
            self.counts = {names[-1]: count_objects(labels, self.objects) if self.regions else self.objects}
        else:
            self.counts = dict(zip(names, count(labels, len(names), masks=self.axis_map.output == "sigmoid"), strict=True))

    def result(self, labels: Any) -> Segmentation:
        """Return labels, which are finished, with all that is known of them."""
        spec = self.predictor.spec
        settings = {key: value for key, value in self.settings.items() if key != "threads"}
        provenance = describe(self.image, spec, self.axis_map, self.options, told(self.regions), settings, self.statistics, self.warnings)
        if self.previous is not None:
            names = ("model", "options", "settings", "statistics", "adaptations")
            provenance["previous"] = {name: self.previous.provenance[name] for name in names}
        return Segmentation(
            labels=labels,
            axes=self.axis_map.result_axes,
            volume=self.image,
            classes=tuple(spec.classes),
            colors=tuple(spec.colors),
            counts=self.counts,
            anomaly=summary(self.tally),
            scores=self.scores,
            uncertainty=self.uncertainty,
            provenance={**provenance, "adaptations": list(self.relief.notes), "unreadable": self.damage.places},
            warnings=tuple(self.warnings),
            seconds=self.seconds,
            windows=self.windows,
        )


def _verdict(values: dict[str, Any] | None) -> Verdict | None:
    from napari_tileseg.engine.precision import Verdict

    return Verdict(**values) if values else None
