"""Objects of an image whose scores were computed in pieces, each by itself: decoded there as far as they end there, and joined.

Objects lie in connected components of the foreground (see `decoders.ObjectDecoder`). A component that reaches no side at which
its piece was cut is decoded where its scores are. Of the others the scores are kept, and no other pixel's; together, with
background where nothing was kept, they are an image that the decoder of whole images goes through row by row. ::

    +------------+------------+
    |  aa        |        cc  |     a, c: settled in their pieces
    |  aa     bb | bb         |     b: open on both sides, decoded when its pieces are joined
    |            | b          |
    +------------+------------+

So the objects are those of the whole image. They are numbered as a scan of the whole meets them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from scipy import ndimage

from napari_tileseg.engine.objects import first_seen
from napari_tileseg.engine.tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.decoders import ObjectDecoder
    from napari_tileseg.engine.objects import Objects
    from napari_tileseg.engine.scan import Turn
    from napari_tileseg.engine.tiles import TilePlan

__all__ = ["Found", "Piece", "join", "settle"]


@dataclass(frozen=True)
class Found:
    """What one piece is decoded to.

    Parameters
    ----------
    labels : ndarray of int32, shape (*box)
        Settled objects, numbered from 1.
    count : int
        How many.
    index : ndarray of int64, shape (n,)
        Flat places, in the box, of pixels that belong to open components.
    scores : ndarray of float32, shape (K, n)
        Their scores.
    """

    labels: NDArray[np.int32]
    count: int
    index: NDArray[np.int64]
    scores: NDArray[np.float32]


class Piece(Protocol):
    """What is kept of a piece until it is joined with the others."""

    @property
    def box(self) -> Tile:
        """Where it lies on the model's grid."""
        ...

    @property
    def count(self) -> int:
        """Number of settled objects."""
        ...

    def labels(self, region: Tile) -> NDArray[np.int32]:
        """Return the settled objects in a part of the box, given in coordinates of the whole."""
        ...

    def opened(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return `Found.index` and `Found.scores`."""
        ...


def settle(
    scores: NDArray[np.float32],
    box: Tile,
    shape: tuple[int, ...],
    decoder: ObjectDecoder,
    parameters: Mapping[str, float],
    *,
    empty: Sequence[float],
    threshold: float = 0.5,
    min_size: float = 0,
) -> Found:
    """Decode the components of one piece that end in it.

    Parameters
    ----------
    scores : ndarray of float32, shape (K, *box)
        As in the whole image; pixels of open components are overwritten.
    box : Tile
        Where the piece lies.
    shape : tuple of int
        Of the whole image.
    decoder : ObjectDecoder
        In the image's own orientation. One that looks beyond the foreground gets everything at the end.
    parameters : mapping of str to float
        The decoder's.
    empty : sequence of float
        Scores of a pixel that is background beyond doubt (`counted.empty_scores`).
    threshold, min_size : float
        As for the decoder.
    """
    if decoder.margin(parameters):
        return Found(np.zeros(box.shape, np.int32), 0, np.arange(scores[0].size), scores.reshape(len(scores), -1))
    foreground = decoder.foreground(scores, parameters, threshold)
    components: NDArray[np.int32]
    components, count = ndimage.label(foreground, structure=np.ones((3,) * foreground.ndim, dtype=bool))
    is_open = np.zeros(count + 1, dtype=bool)
    for axis, ((start, stop), size) in enumerate(zip(box.bounds, shape, strict=True)):
        for cut, place in ((start > 0, 0), (stop < size, -1)):
            if cut:
                is_open[components.take(place, axis).ravel()] = True
    is_open[0] = False
    where: NDArray[np.bool_] = is_open[components]
    index = np.flatnonzero(where)
    kept = np.ascontiguousarray(scores[:, where])
    for channel, value in zip(scores, empty, strict=True):
        channel[where] = value
    labels = decoder.decode(scores, parameters, threshold=threshold, min_size=min_size)
    labels = np.where(where, 0, labels).astype(np.int32)
    return Found(labels, int(labels.max(initial=0)), index, kept)


def join(
    plan: TilePlan,
    turn: Turn,
    pieces: Sequence[Piece],
    objects: Objects,
    empty: Sequence[float],
    *,
    first_id: int = 1,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[Tile, NDArray[np.int32]]]:
    """Yield the labels of the whole sample, equal to those of a run that saw all of it, in slabs as such a run makes them.

    Parameters
    ----------
    plan : TilePlan
        Of the whole sample, in the order of the loop.
    turn : Turn
        How the loop sees the image.
    pieces : sequence of Piece
        Boxes that cover the image, each pixel once.
    objects : Objects
        A fresh decoder of the whole sample.
    empty : sequence of float
        As for `settle`.
    first_id : int
        Id of the first object.
    check : callable
        Called before every row; may raise.

    Yields
    ------
    region : Tile
        In the order of the loop, as wide as the image.
    labels : ndarray of int32
    """
    placed = [_Placed(piece, turn) for piece in pieces]
    bases = np.cumsum([0, *(piece.count for piece in pieces)])
    names = _Names(first_id)

    def named(emitted: Iterator[tuple[Tile, NDArray[np.int32]]]) -> Iterator[tuple[Tile, NDArray[np.int32]]]:
        for region, opened in emitted:
            # Settled objects first, so that their number, which is known, does not depend on how many are open.
            mixed = np.where(opened > 0, opened.astype(np.int64) + bases[-1], 0)
            for part, base in zip(placed, bases, strict=False):
                part.add_labels(region, mixed, int(base))
            yield region, names(mixed)

    for row in plan.rows():
        check()
        start, stop = max(row.finished[0], 0), min(row.finished[1], plan.shape[0])
        if start >= stop:
            continue
        region = Tile((start, *(0 for _ in plan.shape[1:])), (stop, *plan.shape[1:]))
        block = np.empty((len(empty), *region.shape), np.float32)
        for channel, value in zip(block, empty, strict=True):
            channel.fill(value)
        for part in placed:
            part.add_scores(region, block)
        yield from named(objects.add(region, torch.from_numpy(block)))
    yield from named(objects.finish())


class _Placed:
    """A piece as the loop sees it; its open scores are in memory only while rows of it go by."""

    def __init__(self, piece: Piece, turn: Turn) -> None:
        self._piece, self._turn = piece, turn
        self._box = Tile(turn.forth(piece.box.start), turn.forth(piece.box.stop))
        self._places: list[NDArray[np.int64]] | None = None
        self._scores = np.empty((0, 0), np.float32)

    def add_scores(self, region: Tile, block: NDArray[np.float32]) -> None:
        """Put open pixels of some rows into a block of scores, shape (K, *region)."""
        if not region.overlaps(self._box):
            return
        places = self._load()
        first, last = np.searchsorted(places[0], (region.start[0], region.stop[0]))
        where: list[Any] = [axis[first:last] - start for axis, start in zip(places, region.start, strict=True)]
        block[(slice(None), *where)] = self._scores[:, first:last]
        if region.stop[0] >= self._box.stop[0]:
            self._places, self._scores = None, np.empty((0, 0), np.float32)

    def add_labels(self, region: Tile, block: NDArray[np.int64], base: int) -> None:
        """Put settled objects of some rows into a block of labels, their numbers moved on by `base`."""
        if not region.overlaps(self._box) or not self._piece.count:
            return
        start = tuple(map(max, region.start, self._box.start))
        common = Tile(start, tuple(map(min, region.stop, self._box.stop)))
        labels = self._piece.labels(Tile(self._turn.back(common.start), self._turn.back(common.stop))).transpose(self._turn.order)
        target = block[common.relative_to(region.start).slices]
        np.add(labels, base, out=target, where=labels > 0)

    def _load(self) -> list[NDArray[np.int64]]:
        if self._places is None:
            index, scores = self._piece.opened()
            places = np.unravel_index(index, self._piece.box.shape)
            moved = [axis + start for axis, start in zip(places, self._piece.box.start, strict=True)]
            turned = self._turn.forth(moved)
            order = np.argsort(turned[0], kind="stable")
            self._places, self._scores = [axis[order] for axis in turned], scores[:, order]
        return self._places


class _Names:
    """Gives objects their final ids when a scan meets them first."""

    def __init__(self, first_id: int) -> None:
        self._next = first_id
        self._table = np.zeros(1, np.int32)

    def __call__(self, labels: NDArray[np.int64]) -> NDArray[np.int32]:
        values, order = first_seen(labels)
        if len(values) and values[-1] >= len(self._table):
            self._table = np.concatenate([self._table, np.zeros(int(values[-1]) + len(self._table), np.int32)])
        fresh = values[order]
        fresh = fresh[self._table[fresh] == 0]
        self._table[fresh] = np.arange(self._next, self._next + len(fresh), dtype=np.int32)
        self._next += len(fresh)
        return self._table[labels]
