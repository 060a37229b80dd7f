"""One image cut into shares that are computed anywhere, in any order, and put together to what a run of the whole would give.

Every share computes the tiles of the whole image's plan that touch its box, with the whole image's statistics, so its scores are
those of the whole to the last bit. Classes are labels at once, in boxes that fill whole chunks of the result; objects are settled
as far as they end in their box and joined afterwards (`engine.pieces`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.engine.events import Finished, Planned, Progress, SlabDone, Warned
from napari_tileseg.engine.tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.parts import Region
    from napari_tileseg.engine.pieces import Found, Piece
    from napari_tileseg.engine.protocols import Sink
    from napari_tileseg.execution import Run

__all__ = ["Share", "divide", "find_objects", "join_objects", "label_box", "tiles_of"]

MOST_LABELS = 1 << 26
"""Most pixels of a share whose labels are classes: they are in memory until it is done."""

MOST_SCORES = 1 << 22
"""Most pixels of a share whose scores are in memory until its objects are found."""


@dataclass(frozen=True)
class Share:
    """A box of one sample, for one worker.

    Parameters
    ----------
    number : int
        Place in the list of shares.
    sample : int
        Which plane, frame or volume.
    box : tuple of (start, stop)
        Along the axes of space: pixels of the image; of the model's grid where objects are found.
    """

    number: int
    sample: int
    box: Region

    def to_list(self) -> list[Any]:
        """Return what JSON can hold."""
        return [self.number, self.sample, [list(span) for span in self.box]]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Share:
        """Undo `to_list`."""
        return cls(int(values[0]), int(values[1]), tuple((int(start), int(stop)) for start, stop in values[2]))


def divide(run: Run, *, chunks: tuple[int, ...] | None = None, shares: int = 1, most: int | None = None) -> list[Share]:
    """Cut every sample into boxes of about equal size.

    Boxes are halved along the axis on which they hold most windows, until they are small and many enough; none gets thinner than
    two windows, because the tiles at its sides are computed on both.

    Parameters
    ----------
    run : Run
        Prepared, of the whole image.
    chunks : tuple of int, optional
        Sides of the boxes become multiples of these: a chunk of the result belongs to one share.
    shares : int
        How many are wanted at least, for all samples together.
    most : int, optional
        Most pixels of a box; `MOST_LABELS` or `MOST_SCORES` by default.
    """
    objects = run.axis_map.output == "instances"
    shape = run.layout.grid.model if objects else run.axis_map.spatial_shape
    scale = [have / model for have, model in zip(shape, run.layout.grid.model, strict=True)]
    window = [max(1, math.ceil(size * by)) for size, by in zip(run.recipe.window, scale, strict=True)]
    steps = (1,) * len(shape) if objects or chunks is None else tuple(min(pair) for pair in zip(chunks, shape, strict=True))
    masks = run.axis_map.classes if run.axis_map.output == "sigmoid" else 1
    limit = most or (MOST_SCORES if objects else MOST_LABELS // masks)
    wanted = -(-shares // len(run.layouts))
    counts = [1] * len(shape)
    sizes = list(shape)
    while math.prod(sizes) > limit or math.prod(counts) < wanted:
        # Where a box is too large, it is cut even into thin ones; for the number alone it is not.
        least = 1 if math.prod(sizes) > limit else 2
        able = [axis for axis in range(len(shape)) if sizes[axis] > steps[axis] and sizes[axis] >= 2 * least * window[axis]]
        able = able or [axis for axis in range(len(shape)) if sizes[axis] > steps[axis] and least == 1]
        if not able:
            break
        axis = max(able, key=lambda axis: sizes[axis] / window[axis])
        half = -(-sizes[axis] // 2)
        sizes[axis] = min(-(-half // steps[axis]) * steps[axis], sizes[axis] - 1)
        sizes[axis] = max(steps[axis], sizes[axis] // steps[axis] * steps[axis])
        counts[axis] = -(-shape[axis] // sizes[axis])
    spans = [[(start, min(start + by, size)) for start in range(0, size, by)] for size, by in zip(shape, sizes, strict=True)]
    boxes: list[Region] = [()]
    for axis_spans in spans:
        boxes = [(*box, span) for box in boxes for span in axis_spans]
    found = [(sample, box) for sample in range(len(run.layouts)) for box in boxes]
    return [Share(number, sample, box) for number, (sample, box) in enumerate(found)]


def tiles_of(run: Run, share: Share) -> int:
    """Return how many tiles a share computes."""
    box = Tile(*zip(*share.box, strict=True)) if run.axis_map.output == "instances" else _on_model(run, share.box)
    return len(run.layout.plan.touching(Tile(run.layout.turn.forth(box.start), run.layout.turn.forth(box.stop)))[0])


def label_box(run: Run, share: Share) -> tuple[Region, NDArray[Any]]:
    """Compute the labels of a share of an image with classes.

    Returns
    -------
    box : tuple of (start, stop)
        Along the axes of the result.
    labels : ndarray
        Of that box, as the result holds them.
    """
    part = run.layouts[share.sample].part
    axis_map = run.axis_map
    lookup = {**dict(zip(axis_map.spatial, share.box, strict=True)), "C": (0, axis_map.classes)}
    lookup |= {axis: (place, place + 1) for axis, place in part.position.items()}
    box = tuple(lookup[axis] for axis in axis_map.result_axes)
    labels = np.zeros([stop - start for start, stop in box], axis_map.result_dtype)
    sink = run.sink(replace(part, wanted=(share.box,)), _Corner(labels, tuple(start for start, _ in box)))
    _compute(run, share.sample, run.target(sink), _on_model(run, share.box))
    return box, labels


def find_objects(run: Run, share: Share) -> Found:
    """Compute the scores of a share of an image with objects, and settle those that end in it."""
    from napari_tileseg.engine.counted import empty_scores
    from napari_tileseg.engine.pieces import settle

    spec, options = run.predictor.spec, run.options
    box = Tile(tuple(start for start, _ in share.box), tuple(stop for _, stop in share.box))
    scores = np.zeros((len(spec.score_names), *box.shape), np.float32)
    _compute(run, share.sample, _Scores(scores, box), box, scores=True)
    facts: dict[str, Any] = {"threshold": options.threshold, "min_size": options.min_size}
    decoder = find_decoder(spec.decoder)
    return settle(scores, box, run.layout.grid.model, decoder, spec.decoder_parameters, empty=empty_scores(spec), **facts)


def join_objects(run: Run, sample: int, pieces: Sequence[Piece], labels: Any, *, check: Callable[[], None] = lambda: None) -> None:
    """Put the objects of one sample together and into the labels of the result; samples must come in order.

    Parameters
    ----------
    run : Run
        Prepared, of the whole image; it counts the objects and tells of slabs.
    sample : int
        Which plane, frame or volume.
    pieces : sequence of Piece
        What `find_objects` gave for all shares of it.
    labels : array
        Of the whole result.
    check : callable
        Called now and then; may raise.
    """
    from napari_tileseg.engine.counted import empty_scores
    from napari_tileseg.engine.decoding import make_decoder
    from napari_tileseg.engine.objects import Objects
    from napari_tileseg.engine.pieces import join

    part = run.layouts[sample].part
    sink = run.sink(part, labels)
    target = run.layout.turn.sink(run.target(sink))
    spec = run.predictor.spec
    decoder = make_decoder(spec, run.options, 1, run.layout.plan, run.layout.turn, None)
    assert isinstance(decoder, Objects)  # the output is instances
    highest = run.objects
    for region, block in join(run.layout.plan, run.layout.turn, pieces, decoder, empty_scores(spec), first_id=run.objects + 1, check=check):
        target.write(region.slices, block)
        highest = max(highest, int(block.max(initial=0)))
        if (moved := sink.grid_region(run.layout.grid.image_region(run.layout.turn.back(region.bounds)))) is not None:
            run.slabs += 1
            run.tell(SlabDone(moved))
        for message in decoder.warnings():
            run.warn(message)
    run.objects = highest


def _on_model(run: Run, box: Region) -> Tile:
    """Return the pixels of the model's grid that labels of a box of the image come from."""
    if run.layout.grid.same:
        return Tile(tuple(start for start, _ in box), tuple(stop for _, stop in box))
    ends = [run.layout.grid.nearest(axis, *span)[[0, -1]] for axis, span in enumerate(box)]
    # One pixel more on each side, so that rounding cannot leave a gap.
    pairs = list(zip(ends, run.layout.grid.model, strict=True))
    return Tile(tuple(max(0, int(first) - 1) for (first, _), _ in pairs), tuple(min(size, int(last) + 2) for (_, last), size in pairs))


