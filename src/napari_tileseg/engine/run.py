"""THE loop: tiles in, labels out, events on the way. Every interface drives this one."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_tileseg.engine.adaptive import Refinement, line_of
from napari_tileseg.engine.allocator import kept_memory
from napari_tileseg.engine.checks import check_limit, check_source
from napari_tileseg.engine.counted import CountedSlab, empty_scores
from napari_tileseg.engine.decode import Decoder, PerPixel, Undecoded
from napari_tileseg.engine.decoding import make_decoder
from napari_tileseg.engine.events import Event, Finished, Planned, Progress, SlabDone, Warned
from napari_tileseg.engine.faults import Relief, smaller_window
from napari_tileseg.engine.feed import Feed
from napari_tileseg.engine.joined import Joined
from napari_tileseg.engine.journal import Keeper
from napari_tileseg.engine.memory import by_strips, default_batch, estimate, free_memory
from napari_tileseg.engine.patchwork import Patchwork
from napari_tileseg.engine.precision import Verdict, decide
from napari_tileseg.engine.predict import Network, out_of_memory
from napari_tileseg.engine.recipe import Recipe, resolve
from napari_tileseg.engine.restore import Restorer
from napari_tileseg.engine.scan import Turn
from napari_tileseg.engine.sinks import MovedSink
from napari_tileseg.engine.stitch import Slab
from napari_tileseg.engine.strips import Strips
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.engine.uncertainty import entropy
from napari_tileseg.engine.weights import importance
from napari_tileseg.errors import Cancelled, DeviceMemoryError, OptionsError
from napari_tileseg.job import SegmentOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from napari_tileseg.engine.interpolate import Return
    from napari_tileseg.engine.memory import Estimate
    from napari_tileseg.engine.protocols import Predictor, Sink, Source
    from napari_tileseg.engine.tiles import Placed, Row, TilePlan

__all__ = ["never", "run"]


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
    verdict: Verdict | None = None,
    axis: int = 0,
    keeper: Keeper | None = None,
    relief: Relief | None = None,
    wanted: Callable[[Tile], bool] | None = None,
    box: Tile | None = None,
    back: Return | None = None,
) -> Iterator[Event]:
    """Segment one image on the model's grid, slab by slab along one of its axes.

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
    verdict : Verdict, optional
        What `decide` has said before, for the many planes or frames of one image; with ``precision="auto"`` each run decides
        by itself otherwise.
    axis : int
        Spatial axis along which the scan goes, see `plan_scan`. Rows are counted along it.
    keeper : Keeper, optional
        Knows what an earlier, interrupted run has finished, and is told what this one finishes. Only tiles that touch later
        rows are computed; labels are the same.
    relief : Relief, optional
        What earlier samples have given up for want of memory; this run adds to it.
    wanted : callable, optional
        Whether a tile, by the box that its scores are for, is to be computed; pixels that no tile covers are background.
    box : Tile, optional
        Compute only the tiles of the image that touch this part of it: inside, the sink gets what it would get from the whole
        image, to the last bit; around it, less. Objects go on outside, so they are not decoded: only scores, if asked for, arrive.
    back : Return, optional
        Bring scores to the image's grid before they are decoded: regions of the sink and of `SlabDone` are the image's then.

    Yields
    ------
    Event
        `Planned`; `Progress` after every batch, `SlabDone` when a part is in the sink, `Warned`; `Finished`. `Planned` again where
        the rest goes on with a smaller window.

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
    options, keeper, relief = options or SegmentOptions(), keeper or Keeper(), relief or Relief()
    turn = Turn(axis, len(source.shape) - 1)
    windows = 0
    while True:
        task: _Task | None = None
        try:
            if box is not None:
                keeper = Keeper()  # with a smaller window the box has other surroundings: it is computed anew
            task = _prepare(source, predictor, relief.options(options), cancel, first_id, turn, keeper, relief, wanted, box, back)
            task.verdict = verdict
            yield from _scan(task, MovedSink(turn.sink(sink), task.offset) if box else turn.sink(sink), keeper)
            break
        except DeviceMemoryError:
            verdict = task.verdict if task else verdict
            windows += task.windows if task else 0
            # Where the user has chosen the window, it stays.
            smaller = None if options.window else smaller_window(relief.window or predictor.spec.window, predictor.spec)
            if smaller is None:
                raise
        del task  # its buffers go before those of the next attempt come
        relief.window = smaller
        size = " x ".join(str(side) for side in smaller)
        where = "" if keeper.rows == 0 else f" from row {keeper.rows} on"
        yield Warned(relief.note(f"{predictor.device} is short of memory: the window is now {size}{where}."))
    yield Finished(task.decoder.objects, time.monotonic() - started, task.decoder.voxels, windows + task.windows)


