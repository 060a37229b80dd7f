"""THE loop: tiles in, labels out, events on the way. Every interface drives this one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.engine.adaptive import Refinement
from napari_tileseg.engine.allocator import kept_memory
from napari_tileseg.engine.backends import backends, release
from napari_tileseg.engine.checks import check_limit, check_source
from napari_tileseg.engine.counted import CountedSlab, counted_depth, empty_scores
from napari_tileseg.engine.decode import Decoder, PerPixel, Undecoded
from napari_tileseg.engine.decoding import make_decoder
from napari_tileseg.engine.delivery import Delivery
from napari_tileseg.engine.events import Event, Finished, Warned
from napari_tileseg.engine.faults import Relief, smaller_window
from napari_tileseg.engine.feed import Feed
from napari_tileseg.engine.ferry import Ferry
from napari_tileseg.engine.joined import Joined
from napari_tileseg.engine.journal import Keeper
from napari_tileseg.engine.memory import by_strips, default_batch, estimate, free_memory
from napari_tileseg.engine.patchwork import Patchwork
from napari_tileseg.engine.predict import Network, out_of_memory
from napari_tileseg.engine.recipe import Recipe, resolve
from napari_tileseg.engine.restore import Restorer
from napari_tileseg.engine.scan import Turn
from napari_tileseg.engine.sinks import MovedSink
from napari_tileseg.engine.stitch import Slab
from napari_tileseg.engine.streams import streams_of
from napari_tileseg.engine.strips import Strips
from napari_tileseg.engine.task import Task
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.engine.weights import importance
from napari_tileseg.errors import DeviceMemoryError, OptionsError, RunError
from napari_tileseg.job import SegmentOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from napari_tileseg.engine.interpolate import Return
    from napari_tileseg.engine.memory import Estimate
    from napari_tileseg.engine.precision import Verdict
    from napari_tileseg.engine.protocols import Predictor, Sink, Source
    from napari_tileseg.engine.tiles import TilePlan

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
        task: Task | None = None
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


def _scan(task: Task, sink: Sink, keeper: Keeper) -> Iterator[Event]:
    """Go down all rows that are left."""
    yield task.planned()
    yield from task.notes()
    yield from task.choose_precision()

    def hand_on(region: Tile, values: torch.Tensor) -> Iterator[Event]:
        yield from task.deliver(sink, region, values)
        stop = region.stop[0]
        keeper.keep(task.restorer.kept(stop) if task.restorer else stop, task.decoder)

    beside = task.streams.beside and not isinstance(task.slab, Patchwork)  # whose decoder takes part in adding tiles
    with (
        kept_memory(),
        Feed(task.source, task.plan, first=task.first, check=task.check, offset=task.offset) as feed,
        Delivery(hand_on, task.streams, beside=beside) as delivery,
    ):
        try:
            for row in task.plan.rows(task.first):
                block = feed.take(row)
                for line, pixels, tiles in task.lines(row, block):
                    yield from task.compute(line, pixels, feed.origin, tiles)
                    yield from delivery.go_on(task.ferry.landed)
                finished = yield from task.finish(row, own=beside)
                if finished is not None:
                    yield from delivery.put(*finished, after=task.ferry.sent, landed=task.ferry.landed)
                    del finished  # a thread may hold the only other copy
                task.slab.advance(row)
            yield from task.land()
        except RunError:  # what is finished belongs to the result
            yield from delivery.finish(task.ferry.landed)
            raise
        yield from delivery.finish(task.ferry.landed)
    yield from task.write(sink, task.decoder.finish())


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
) -> Task:
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
    release(predictor)  # what an earlier run has recorded would be missing from the free memory
    relief.batch = relief.batch or options.batch or default_batch(plan, predictor.device)
    scores = options.scores or bool(options.uncertainty) or back is not None
    first, skip = plan.first_row(keeper.rows), keeper.rows
    refinement = None
    if options.adaptive:
        refinement = Refinement.of(plan, recipe, spec, options.threshold)
        first = max(0, first - 1)  # seams need the row above
    ends = refinement.ends() if refinement else [row.finished[1] for row in plan.rows()] if wanted else None
    needs = estimate(plan, spec, batch=relief.batch, scores=scores, counted=counted_depth(plan, ends, first) if ends else None)
    check_limit(needs, options.memory_limit)
    extra = options.uncertainty == "disagreement"
    network = Network(predictor, plan.output, tta=options.tta, disagree=extra)
    network.fast = relief.fast
    if relief.fast:
        network.backend = backends(predictor)[0]
    streams = streams_of(predictor.device)
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
    task = Task(
        source,
        predictor,
        options,
        plan,
        needs,
        network,
        streams,
        Ferry(network, streams, plan.window, relief.batch),
        slab,
        decoder,
        first,
        skip,
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
