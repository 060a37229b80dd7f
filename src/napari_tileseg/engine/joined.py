"""``Joined``: objects of overlapping tiles, each numbered by the model itself, joined to those of the whole image.

Neighbouring tiles share a strip, in whose middle runs a seam: each pixel takes its label from the tile on its side of the seam.
So what a tile shows of an object at its own border is not looked at, where the neighbour sees more of it. ::

      tile 1              tile 2
    +-----------------+- - - - - - -+
    |          +------|-------------+----+
    |      (1 1|1 1 1)| 1           |    |      object 1 of tile 1 and object 7 of tile 2 share most of their
    |          |(7 7 7|7 7 7)       |    |      pixels in the strip: they are one
    |          |   :  |             |    |
    +----------+---:--+             |    |      : the seam
               +--------------------+----+

Two objects are one if in the shared strip at least `match` of the smaller one lies in the other, and none fits either of them
better; of an object that its own tile cuts, the other tile may show several pieces as one. An object may reach through any number
of tiles, if the strip is wide enough for each two of them to recognise it: strips should be about as wide as the objects.

Labels are given as soon as no later tile can join anything to them, in the order of the first axis, with ids in the order in which
a scan of the image meets the objects.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.objects import first_seen, renumber
from napari_tileseg.engine.tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from numpy.typing import NDArray

__all__ = ["MATCH", "Joined", "same"]

MATCH = 0.5
"""Share of the smaller of two objects that the larger one must hold for both to be one, where the model's card says nothing."""


@dataclass(frozen=True, eq=False)
class _Seen:
    """What a tile has shown, as long as a later one may be compared with it."""

    box: Tile
    kept: Tile
    labels: NDArray[np.int32]

    def below(self, row: int) -> NDArray[np.int32]:
        return self.labels[max(0, row - self.box.start[0]) :]