def _scan(task: _Task, sink: Sink, keeper: Keeper) -> Iterator[Event]:
    """Go down all rows that are left."""
    yield task.planned()
    yield from task.notes()
    yield from task.choose_precision()
    with kept_memory(), Feed(task.source, task.plan, first=task.first, check=task.check, offset=task.offset) as feed:
        for row in task.plan.rows(task.first):
            block = feed.take(row)
            for line, pixels, tiles in task.lines(row, block):
                yield from task.compute(line, pixels, feed.origin, tiles)
            finished = task.slab.finish(row, skip=task.skip)
            if finished is not None:
                yield from task.deliver(sink, *finished)
                stop = finished[0].stop[0]
                keeper.keep(task.restorer.kept(stop) if task.restorer else stop, task.decoder)
            task.slab.advance(row)
    yield from task.write(sink, task.decoder.finish())


@dataclass
class _Task:
    """What the loop holds while it goes."""

    source: Source
    predictor: Predictor
    options: SegmentOptions
    plan: TilePlan
    needs: Estimate
    network: Network
    slab: Slab | Strips | CountedSlab | Patchwork
    decoder: Decoder
    first: int
    skip: int
    batch: int
    cancel: Callable[[], bool]
    turn: Turn
    relief: Relief
    offset: tuple[int, ...]
    wanted: Callable[[Tile], bool] | None = None
    refinement: Refinement | None = None
    restorer: Restorer | None = None
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
        window, shape = self.turn.back(self.plan.window), self.turn.back(self.plan.shape)
        return Planned(self.total, window, shape, self.predictor.device, self.batch, memory)

    def notes(self) -> Iterator[Event]:
        """Say which options have no effect here."""
        if (
            self.relief.window is None
            and self.options.min_size > 0
            and not (self.predictor.spec.finds_objects or self.predictor.spec.output == "anomaly")
        ):
            yield Warned("Min. size has no effect: this model finds classes, not objects.")
        shared = self.options.overlap if self.options.overlap is not None else self.predictor.spec.overlap
        if self.predictor.spec.output == "labels" and not shared and len(self.plan) > 1:
            yield Warned("Without overlap objects are cut where tiles meet. Use an overlap about as wide as the objects.")

    def choose_precision(self) -> Iterator[Event]:
        """Compute fast if the user allows it and the tiles of this run do not object."""
        if self.options.precision != "auto" or self.total == 0:
            return
        told = self.verdict is not None and self.relief.window is not None  # by the attempt with a larger window
        if self.verdict is None:
            self.verdict = decide(self.source, self.predictor, self.options, check=self.check)
            self.began = time.monotonic()
        self.network.fast = self.verdict.fast or self.relief.fast
        if self.verdict.fast:
            self.network.backend = self.verdict.backend
        if not self.network.fast and not told:
            yield Warned(self.verdict.reason)

    def lines(self, row: Row, block: NDArray[np.float32]) -> Iterator[tuple[Row, NDArray[np.float32], list[Placed]]]:
        """Yield tiles that lie side by side with what they see: those of a row, then the windows over its seams, if any."""
        tiles = [tile for tile in self.plan.tiles(row.index) if self.wanted is None or self.wanted(self._unturned(tile.kept))]
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

    def _unturned(self, tile: Tile) -> Tile:
        """Return a tile in the order of the image's axes, where it lies in the image."""
        moved = tile.moved(self.offset)
        return Tile(self.turn.back(moved.start), self.turn.back(moved.stop))

    def compute(self, row: Row, block: NDArray[np.float32], origin: tuple[int, ...], tiles: list[Placed]) -> Iterator[Event]:
        """Predict and add tiles that lie side by side; where memory runs out, by other means."""
        pixels = torch.from_numpy(block)
        waiting = list(tiles)
        while waiting:
            tiles = waiting[: self.batch]
            try:
                scores = self._predict(tiles, pixels, (row.seen[0], *origin))
            except DeviceMemoryError:
                if len(tiles) == 1 and not self._can_give_way():
                    raise
                scores = None
            if scores is None:  # outside of the except clause nothing holds the failed call's tensors any more
                yield Warned(self.relief.note(f"{self.predictor.device} is short of memory: {self._give_way(len(tiles))}."))
                continue
            for tile, of_tile in zip(tiles, scores, strict=True):
                self.slab.add(tile, of_tile, row, skip=self.skip)
                if self.refinement is not None and row.index >= 0:
                    self.refinement.note(tile, of_tile[: len(self.predictor.spec.score_names)])
            del scores, of_tile  # the next ones take their place in memory
            del waiting[: len(tiles)]
            self.windows += len(tiles)
            self.done += len(tiles) if row.index >= 0 else 0
            left = (time.monotonic() - self.began) / self.done * (self.total - self.done)
            yield Progress(self.done, self.total, left)

    def _predict(self, tiles: list[Placed], pixels: torch.Tensor, origin: tuple[int, ...]) -> torch.Tensor:
        """Return the scores of some tiles, where the slab is."""
        places = [self._unturned(tile.seen) for tile in tiles]
        try:
            return self.network(self._fill(tiles, pixels, origin), places).to(self.slab.device)
        except (MemoryError, RuntimeError) as error:  # not the network, which says so itself, but a copy before or after it
            if not out_of_memory(error):
                raise
            raise DeviceMemoryError("The computer has no memory left for the next tile. Close other programs.") from None

    def _can_give_way(self) -> bool:
        return self.slab.device.type != "cpu" or (self.options.precision == "auto" and not self.network.fast)

    def _give_way(self, tiles: int) -> str:
        """Do with less memory, one step at a time; say how."""
        self._buffer = None
        if tiles > 1:
            self.batch = self.relief.batch = tiles // 2
            text = f"the batch is now {self.batch}"
        elif self.slab.device.type != "cpu":
            self.slab.move("cpu")
            self.relief.host = True
            text = "open scores are now kept in the computer's own memory"
        else:
            self.network.fast = self.relief.fast = True
            text = "the rest is computed in bfloat16"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return text

    def _fill(self, tiles: list[Placed], pixels: torch.Tensor, origin: tuple[int, ...]) -> torch.Tensor:
        """Copy the pixels of some tiles into the batch, which is allocated once."""
        if self._buffer is None:
            shape = (self.batch, pixels.shape[0], *self.plan.window)
            self._buffer = torch.empty(shape, dtype=torch.float32, pin_memory=self.predictor.device.startswith("cuda"))
        for index, tile in enumerate(tiles):
            self._buffer[index] = pixels[(slice(None), *tile.seen.relative_to(origin).slices)]
        return self._buffer[: len(tiles)]

    def deliver(self, sink: Sink, region: Tile, values: torch.Tensor) -> Iterator[Event]:
        """Hand finished scores (of a slab) or labels (of strips) to the decoder, and what it gives back to the sink."""
        if isinstance(self.slab, Strips) and isinstance(self.decoder, PerPixel):
            yield from self.write(sink, self.decoder.take(region, values))
        elif self.restorer is None:
            yield from self._decode(sink, region, values)
        else:
            for piece, of_piece in self.restorer.take(region, values):
                yield from self._decode(sink, piece, of_piece)

    def _decode(self, sink: Sink, region: Tile, values: torch.Tensor) -> Iterator[Event]:
        """Write what was asked for beside the labels, then these."""
        if self.options.uncertainty == "disagreement":
            sink.write_uncertainty(region.slices, values[-1].cpu().numpy())
            values = values[:-1]
        elif self.options.uncertainty:
            sink.write_uncertainty(region.slices, entropy(values, self.predictor.spec).cpu().numpy())
        if self.options.scores:
            sink.write_scores(region.slices, values.cpu().numpy())
        yield from self.write(sink, self.decoder.add(region, values))

    def write(self, sink: Sink, pieces: Iterable[tuple[Tile, NDArray[Any]]]) -> Iterator[Event]:
        for region, labels in pieces:
            sink.write(region.slices, labels)
            yield SlabDone(self.turn.back(region.moved(self.offset).bounds))
        for message in self.decoder.warnings():
            yield Warned(message)


