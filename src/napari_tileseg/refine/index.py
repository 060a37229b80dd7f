"""``ObjectIndex``: where each object lies and how large it is, kept true by every edit without looking at the whole again.

Sizes are added up from what an edit says. Boxes grow the same way. Where an edit takes away pixels at the face of a box that it
does not contain, that face becomes loose: it is an outer bound, drawn in by reading the labels when the box is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import Cancelled, InputError, OptionsError
from napari_tileseg.refine.blocks import Box, blocks
from napari_tileseg.refine.census import census, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.census import Census
    from napari_tileseg.refine.delta import Change

__all__ = ["ObjectIndex", "Position"]

Position = tuple[int, ...]
"""Where along the axes over which objects do not extend (time), in their order; ``()`` if there are none."""

_THICKNESS = 16
"""Pixels of a slab that is read when a loose face is drawn in."""


class ObjectIndex:
    """All objects of labels. An object is an id at one position: one time point, or one plane of a stack of planes.

    Parameters
    ----------
    data : array-like of int
        The labels; read again only at loose faces of boxes.
    space : tuple of int
        The axes over which objects extend, ascending.
    chunks : tuple of int, optional
        Of the labels, so that the first pass reads each chunk once.
    cancel : callable, optional
        Asked while the labels are looked through; True stops it.

    Raises
    ------
    Cancelled
    """

    def __init__(
        self, data: Any, space: tuple[int, ...], *, chunks: Sequence[int] | None = None, cancel: Callable[[], bool] | None = None
    ) -> None:
        self._data, self._space = data, space
        self._outer = tuple(axis for axis in range(len(data.shape)) if axis not in space)
        self._frames: dict[Position, _Frame] = {}
        self._highest = 0
        whole = tuple(slice(0, int(size)) for size in data.shape)
        for position in np.ndindex(*(int(data.shape[axis]) for axis in self._outer)):
            parts: list[Census] = []
            box = list(whole)
            for axis, at in zip(self._outer, position, strict=True):
                box[axis] = slice(at, at + 1)
            for part in blocks(tuple(box), chunks):
                if cancel is not None and cancel():
                    raise Cancelled("Looking for the objects was cancelled.")
                parts.append(self._census(np.asarray(data[part]), part))
                if len(parts) > 64:
                    parts = [joined(parts)]
            self._frame(position).fill(joined(parts))
        self._highest = max((frame.highest for frame in self._frames.values()), default=0)

    def ids(self, at: Position | None = None) -> NDArray[Any]:
        """Return all ids, ascending; those at one position if that is given."""
        if at is not None:
            return self._at(at).ids()
        return np.unique(np.concatenate([frame.ids() for frame in self._frames.values()] or [np.zeros(0, np.int64)]))

    def table(self, at: Position) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Return ids, ascending, and the number of pixels of each, at one position."""
        return self._at(at).table()

    def positions(self, object_id: int | None = None) -> list[Position]:
        """Return all positions, or those at which an id is."""
        return [position for position, frame in self._frames.items() if object_id is None or object_id in frame.rows]

    def __contains__(self, object_id: int) -> bool:
        return any(object_id in frame.rows for frame in self._frames.values())

    def __len__(self) -> int:
        """Return the number of objects: of ids at positions."""
        return sum(len(frame.rows) for frame in self._frames.values())

    def size(self, object_id: int, at: Position | None = None) -> int:
        """Return the pixels of an object; 0 if it is not there."""
        frames = self._frames.values() if at is None else [self._at(at)]
        return sum(frame.size(object_id) for frame in frames)

    def box(self, object_id: int, at: Position | None = None) -> Box:
        """Return the smallest box around an object: one slice for each axis of the labels.

        Parameters
        ----------
        object_id : int
        at : Position, optional
            Without it, the box around the id at all positions where it is.

        Raises
        ------
        InputError
            If there is no such object.
        """
        positions = self.positions(object_id) if at is None else [at]
        found = [self._tight(position, object_id) for position in positions if object_id in self._at(position).rows]
        if not found:
            raise InputError(f"There is no object {object_id}. Choose another one.")
        first = np.min([first for first, _ in found], axis=0)
        stop = np.max([stop for _, stop in found], axis=0)
        return tuple(slice(int(a), int(b)) for a, b in zip(first, stop, strict=True))

    def bound(self, object_id: int, at: Position) -> Box:
        """Return a box that holds an object, without reading anything; it may be larger than needed."""
        frame = self._at(at)
        row = frame.rows[object_id]
        return self._full(at, frame.first[row], frame.stop[row])

    def free_id(self) -> int:
        """Return an id that no object has."""
        return self.free_ids(1)[0]

    def free_ids(self, count: int) -> list[int]:
        """Return that many ids that no object has: above all that ever were, so that what is known of old ones is not taken over.

        Raises
        ------
        OptionsError
            If the labels' type has no room for them.
        """
        dtype = np.dtype(self._data.dtype)
        limit = int(np.iinfo(dtype).max)
        if self._highest + count <= limit:
            return list(range(self._highest + 1, self._highest + 1 + count))
        if limit < 1 << 20:  # few enough to look for gaps
            gaps = np.setdiff1d(np.arange(1, limit + 1), self.ids())
            if len(gaps) >= count:
                return [int(gap) for gap in gaps[:count]]
        raise OptionsError(
            f"The labels are {dtype}, whose largest number is {limit}, and no number is free for a new object. "
            "Convert the layer to a larger type (right-click it, Convert data type)."
        )

    def update(self, delta: Change, *, undone: bool = False) -> None:
        """Take over what a delta has changed.

        Parameters
        ----------
        delta : Delta or PackedDelta
        undone : bool
            Whether it was undone rather than done.
        """
        before, after = (delta.after, delta.before) if undone else (delta.before, delta.after)
        box = delta.box
        for offset in np.ndindex(*(before.shape[axis] for axis in self._outer)):
            part = list(box)
            inside = [slice(None)] * before.ndim
            for axis, at in zip(self._outer, offset, strict=True):
                part[axis] = slice(box[axis].start + at, box[axis].start + at + 1)
                inside[axis] = slice(at, at + 1)
            position = tuple(part[axis].start for axis in self._outer)
            old = self._census(before[tuple(inside)], tuple(part))
            new = self._census(after[tuple(inside)], tuple(part))
            self._frame(position).replace(old, new)
            self._highest = max(self._highest, int(new.ids[-1]) if len(new) else 0)

    def _census(self, block: NDArray[Any], box: Box) -> Census:
        """Count a block of one position, along the axes of space only."""
        return census(block.reshape([block.shape[axis] for axis in self._space]), [box[axis].start for axis in self._space])

    def _frame(self, position: Position) -> _Frame:
        if position not in self._frames:
            self._frames[position] = _Frame(len(self._space))
        return self._frames[position]

    def _at(self, position: Position) -> _Frame:
        if position not in self._frames:
            raise InputError(f"There is nothing at position {position}; the labels have shape {tuple(self._data.shape)}.")
        return self._frames[position]

    def _full(self, position: Position, first: Sequence[Any], stop: Sequence[Any]) -> Box:
        box = [slice(0, 0)] * len(self._data.shape)
        for axis, at in zip(self._outer, position, strict=True):
            box[axis] = slice(at, at + 1)
        for axis, a, b in zip(self._space, first, stop, strict=True):
            box[axis] = slice(int(a), int(b))
        return tuple(box)

    def _tight(self, position: Position, object_id: int) -> tuple[list[int], list[int]]:
        """Draw in the loose faces of a box, and return where it begins and ends along all axes."""
        frame = self._frames[position]
        row = frame.rows[object_id]
        for side in (0, 1):
            for place, axis in enumerate(self._space):
                if frame.loose[row, side, place]:
                    box = self._full(position, frame.first[row], frame.stop[row])
                    face = self._face(object_id, box, axis, last=bool(side))
                    (frame.stop if side else frame.first)[row, place] = face
                    frame.loose[row, side, place] = False
        box = self._full(position, frame.first[row], frame.stop[row])
        return [part.start for part in box], [part.stop for part in box]

    def _face(self, object_id: int, box: Box, axis: int, *, last: bool) -> int:
        slabs = list(_slabs(box[axis]))
        for slab in reversed(slabs) if last else slabs:
            part = np.asarray(self._data[(*box[:axis], slab, *box[axis + 1 :])]) == object_id
            along = np.flatnonzero(part.any(axis=tuple(other for other in range(part.ndim) if other != axis)))
            if len(along):
                return int(slab.start + (along[-1] if last else along[0]) + last)
        raise InputError(f"Object {object_id} is no longer where it was: the labels were changed from elsewhere. Choose them again.")