class Joined:
    """Join the objects of tiles that come in scan order.

    Parameters
    ----------
    shape : tuple of int
        Of the image.
    classes : list of str
        Background and the class of the objects.
    match : float
        Least share, see above.
    min_size : float
        Smaller objects go (pixels).
    first_id : int
        Id of the first object.
    limit : int
        Most rows (pixels of the first axis) to hold back. An object that goes on is given in part then, and keeps its id; only
        two parts that are found to be one later than that stay two, and a warning says so.
    """

    normalized = True

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        classes: list[str],
        match: float = MATCH,
        min_size: float = 0,
        first_id: int = 1,
        limit: int = 4096,
    ) -> None:
        self._shape, self._classes = shape, classes
        self._match, self._min_size, self._limit = match, min_size, limit
        self._first_id = self._next_id = first_id
        self._counts = [0, 0]
        self._warnings: list[str] = []
        self._warned = False
        self._base = -1  # the first row that is held
        self._held = np.zeros((0, *shape[1:]), np.int32)  # provisional ids
        self._live: list[_Seen] = []  # of rows of tiles that are done
        self._fresh: list[_Seen] = []  # of the row that is being done
        self._open_from: int | None = 0
        # Of each provisional id: the smaller one that it is the same as, its final id (0: none yet), its pixels so far.
        self._parents = np.zeros(1, np.int64)
        self._final = np.zeros(1, np.int64)
        self._sizes = np.zeros(1, np.int64)

    @property
    def objects(self) -> int:
        return self._next_id - self._first_id

    @property
    def voxels(self) -> dict[str, int]:
        foreground = self._classes[1] if len(self._classes) > 1 else "objects"
        return {self._classes[0]: self._counts[0], foreground: self._counts[1]}

    def warnings(self) -> list[str]:
        told, self._warnings = self._warnings, []
        return told

    def begin(self) -> None:
        """Forget tiles of a row that was not finished: it is done again."""
        self._fresh = []

    def place(self, box: Tile, kept: Tile, labels: NDArray[Any]) -> NDArray[np.int32]:
        """Take the labels of one tile and find out which of its objects are known.

        Parameters
        ----------
        box : Tile
            What the labels are of; may reach beyond the image.
        kept : Tile
            The part of it on this side of all seams.
        labels : ndarray of int, shape (*box.shape)
            Objects numbered in any way; 0 and less are background.

        Returns
        -------
        ndarray of int32, shape (*kept.shape)
            Provisional ids of the kept part.
        """
        inside = box.clipped(self._shape)
        ids, count = renumber(labels[inside.relative_to(box.start).slices])
        base = len(self._parents) - 1
        ids[ids > 0] += np.int32(base)
        self._grow(count)
        for other in (*self._live, *self._fresh):
            if other.box.overlaps(inside) and _touch(other.kept, kept):
                self._compare(other, inside, ids)
        self._fresh.append(_Seen(inside, kept, ids))
        found = np.zeros(kept.shape, np.int32)
        drawn = kept.clipped(self._shape)
        if all(start < stop for start, stop in drawn.bounds):
            found[drawn.relative_to(kept.start).slices] = ids[drawn.relative_to(inside.start).slices]
        return found

    def end_row(self, following: int | None) -> None:
        """Take note that a row of tiles is done.

        Parameters
        ----------
        following : int or None
            Where on the first axis the next row of tiles begins; None after the last one.
        """
        self._open_from = following
        self._live = [seen for seen in (*self._live, *self._fresh) if following is not None and seen.box.stop[0] > following]
        self._fresh = []

    def add(self, region: Tile, scores: torch.Tensor) -> Iterator[tuple[Tile, NDArray[Any]]]:
        """Take the provisional ids of the next rows, shape (*region.shape); yield the labels that are final now (int32)."""
        block = scores.cpu().numpy()
        if self._base < 0:
            self._base = region.start[0]
        self._held = np.concatenate([self._held, block])
        self._sizes += np.bincount(block.ravel(), minlength=len(self._sizes))
        self._tidy()
        rows = self._open_row()
        if len(self._held) - rows > self._limit:
            rows = len(self._held)
            if not self._warned:
                self._warned = True
                self._warnings.append(
                    f"Objects reach over more than {self._limit} rows, so some were named before all of them was known: "
                    "branches of one object that meet later may have different numbers."
                )
        yield from self._emit(rows)

    def finish(self) -> Iterator[tuple[Tile, NDArray[Any]]]:
        if self._base >= 0:
            self._tidy()
            yield from self._emit(len(self._held))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return what `restore` needs: what JSON can hold, and arrays."""
        numbers = {
            "base": self._base,
            "first_id": self._first_id,
            "next_id": self._next_id,
            "counts": list(self._counts),
            "warned": self._warned,
            "open_from": self._open_from,
            "live": [[seen.box.bounds, seen.kept.bounds] for seen in self._live],
        }
        arrays: dict[str, NDArray[Any]] = {"held": self._held, "parents": self._parents, "final": self._final, "sizes": self._sizes}
        return numbers, arrays | {f"live {index}": seen.labels for index, seen in enumerate(self._live)}

    def restore(self, numbers: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on where another one with the same settings was when its `state` was taken."""
        self._base = int(numbers["base"])
        self._first_id, self._next_id = int(numbers["first_id"]), int(numbers["next_id"])
        self._counts, self._warned = [int(count) for count in numbers["counts"]], bool(numbers["warned"])
        self._open_from = numbers["open_from"]
        self._held, self._parents = arrays["held"], arrays["parents"]
        self._final, self._sizes = arrays["final"], arrays["sizes"]
        boxes = [[Tile(*(tuple(map(int, ends)) for ends in zip(*bounds, strict=True))) for bounds in pair] for pair in numbers["live"]]
        self._live = [_Seen(box, kept, arrays[f"live {index}"]) for index, (box, kept) in enumerate(boxes)]

    def _grow(self, count: int) -> None:
        """Make room for new provisional ids."""
        stop = len(self._parents) + count
        self._parents = np.concatenate([self._parents, np.arange(len(self._parents), stop)])
        self._final = np.concatenate([self._final, np.zeros(count, np.int64)])
        self._sizes = np.concatenate([self._sizes, np.zeros(count, np.int64)])

    def _compare(self, other: _Seen, box: Tile, ids: NDArray[np.int32]) -> None:
        start = tuple(map(max, box.start, other.box.start))
        shared = Tile(start, tuple(map(min, box.stop, other.box.stop)))
        first = other.labels[shared.relative_to(other.box.start).slices]
        second = ids[shared.relative_to(box.start).slices]
        cut = (_cut(first, shared, other.box, box), _cut(second, shared, box, other.box))
        for one, two in same(first, second, self._match, cut=cut):
            small, large = sorted((self._root(one), self._root(two)))
            if small == large:
                continue
            self._parents[large] = small
            if self._final[small] and self._final[large]:
                continue  # both were given in part; they stay two where that was
            self._final[small] = self._final[small] or self._final[large]

    def _root(self, provisional: int) -> int:
        while self._parents[provisional] != provisional:
            provisional = int(self._parents[provisional])
        return provisional

    def _tidy(self) -> None:
        """Give each object one provisional id, from 1 on, and forget those that nothing holds."""
        count = len(self._parents)
        roots = self._parents
        while not np.array_equal(roots, deeper := roots[roots]):
            roots = deeper
        used = np.zeros(count, bool)
        for array in (self._held, *(seen.labels for seen in self._live)):
            used[roots[array.ravel()]] = True
        used[0] = True
        kept = np.flatnonzero(used)
        numbers = np.zeros(count, np.int32)
        numbers[kept] = np.arange(len(kept), dtype=np.int32)
        table = numbers[roots]
        sizes = np.bincount(roots, weights=self._sizes, minlength=count).astype(np.int64)
        self._held = table[self._held]
        self._live = [_Seen(seen.box, seen.kept, table[seen.labels]) for seen in self._live]
        self._parents, self._final, self._sizes = np.arange(len(kept)), self._final[kept], sizes[kept]

    def _open_row(self) -> int:
        """Return the first row, among those held, with an object that a later tile may show more of."""
        following = self._open_from
        if following is None:
            return len(self._held)
        is_open = np.zeros(len(self._parents), bool)
        for seen in self._live:
            is_open[seen.below(following).ravel()] = True
        is_open[0] = False
        rows = np.flatnonzero(is_open[self._held].any(axis=tuple(range(1, self._held.ndim))))
        return int(rows[0]) if len(rows) else len(self._held)

    def _emit(self, rows: int) -> Iterator[tuple[Tile, NDArray[np.int32]]]:
        """Give final ids to the first rows that are held, and let them go."""
        if not rows:
            return
        labels = self._held[:rows]
        values, order = first_seen(labels)
        for provisional in values[order]:
            if not self._final[provisional] and self._sizes[provisional] >= self._min_size:
                self._final[provisional] = self._next_id
                self._next_id += 1
        result = self._final[labels].astype(np.int32)
        filled = int(np.count_nonzero(result))
        self._counts[1] += filled
        self._counts[0] += result.size - filled
        region = Tile((self._base, *(0 for _ in self._shape[1:])), (self._base + rows, *self._shape[1:]))
        self._base += rows
        self._held = self._held[rows:].copy()  # a view would keep all of it alive
        yield region, result