def _prepare(
    source: Source,
    predictor: Predictor,
    options: SegmentOptions,
    cancel: Callable[[], bool],
    first_id: int,
    turn: Turn,
    keeper: Keeper,
    relief: Relief,
    wanted: Callable[[Tile], bool] | None,
    box: Tile | None,
    back: Return | None,
) -> _Task:
    """Check everything that can be checked, then allocate."""
    check_source(source, predictor.spec)
    source, predictor, options = turn.source(source), turn.predictor(predictor), turn.options(options)
    spec = predictor.spec
    recipe = resolve(spec, options)
    plan, offset = recipe.plan(source.shape[1:]), (0,) * len(turn.order)
    if box is not None:
        plan, offset = plan.touching(Tile(turn.forth(box.start), turn.forth(box.stop)))
    whole = box is None or spec.output != "instances"
    fresh: Decoder = make_decoder(spec, options, first_id, plan, turn, back) if whole else Undecoded()
    decoder = keeper.resume(fresh)
    if decoder is None:
        raise OptionsError("A run that finds objects cannot continue in the middle of an image without its journal. Start it again.")
    relief.batch = relief.batch or options.batch or default_batch(plan, predictor.device)
    scores = options.scores or bool(options.uncertainty) or back is not None
    needs = estimate(plan, spec, batch=relief.batch, scores=scores)
    check_limit(needs, options.memory_limit)
    extra = options.uncertainty == "disagreement"
    network = Network(predictor, plan.output, tta=options.tta, disagree=extra)
    network.fast = relief.fast
    first, skip = plan.first_row(keeper.rows), keeper.rows
    refinement = None
    if options.adaptive:
        half = len(replace(recipe, overlap=0.5, steps=spec.steps).plan(plan.shape)) // 2
        refinement = Refinement(plan, spec, options.threshold, max(0, half - len(plan)))
        first = max(0, first - 1)  # seams need the row above
    ends = refinement.ends() if refinement else [row.finished[1] for row in plan.rows()] if wanted else None
    slab = _slab(
        plan,
        recipe,
        predictor,
        needs,
        relief,
        decoder,
        scores=scores,
        extra=extra,
        ends=ends,
        first=first,
    )
    task = _Task(
        source,
        predictor,
        options,
        plan,
        needs,
        network,
        slab,
        decoder,
        first,
        skip,
        relief.batch,
        cancel,
        turn,
        relief,
        offset,
        wanted,
        refinement,
    )
    if back is not None:
        task.restorer = Restorer(back.turned(turn), skip=keeper.rows, by_lines=isinstance(decoder, PerPixel))
    network.check = task.check
    return task


