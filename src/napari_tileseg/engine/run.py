"""THE loop: tiles in, labels out, events on the way. Every interface drives this one."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_tileseg.engine.adaptive import Refinement, line_of
from napari_tileseg.engine.counted import CountedSlab, empty_scores
from napari_tileseg.engine.decode import Classes, Decoder, Masks
from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.engine.events import Event, Finished, Planned, Progress, SlabDone, Warned
from napari_tileseg.engine.feed import Feed
from napari_tileseg.engine.memory import default_batch, estimate, free_memory
from napari_tileseg.engine.objects import Objects
from napari_tileseg.engine.precision import Verdict, decide
from napari_tileseg.engine.predict import Network
from napari_tileseg.engine.recipe import Recipe, resolve
from napari_tileseg.engine.stitch import Slab
from napari_tileseg.engine.uncertainty import entropy
from napari_tileseg.engine.weights import importance
from napari_tileseg.errors import AxesError, Cancelled, DeviceMemoryError, InputError, ModelError, OptionsError
from napari_tileseg.job import SegmentOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from napari_tileseg.engine.memory import Estimate
    from napari_tileseg.engine.protocols import Predictor, Sink, Source
    from napari_tileseg.engine.tiles import Placed, Row, Tile, TilePlan
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["never", "run"]


_HELD_BYTES = 4 << 30
"""Most memory for scores that wait for their objects to end, and the work on them, where no limit is set."""


def never() -> bool:
    """Return False: nobody asks the run to stop."""
    return False


def run(
    source: Source,
    predictor: Predictor,
    sink: Sink,
    *,
    options: SegmentOptions | None = None,
    cancel: Callable[[], bool] = never,
    first_id: int = 1,
    skip_rows: int = 0,
    verdict: Verdict | None = None,
    wanted: Callable[[Tile], bool] | None = None,
) -> Iterator[Event]:
    """Segment one image on the model's grid, slab by slab along its first axis.

    Parameters
    ----------
    source : Source
        Normalised image, shape (C, *spatial).
    predictor : Predictor
        The model, already on its device.
    sink : Sink
        Gets every finished part of the labels at once, in order.
    options : SegmentOptions, optional
        What is given overrides the model's recipe.
    cancel : callable
        Asked before every forward pass; the run ends as soon as it returns True.
    first_id : int
        Id of the first object (instances).
    skip_rows : int
        Pixels of the first axis that an earlier, interrupted run has already written. Only tiles that touch later ones are
        computed; labels are the same. Not for instances.
    verdict : Verdict, optional
        What `decide` has said before, for the many planes or frames of one image; with ``precision="auto"`` each run decides
        by itself otherwise.
    wanted : callable, optional
        Whether a tile, by the box that its scores are for, is to be computed; pixels that no tile covers are background.

    Yields
    ------
    Event
        `Planned`; `Progress` after every batch, `SlabDone` when a part is in the sink, `Warned`; `Finished`.

    Raises
    ------
    Cancelled
        What is finished is in the sink.
    OptionsError, AxesError, InputError, ModelError
        Before anything is computed.
    PredictorError, DeviceMemoryError
        If the network fails on a tile; what is finished is in the sink.
    """
    started = time.monotonic()
    task = _prepare(source, predictor, options or SegmentOptions(), cancel, first_id, skip_rows, wanted)
    task.verdict = verdict
    yield task.planned()
    yield from task.notes()
    yield from task.choose_precision()
    with Feed(source, task.plan, first=task.first, check=task.check) as feed:
        for row in task.plan.rows(task.first):
            block = feed.take(row)
            for line, pixels, tiles in task.lines(row, block):
                yield from task.compute(line, pixels, feed.origin, tiles)
            finished = task.slab.finish(row, skip=skip_rows)
            if finished is not None:
                yield from task.deliver(sink, *finished)
            task.slab.advance(row)
    yield from task.write(sink, task.decoder.finish())
    yield Finished(task.decoder.objects, time.monotonic() - started, task.decoder.voxels, task.windows)


@dataclass
class _Task:
    """What the loop holds while it goes."""

    source: Source
    predictor: Predictor
    options: SegmentOptions
    plan: TilePlan
    needs: Estimate
    network: Network
    slab: Slab | CountedSlab
    decoder: Decoder
    first: int
    batch: int
    cancel: Callable[[], bool]
    wanted: Callable[[Tile], bool] | None = None
    refinement: Refinement | None = None
    verdict: Verdict | None = None
    done: int = 0
    windows: int = 0
    began: float = field(default_factory=time.monotonic)
    _buffer: torch.Tensor | None = None
    _above: NDArray[np.float32] | None = None

    @property
    def total(self) -> int:
        return (self.plan.n_rows - self.first) * self.plan.tiles_per_row

    def check(self) -> None:
        """Stop if somebody wants that."""
        if self.cancel():
            raise Cancelled(f"The run was cancelled after {self.done} of {self.total} tiles. What was finished is kept.")

    def planned(self) -> Planned:
        memory = self.needs.device_bytes + self.needs.host_bytes
        return Planned(self.total, self.plan.window, self.plan.shape, self.predictor.device, self.batch, memory)

    def notes(self) -> Iterator[Event]:
        """Say which options have no effect here."""
        if self.options.min_size > 0 and self.predictor.spec.output != "instances":
            yield Warned("Min. size has no effect: this model finds classes, not objects.")

    def choose_precision(self) -> Iterator[Event]:
        """Compute fast if the user allows it and the tiles of this run do not object."""
        if self.options.precision != "auto" or self.total == 0:
            return
        verdict = self.verdict
        if verdict is None:
            verdict = decide(self.source, self.predictor, self.options, check=self.check)
            self.began = time.monotonic()
        self.network.fast = verdict.fast
        if not verdict.fast:
            yield Warned(verdict.reason)

    def lines(self, row: Row, block: NDArray[np.float32]) -> Iterator[tuple[Row, NDArray[np.float32], list[Placed]]]:
        """Yield tiles that lie side by side with what they see: those of a row, then the windows over its seams, if any."""
        tiles = [tile for tile in self.plan.tiles(row.index) if self.wanted is None or self.wanted(tile.kept)]
        self.done += self.plan.tiles_per_row - len(tiles)
        yield row, block, tiles
        if self.refinement is None:
            return
        for line, between in groupby(self.refinement.choose(row), line_of):
            if line.seen == row.seen or self._above is None:
                yield line, block, list(between)
            else:  # half in the row above, whose pixels the feed has not kept
                top = line.seen[0] - self.plan.row(row.index - 1).seen[0]
                shared = row.seen[0] - line.seen[0]
                yield line, np.concatenate([self._above[:, top : top + shared], block[:, : block.shape[1] - shared]], 1), list(between)
        self._above = block.copy()

    def compute(self, row: Row, block: NDArray[np.float32], origin: tuple[int, ...], tiles: list[Placed]) -> Iterator[Event]:
        """Predict and add tiles that lie side by side; where memory runs out, with fewer at once."""
        pixels = torch.from_numpy(block)
        waiting = list(tiles)
        while waiting:
            tiles = waiting[: self.batch]
            try:
                scores = self.network(self._fill(tiles, pixels, (row.seen[0], *origin)), [tile.seen for tile in tiles])
            except DeviceMemoryError:
                if len(tiles) == 1:
                    raise
                scores = None
            if scores is None:  # outside of the except clause nothing holds the failed call's tensors any more
                self.batch, self._buffer = len(tiles) // 2, None
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                yield Warned(f"{self.predictor.device} is short of memory: the batch is now {self.batch}.")
                continue
            scores = scores.to(self.slab.device)
            for tile, of_tile in zip(tiles, scores, strict=True):
                self.slab.add(tile, of_tile, row)
                if self.refinement is not None and row.index >= 0:
                    self.refinement.note(tile, of_tile[: len(self.predictor.spec.score_names)])
            del waiting[: len(tiles)]
            self.windows += len(tiles)
            self.done += len(tiles) if row.index >= 0 else 0
            left = (time.monotonic() - self.began) / self.done * (self.total - self.done)
            yield Progress(self.done, self.total, left)

    def _fill(self, tiles: list[Placed], pixels: torch.Tensor, origin: tuple[int, ...]) -> torch.Tensor:
        """Copy the pixels of some tiles into the batch, which is allocated once."""
        if self._buffer is None:
            shape = (self.batch, pixels.shape[0], *self.plan.window)
            self._buffer = torch.empty(shape, dtype=torch.float32, pin_memory=self.predictor.device.startswith("cuda"))
        for index, tile in enumerate(tiles):
            self._buffer[index] = pixels[(slice(None), *tile.seen.relative_to(origin).slices)]
        return self._buffer[: len(tiles)]

    def deliver(self, sink: Sink, region: Tile, scores: torch.Tensor) -> Iterator[Event]:
        """Hand finished scores to the decoder, and what it gives back to the sink."""
        if self.options.uncertainty == "disagreement":
            sink.write_uncertainty(region.slices, scores[-1].cpu().numpy())
            scores = scores[:-1]
        elif self.options.uncertainty:
            sink.write_uncertainty(region.slices, entropy(scores, self.predictor.spec).cpu().numpy())
        if self.options.scores:
            sink.write_scores(region.slices, scores.cpu().numpy())
        yield from self.write(sink, self.decoder.add(region, scores))

    def write(self, sink: Sink, pieces: Iterable[tuple[Tile, NDArray[Any]]]) -> Iterator[Event]:
        for region, labels in pieces:
            sink.write(region.slices, labels)
            yield SlabDone(region.bounds)
        for message in self.decoder.warnings():
            yield Warned(message)


def _prepare(
    source: Source,
    predictor: Predictor,
    options: SegmentOptions,
    cancel: Callable[[], bool],
    first_id: int,
    skip_rows: int,
    wanted: Callable[[Tile], bool] | None,
) -> _Task:
    """Check everything that can be checked, then allocate."""
    spec = predictor.spec
    _check_source(source, spec, skip_rows)
    recipe = resolve(spec, options)
    plan = recipe.plan(source.shape[1:])
    decoder = _decoder(spec, options, first_id, plan)
    batch = options.batch or default_batch(plan, predictor.device)
    needs = estimate(plan, spec, batch=batch, scores=options.scores or bool(options.uncertainty))
    _check_limit(needs, options.memory_limit)
    extra = options.uncertainty == "disagreement"
    network = Network(predictor, plan.output, tta=options.tta, disagree=extra)
    normalized = decoder.normalized or options.scores or bool(options.uncertainty)
    first = plan.first_row(skip_rows)
    refinement = None
    if options.adaptive:
        half = len(replace(recipe, overlap=0.5, steps=spec.steps).plan(plan.shape)) // 2
        refinement = Refinement(plan, spec, options.threshold, max(0, half - len(plan)))
        first = max(0, first - 1)  # seams need the row above
    slab = _slab(
        plan,
        recipe,
        predictor,
        needs,
        channels=len(spec.score_names) + extra,
        normalized=normalized,
        ends=refinement.ends() if refinement else [row.finished[1] for row in plan.rows()] if wanted else None,
        first=first,
    )
    task = _Task(source, predictor, options, plan, needs, network, slab, decoder, first, batch, cancel, wanted, refinement)
    network.check = task.check
    return task


def _check_source(source: Source, spec: ModelSpec, skip_rows: int) -> None:
    channels, *spatial = source.shape
    if len(spatial) != spec.spatial_ndim:
        raise AxesError(f"The image has {len(spatial)} spatial axes, the model needs {spec.spatial_axes}. Choose which axes it works on.")
    if channels != len(spec.channels):
        raise InputError(f"The image has {channels} channels, the model needs {len(spec.channels)} ({', '.join(spec.channels)}).")
    if skip_rows and spec.output == "instances":
        raise OptionsError("A run that finds objects cannot continue in the middle of an image. Start it again.")


def _check_limit(needs: Estimate, limit: int | None) -> None:
    if limit is not None and needs.host_bytes > limit:
        raise OptionsError(
            f"The run needs {needs.host_bytes / 1e9:.2f} GB of host memory, the limit is {limit / 1e9:.2f} GB. "
            "Use a smaller window, a part of the image, or a higher limit."
        )


def _decoder(spec: ModelSpec, options: SegmentOptions, first_id: int, plan: TilePlan) -> Decoder:
    match spec.output:
        case "softmax":
            return Classes(spec.classes)
        case "sigmoid":
            return Masks(spec.classes, options.threshold)
        case "instances":
            return Objects(
                find_decoder(spec.decoder),
                spec.decoder_parameters,
                classes=spec.classes,
                threshold=options.threshold,
                min_size=options.min_size,
                first_id=first_id,
                limit=_row_limit(plan, spec, options.memory_limit),
            )
        case _:
            raise ModelError(f'The model "{spec.name}" gives "{spec.output}" scores. This version decodes softmax, sigmoid and instances.')


def _row_limit(plan: TilePlan, spec: ModelSpec, memory_limit: int | None) -> int:
    """Return how many rows of scores may wait for a component to end; the same on every computer, for the same labels."""
    row = math.prod(plan.shape[1:]) * (4 * len(spec.score_names) + 5)
    return max(2 * plan.depth, (memory_limit or _HELD_BYTES) // 2 // row)


def _slab(
    plan: TilePlan,
    recipe: Recipe,
    predictor: Predictor,
    needs: Estimate,
    *,
    channels: int,
    normalized: bool,
    ends: list[int] | None,
    first: int,
) -> Slab | CountedSlab:
    """Put the open scores beside the model, or on the host where they would take too much of the device."""
    device = predictor.device
    if device != "cpu" and needs.device_bytes > free_memory(device) // 2:
        device = "cpu"
    weights = importance(plan.output, recipe.blending, recipe.sigma)
    if ends is not None:
        return CountedSlab(plan, weights, channels, empty_scores(predictor.spec), ends, first=first, device=device)
    return Slab(plan, weights, channels, device=device, normalized=normalized)