def same(
    first: NDArray[Any], second: NDArray[Any], match: float, *, cut: tuple[NDArray[Any], NDArray[Any]] | None = None
) -> list[tuple[int, int]]:
    """Return which objects of two label arrays of the same pixels are one.

    Parameters
    ----------
    first, second : ndarray of int, of equal shape
        0 is background.
    match : float
        Least share of the smaller object, of those pixels, that the other one must hold.
    cut : pair of ndarray of int, optional
        Objects, of either array, that go on beyond the border of their own tile, but not of the other's.

    Returns
    -------
    list of (int, int)
        Pairs of which each is the one that the other shares most pixels with; for an object that is cut it is enough that it
        shares most with the other, of which it may be one of several pieces.
    """
    both = (first > 0) & (second > 0)
    if not both.any():
        return []
    pairs, shared = np.unique(np.stack([first[both], second[both]]), axis=1, return_counts=True)
    of_first, of_second = (np.unique(array, return_counts=True) for array in (first, second))
    sizes = [counts[np.searchsorted(ids, of)] for (ids, counts), of in zip((of_first, of_second), pairs, strict=True)]
    order = np.argsort(-shared, kind="stable")
    best = np.zeros(pairs.shape, bool)
    for whether, ids in zip(best, pairs, strict=True):
        whether[order[np.unique(ids[order], return_index=True)[1]]] = True
    one = best.all(0)
    for whether, ids, pieces in zip(best, pairs, cut or (), strict=False):
        one |= whether & np.isin(ids, pieces)
    one &= shared >= match * np.minimum(*sizes)
    return [(int(a), int(b)) for a, b in pairs[:, one].T]


def _cut(labels: NDArray[np.int32], shared: Tile, box: Tile, other: Tile) -> NDArray[np.int32]:
    """Return the objects in a shared strip that touch a side of their own tile which lies inside the other one."""
    sides = [labels[:0].ravel()]
    for axis in range(labels.ndim):
        if box.start[axis] > other.start[axis]:
            sides.append(labels.take(0, axis).ravel())
        if box.stop[axis] < other.stop[axis]:
            sides.append(labels.take(-1, axis).ravel())
    return np.unique(np.concatenate(sides))


def _touch(first: Tile, second: Tile) -> bool:
    """Whether two boxes share a pixel or a border."""
    return all(max(a, c) <= min(b, d) for a, b, c, d in zip(first.start, first.stop, second.start, second.stop, strict=True))
