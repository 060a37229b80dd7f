"""``Objects``: instances decoded while the scores arrive, equal to those of the whole image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_tileseg.engine.decoders import NOTHING, rim_of
from napari_tileseg.engine.tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from numpy.typing import NDArray

    from napari_tileseg.engine.decoders import ObjectDecoder

__all__ = ["Objects", "first_seen", "renumber"]


class Objects:
    """Decode each connected component of the foreground as soon as no later score can touch it.

    ::

        first axis
          |         aa             emitted; the last `margin` rows of it are kept as surroundings
          v         aa
              ------aa-------- frontier: no open component reaches above
                    aa  cc     a: settled; its labels below the frontier wait
                    aa  cc
                bb      cc     b: complete, but decoded when c lets it be emitted
                bb      cc
                        cc     c: open, it reaches the last `margin` + 1 rows
              ---------------- end of the scores so far

    Objects get their final ids when their first row is emitted, in the order in which a scan of the image meets them. So the
    result depends neither on how the scores were cut nor on when objects were settled.

    A component taller than `limit` rows is not waited for: objects in it that keep away from the open end are taken as they
    are, and a warning says so.

    Parameters
    ----------
    decoder : ObjectDecoder
        What makes objects of scores.
    parameters : mapping of str to float
        Its parameters.
    shape : tuple of int, optional
        Of the whole image, for decoders that ask for it, see `ObjectDecoder`.
    classes : list of str
        Background and the class of the objects.
    threshold : float
        Least score that counts, passed on.
    min_size : float
        Smaller objects go (pixels), passed on.
    first_id : int
        Id of the first object.
    limit : int
        Most rows (pixels of the first axis) to hold back.
    """

    normalized = True

    def __init__(
        self,
        decoder: ObjectDecoder,
        parameters: Mapping[str, float],
        *,
        shape: tuple[int, ...] | None = None,
        classes: list[str],
        threshold: float = 0.5,
        min_size: float = 0,
        first_id: int = 1,
        limit: int = 4096,
    ) -> None:
        self._decoder, self._parameters = decoder, dict(parameters)
        self._threshold, self._min_size = threshold, min_size
        self._classes, self._limit = classes, limit
        self._placed = {f"size_{axis}": float(size) for axis, size in enumerate(shape or ())} if getattr(decoder, "placed", False) else {}
        self._margin = int(decoder.margin(self._parameters))
        self._first_id = self._next_id = first_id
        self._counts = [0, 0]
        self._warnings: list[str] = []
        self._warned = False
        self._base = self._frontier = 0
        self._scores: NDArray[np.float32] | None = None
        self._labels: NDArray[np.int32] = np.empty(0, dtype=np.int32)  # provisional ids, one row for each row of scores
        self._done: NDArray[np.bool_] = np.empty(0, dtype=np.bool_)  # foreground that is settled
        self._provisional = 0
        self._final: dict[int, int] = {}  # ids of objects that are emitted in part

    @property
    def objects(self) -> int | None:
        return self._next_id - self._first_id

    @property
    def voxels(self) -> dict[str, int]:
        foreground = self._classes[1] if len(self._classes) > 1 else "objects"
        return {self._classes[0]: self._counts[0], foreground: self._counts[1]}

    def warnings(self) -> list[str]:
        told, self._warnings = self._warnings, []
        return told

    def add(self, region: Tile, scores: torch.Tensor) -> Iterator[tuple[Tile, NDArray[Any]]]:
        """Take the next rows of scores, shape (K, *region.shape); yield the labels that are final now (int32)."""
        block = scores.cpu().numpy()
        blank = block.shape[1:]
        self._bare(block, region.start[0])
        if self._scores is None:
            self._base = self._frontier = region.start[0]
            # The source of `block` is used again for other rows, and concatenation copies it in the other branch.
            self._scores, self._labels, self._done = block.copy(), np.zeros(blank, np.int32), np.zeros(blank, np.bool_)
        else:
            self._scores = np.concatenate([self._scores, block], axis=1)
            self._labels = np.concatenate([self._labels, np.zeros(blank, np.int32)])
            self._done = np.concatenate([self._done, np.zeros(blank, np.bool_)])
        frontier = self._settle(final=False)
        if len(self._labels) - frontier > self._limit:
            frontier = self._cut()
        yield from self._emit(frontier)

    def finish(self) -> Iterator[tuple[Tile, NDArray[Any]]]:
        if self._scores is not None:
            rows = self._base + len(self._labels)
            self._scores[0, len(self._labels) - self._rim(0, rows)[1] :] = NOTHING
            yield from self._emit(self._settle(final=True))

    def _rim(self, axis: int, size: int) -> tuple[int, int]:
        """Return how much of the first score does not count before and after an image of that size along an axis."""
        return rim_of(self._decoder, self._parameters, axis, self._labels.ndim, size)

    def _bare(self, block: NDArray[np.float32], start: int) -> None:
        """Take the first score from the rim of the image, where the decoder has one; the end of it is not known yet."""
        self._labels = self._labels if self._labels.ndim == block.ndim - 1 else np.empty((0,) * (block.ndim - 1), np.int32)
        block[0, : max(0, self._rim(0, start + block.shape[1])[0] - start)] = NOTHING
        for axis, size in enumerate(block.shape[2:], start=1):
            before, after = self._rim(axis, size)
            sides = np.moveaxis(block[0], axis, 0)
            sides[:before] = sides[size - after :] = NOTHING

    @property
    def held(self) -> tuple[int, int]:
        """Start and stop, on the first axis, of the scores that are still needed."""
        return (self._base, self._base + len(self._labels)) if self._scores is not None else (0, 0)

    def scores(self, start: int) -> NDArray[np.float32]:
        """Return the scores that are held from row `start` on, shape (K, rows, *rest); a view."""
        assert self._scores is not None  # asked only for rows in `held`
        return self._scores[:, start - self._base :]

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return, apart from the scores, what `restore` needs: what JSON can hold, and small arrays.

        Labels and settled foreground are cut after their last row that is not empty: mostly only the few objects that
        reach across the frontier are in them.
        """
        numbers = {
            "frontier": self._frontier,
            "first_id": self._first_id,
            "next_id": self._next_id,
            "counts": list(self._counts),
            "warned": self._warned,
            "provisional": self._provisional,
            "final": sorted(self._final.items()),
        }
        filled = np.flatnonzero(self._done.any(axis=tuple(range(1, self._done.ndim))))
        rows = int(filled[-1]) + 1 if len(filled) else 0
        return numbers, {"labels": self._labels[:rows], "done": self._done[:rows]}

    def restore(self, numbers: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], base: int, scores: NDArray[np.float32]) -> None:
        """Go on where another decoder with the same settings was when its `state` was taken.

        Parameters
        ----------
        numbers, arrays
            From `state`.
        base : int
            The first row of `scores`, as `held` gave it.
        scores : ndarray of float32, shape (K, rows, *rest)
            Of all rows that were held.
        """
        self._base, self._frontier = base, int(numbers["frontier"])
        self._first_id, self._next_id = int(numbers["first_id"]), int(numbers["next_id"])
        self._counts, self._warned = [int(count) for count in numbers["counts"]], bool(numbers["warned"])
        self._provisional = int(numbers["provisional"])
        self._final = {int(provisional): int(final) for provisional, final in numbers["final"]}
        self._scores = scores
        self._bare(scores, base)
        self._labels, self._done = np.zeros(scores.shape[1:], np.int32), np.zeros(scores.shape[1:], np.bool_)
        self._labels[: len(arrays["labels"])] = arrays["labels"]
        self._done[: len(arrays["done"])] = arrays["done"]

    def _settle(self, *, final: bool) -> int:
        """Decode complete components above the open ones; return the first row (in the buffer) that an open one reaches."""
        assert self._scores is not None  # set by `add`
        rows = len(self._labels)
        foreground = self._decoder.foreground(self._scores, self._parameters, self._threshold) & ~self._done
        components, count = ndimage.label(foreground, structure=np.ones((3,) * foreground.ndim, dtype=bool))
        settled = np.ones(count + 1, dtype=bool)
        settled[0] = False
        secure = rows if final else max(rows - 1 - self._margin, 0)
        settled[components[secure:].ravel()] = False
        starts, stops = _spans(components)
        frontier = int(min([secure, *starts[~settled[1:]]]))
        # What starts below the frontier cannot be emitted yet: decoding it waits until it can, and is done once.
        settled[1:] &= starts < frontier
        if settled.any() and frontier > self._frontier - self._base:
            top = max(int(starts[settled[1:]].min()) - self._margin, 0)
            bottom = min(int(stops[settled[1:]].max()) + self._margin, rows)
            self._take(top, bottom, settled[components[top:bottom]])
            self._done |= settled[components]
        return frontier

    def _take(self, top: int, bottom: int, where: NDArray[np.bool_]) -> None:
        """Decode some rows and keep the objects in a mask, under provisional ids."""
        found = np.where(where, self._decode(top, bottom), 0)
        ids, count = renumber(found)
        self._labels[top:bottom] += np.where(ids > 0, ids + np.int32(self._provisional), np.int32(0))
        self._provisional += count

    def _cut(self) -> int:
        """Settle what can be settled of components that are too tall; return the first row that is still open."""
        if not self._warned:
            self._warned = True
            self._warnings.append(
                f"Touching objects reach over more than {self._limit} rows, so some were separated before all of them was known: "
                "outlines there may differ slightly from those of the whole image."
            )
        rows = len(self._labels)
        found = np.where(self._done, 0, self._decode(0, rows))
        open_ids = np.unique(found[max(rows - 1 - self._margin, 0) :])
        is_open = np.isin(found, open_ids[open_ids > 0])
        open_rows = np.flatnonzero(is_open.any(axis=tuple(range(1, is_open.ndim))))
        first = int(open_rows[0]) if len(open_rows) else rows
        if first <= rows - self._limit:  # one object fills it all: it has to be cut in two
            is_open[:] = False
            first = rows
        ids, count = renumber(np.where(is_open, 0, found))
        self._labels += np.where(ids > 0, ids + np.int32(self._provisional), np.int32(0))
        self._provisional += count
        foreground = self._decoder.foreground(self._scores, self._parameters, self._threshold)  # type: ignore[arg-type]
        self._done |= foreground & ~is_open
        return first

    def _decode(self, top: int, bottom: int) -> NDArray[Any]:
        assert self._scores is not None  # set by `add`
        place = {"origin_0": float(self._base + top), **self._placed} if self._placed else {}
        parameters = {**self._parameters, **place}
        return self._decoder.decode(self._scores[:, top:bottom], parameters, threshold=self._threshold, min_size=self._min_size)

    def _emit(self, frontier: int) -> Iterator[tuple[Tile, NDArray[Any]]]:
        """Give final ids to the rows above the frontier, and forget what is no longer needed."""
        begin = self._frontier - self._base
        if frontier <= begin:
            return
        labels = self._labels[begin:frontier]
        self._counts[1] += int(np.count_nonzero(labels))
        self._counts[0] += labels.size - int(np.count_nonzero(labels))
        result = self._name(labels)
        region = Tile((self._frontier, *(0 for _ in labels.shape[1:])), (self._base + frontier, *labels.shape[1:]))
        self._frontier = self._base + frontier
        drop = max(frontier - self._margin, 0)
        self._base += drop
        assert self._scores is not None  # set by `add`
        # Copies, because a view would keep the whole buffer alive.
        self._scores = self._scores[:, drop:].copy()
        self._labels, self._done = self._labels[drop:].copy(), self._done[drop:].copy()
        waiting = set(np.unique(self._labels[frontier - drop :]).tolist())
        self._final = {provisional: final for provisional, final in self._final.items() if provisional in waiting}
        yield region, result

    def _name(self, labels: NDArray[np.int32]) -> NDArray[np.int32]:
        """Replace provisional ids by final ones."""
        values, order = first_seen(labels)
        table = np.zeros(len(values), dtype=np.int32)
        for index in order:
            provisional = int(values[index])
            if provisional not in self._final:
                self._final[provisional] = self._next_id
                self._next_id += 1
            table[index] = self._final[provisional]
        result = np.zeros(labels.shape, dtype=np.int32)
        mask = labels > 0
        result[mask] = table[np.searchsorted(values, labels[mask])]
        return result


def _spans(components: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the first row of each component, and the one after its last."""
    boxes = ndimage.find_objects(components)
    return np.array([box[0].start for box in boxes], dtype=np.intp), np.array([box[0].stop for box in boxes], dtype=np.intp)


def renumber(labels: NDArray[Any]) -> tuple[NDArray[np.int32], int]:
    """Give objects the ids 1, 2, 3, ... in the order in which a scan of the array meets them.

    Returns
    -------
    labels : ndarray of int32
        The same objects.
    count : int
        Their number.
    """
    values, order = first_seen(labels)
    table = np.zeros(len(values), dtype=np.int32)
    table[order] = np.arange(1, len(values) + 1, dtype=np.int32)
    result = np.zeros(labels.shape, dtype=np.int32)
    mask = labels > 0
    result[mask] = table[np.searchsorted(values, labels[mask])]
    return result, len(values)


def first_seen(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the ids above 0, sorted, and the order in which a scan meets them."""
    values, first = np.unique(labels[labels > 0], return_index=True)
    return values, np.argsort(first)