def _slab(
    plan: TilePlan,
    recipe: Recipe,
    predictor: Predictor,
    needs: Estimate,
    relief: Relief,
    decoder: Decoder,
    *,
    scores: bool,
    extra: bool,
    ends: list[int] | None,
    first: int,
) -> Slab | Strips | CountedSlab | Patchwork:
    """Put the open scores beside the model, or on the host where they would take too much of the device."""
    if isinstance(decoder, Joined):
        return Patchwork(plan, decoder)
    device = predictor.device
    if relief.host is None:
        relief.host = device != "cpu" and needs.device_bytes > free_memory(device) // 2
    # Tiles that are laid from the end count as their mirror images do: nnU-Net's map is not the same from both sides.
    turned = tuple(axis for axis, turn in enumerate(recipe.from_end) if turn)
    weights = np.flip(importance(plan.output, recipe.blending, recipe.sigma), turned).copy()
    channels = len(predictor.spec.score_names) + extra

    def make(device: str) -> Slab | Strips | CountedSlab:
        if ends is not None:
            return CountedSlab(plan, weights, channels, empty_scores(predictor.spec), ends, first=first, device=device)
        if isinstance(decoder, PerPixel) and by_strips(plan, predictor.spec, scores=scores):
            return Strips(plan, weights, channels, decoder, device=device, normalized=decoder.normalized)
        return Slab(plan, weights, channels, device=device, normalized=decoder.normalized or scores)

    try:
        return make("cpu" if relief.host else device)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if relief.host or device == "cpu":
            raise DeviceMemoryError(
                "The computer has no memory left for the scores of one row of tiles. Choose a smaller window or a part of the image."
            ) from None
    relief.host = True
    return make("cpu")