def _slabs(part: slice) -> Iterator[slice]:
    for start in range(part.start, part.stop, _THICKNESS):
        yield slice(start, min(start + _THICKNESS, part.stop))


class _Frame:
    """The objects of one position, in arrays that grow."""

    def __init__(self, ndim: int) -> None:
        self.rows: dict[int, int] = {}
        self.sizes = np.zeros(0, np.int64)
        self.first = np.zeros((0, ndim), np.int64)
        self.stop = np.zeros((0, ndim), np.int64)
        self.loose = np.zeros((0, 2, ndim), np.bool_)
        self._free: list[int] = []

    @property
    def highest(self) -> int:
        return int(max(self.rows, default=0))

    def fill(self, found: Census) -> None:
        self.rows = {object_id: row for row, object_id in enumerate(found.ids.tolist())}
        self.sizes, self.first, self.stop = found.sizes.copy(), found.first.copy(), found.stop.copy()
        self.loose = np.zeros((len(found), 2, self.first.shape[1]), np.bool_)

    def size(self, object_id: int) -> int:
        row = self.rows.get(object_id)
        return 0 if row is None else int(self.sizes[row])

    def ids(self) -> NDArray[Any]:
        return np.array(sorted(self.rows), dtype=np.int64 if not self.rows or max(self.rows) < 1 << 63 else np.uint64)

    def table(self) -> tuple[NDArray[Any], NDArray[np.int64]]:
        ids = self.ids()
        return ids, self.sizes[[self.rows[object_id] for object_id in ids.tolist()]] if len(ids) else np.zeros(0, np.int64)

    def replace(self, old: Census, new: Census) -> None:
        """Take over that a box held `old` and holds `new`."""
        was = {object_id: row for row, object_id in enumerate(old.ids.tolist())}
        now = {object_id: row for row, object_id in enumerate(new.ids.tolist())}
        for object_id in was.keys() | now.keys():
            a, b = was.get(object_id), now.get(object_id)
            if a is not None and b is not None and _alike(old, a, new, b):
                continue
            lost = 0 if a is None else int(old.sizes[a])
            gained = 0 if b is None else int(new.sizes[b])
            row = self.rows.get(object_id)
            if row is None:
                row = self._add(object_id)
            contained = int(self.sizes[row]) == lost
            self.sizes[row] += gained - lost
            if self.sizes[row] <= 0:
                self._free.append(self.rows.pop(object_id))
            elif contained:
                self.first[row], self.stop[row], self.loose[row] = new.first[b], new.stop[b], False
            else:
                self._stretch(row, old, a, new, b)

    def _stretch(self, row: int, old: Census, a: int | None, new: Census, b: int | None) -> None:
        """Widen a box by what came; loosen the faces at which something went and nothing came."""
        if a is not None:
            self.loose[row, 0] |= old.first[a] == self.first[row]
            self.loose[row, 1] |= old.stop[a] == self.stop[row]
        if b is not None:
            self.loose[row, 0] &= new.first[b] > self.first[row]
            self.loose[row, 1] &= new.stop[b] < self.stop[row]
            self.first[row] = np.minimum(self.first[row], new.first[b])
            self.stop[row] = np.maximum(self.stop[row], new.stop[b])

    def _add(self, object_id: int) -> int:
        if not self._free:
            room = max(64, len(self.sizes))
            self._free = list(range(len(self.sizes), len(self.sizes) + room))[::-1]
            self.sizes = np.concatenate([self.sizes, np.zeros(room, np.int64)])
            self.first = np.concatenate([self.first, np.zeros((room, self.first.shape[1]), np.int64)])
            self.stop = np.concatenate([self.stop, np.zeros((room, self.stop.shape[1]), np.int64)])
            self.loose = np.concatenate([self.loose, np.zeros((room, *self.loose.shape[1:]), np.bool_)])
        row = self._free.pop()
        self.rows[object_id] = row
        self.sizes[row] = 0
        self.loose[row] = False
        return row


def _alike(old: Census, a: int, new: Census, b: int) -> bool:
    same: bool = old.sizes[a] == new.sizes[b]
    return same and bool((old.first[a] == new.first[b]).all() and (old.stop[a] == new.stop[b]).all())