def _compute(run: Run, sample: int, target: Sink, box: Tile, *, scores: bool = False) -> None:
    """Run the engine on a box of the model's grid, with what the run has settled for the whole image."""
    from napari_tileseg.engine.run import run as engine

    part, read = run.layouts[sample].part, run.layouts[sample].read
    source = run.source(part, read)
    events = engine(
        source,
        run.predictor,
        target,
        options=run.options.model_copy(update={"scores": True}) if scores else run.options,
        cancel=run.cancel,
        verdict=run.decided(source),
        axis=run.layout.turn.axis,
        relief=run.relief,
        wanted=run.tissue(part),
        box=box,
    )
    for event in events:
        match event:
            case Progress():
                run.tell(event)
            case Warned(message):
                run.warn(message)
            case Planned(device=device, batch=batch):
                run.settings["device"] = device
                run.settings.setdefault("batch", batch)
            case Finished(windows=windows):
                run.windows += windows
    run.tell_damage()


class _Corner:
    """An array that is indexed as the whole result of which it is a box."""

    def __init__(self, array: NDArray[Any], origin: tuple[int, ...]) -> None:
        self._array, self._origin = array, origin

    def __setitem__(self, key: tuple[Any, ...], values: NDArray[Any]) -> None:
        self._array[tuple(_back(part, by) for part, by in zip(key, self._origin, strict=True))] = values


def _back(part: Any, by: int) -> Any:
    if not isinstance(part, slice):
        return part - by
    return part if part.start is None else slice(part.start - by, part.stop - by)


class _Scores:
    """A sink on the model's grid that keeps the scores of a box."""

    def __init__(self, scores: NDArray[np.float32], box: Tile) -> None:
        self._scores, self._box = scores, box

    def write(self, region: tuple[slice, ...], labels: NDArray[Any]) -> None:
        """Take no labels: there are none yet."""

    def write_scores(self, region: tuple[slice, ...], scores: NDArray[np.float32]) -> None:
        """Keep what lies in the box."""
        there = Tile(tuple(span.start for span in region), tuple(span.stop for span in region))
        if not there.overlaps(self._box):
            return
        common = Tile(tuple(map(max, there.start, self._box.start)), tuple(map(min, there.stop, self._box.stop)))
        self._scores[(slice(None), *common.relative_to(self._box.start).slices)] = scores[
            (slice(None), *common.relative_to(there.start).slices)
        ]

    def write_uncertainty(self, region: tuple[slice, ...], uncertainty: NDArray[np.float32]) -> None:
        """Take no uncertainty: runs that want it are not divided."""
