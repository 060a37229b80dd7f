"""``edit_of``: what somebody painted with napari's own brush, as an `Edit` like those of our tools."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.refine.blocks import Box, shifted
from napari_tileseg.refine.delta import Change, Delta, Edit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["edit_of"]

_SIDES = {0: 1 << 18, 1: 1 << 18, 2: 512, 3: 64}
"""Pixels along each axis of a block, by the number of axes that a step extends over; blocks stay small enough for the cache."""

_SHORT = 16
"""The same where it extends over more axes."""


def edit_of(item: Sequence[Any], data: Any, tool: str = "paint") -> Edit:
    """Return one step of napari's history as an edit.

    napari tells of a step before it writes it (a fill) or after (a stroke), so that what is in the array now is no help: both
    sides are made of the step itself. A long stroke fills little of the box around it; only the blocks of the array that it touches
    are looked at.

    Parameters
    ----------
    item : sequence
        What the layer's event ``paint`` brings: changes of one step, in order. Each is (indices, values before, value after),
        or, since napari 0.9, (box, mask, values before, value after).
    data : array-like
        The layer's array.
    tool : str
        What to call the edit.

    Returns
    -------
    Edit
        Compressed; its boxes lie apart. Without deltas where nothing changed.
    """
    atoms = [(atom, box) for atom in item if (box := _box(atom, data.shape)) is not None]
    if not atoms:
        return Edit(tool, ())
    grid = _Grid([box for _, box in atoms])
    before: dict[tuple[int, ...], NDArray[Any]] = {}
    for atom, box in reversed(atoms):
        for cell in grid.touched(atom, box):
            if cell not in before:
                before[cell] = np.array(data[grid.box(cell)])
        _put(atom, box, grid, before, old=True)
    after = {cell: block.copy() for cell, block in before.items()}
    for atom, box in atoms:
        _put(atom, box, grid, after, old=False)
    deltas: list[Change] = []
    for cell in sorted(before):
        delta = Delta.between([part.start for part in grid.box(cell)], before.pop(cell), after.pop(cell))
        if delta is not None:
            deltas.append(delta.packed())
    return Edit(tool, tuple(deltas))


class _Grid:
    """The blocks of the array in the box around all changes of a step; a cell is the number of a block along each axis."""

    def __init__(self, boxes: Sequence[Box]) -> None:
        self.whole: Box = tuple(
            slice(min(part.start for part in parts), max(part.stop for part in parts)) for parts in zip(*boxes, strict=True)
        )
        self.side = _SIDES.get(sum(part.stop - part.start > 1 for part in self.whole), _SHORT)

    def box(self, cell: tuple[int, ...]) -> Box:
        """Return where a block lies in the array."""
        return tuple(
            slice(max(at * self.side, part.start), min((at + 1) * self.side, part.stop)) for at, part in zip(cell, self.whole, strict=True)
        )

    def cells(self, box: Box) -> Iterator[tuple[int, ...]]:
        """Return the blocks that a box touches."""
        return itertools.product(*(range(part.start // self.side, (part.stop - 1) // self.side + 1) for part in box))

    def touched(self, atom: Any, box: Box) -> Iterator[tuple[int, ...]]:
        """Return the blocks that one change touches."""
        if len(atom) == 3:
            yield from (cell for cell, _ in self.sorted(atom[0]))
            return
        for cell in self.cells(box):
            if atom[1] is None or atom[1][shifted(_shared(self.box(cell), box), [part.start for part in box])].any():
                yield cell

    def sorted(self, index: Sequence[Any]) -> Iterator[tuple[tuple[int, ...], NDArray[np.intp]]]:
        """Return for each block that pixels lie in which of them do, in their order."""
        cells = np.stack(np.broadcast_arrays(*(np.atleast_1d(np.asarray(part)) for part in index))).reshape(len(index), -1) // self.side
        order = np.lexsort(cells[::-1])  # stable: of a pixel that is told twice the last value counts
        ordered = cells[:, order]
        ends = np.flatnonzero((ordered[:, 1:] != ordered[:, :-1]).any(axis=0)) + 1
        for part in np.split(order, ends):
            yield tuple(int(at) for at in cells[:, part[0]]), part


def _box(atom: Any, shape: tuple[int, ...]) -> Box | None:
    """Return what one change touches; None for nothing."""
    index = atom[0]
    if all(isinstance(part, slice) for part in index):
        box = tuple(slice(*part.indices(size)[:2]) for part, size in zip(index, shape, strict=True))
        return box if all(part.start < part.stop for part in box) else None
    parts = [np.atleast_1d(np.asarray(part)) for part in index]
    if any(part.size == 0 for part in parts):
        return None
    return tuple(slice(int(part.min()), int(part.max()) + 1) for part in parts)


def _put(atom: Any, box: Box, grid: _Grid, blocks: dict[tuple[int, ...], NDArray[Any]], *, old: bool) -> None:
    """Write one side of a change into the blocks that it touches."""
    if len(atom) == 3:
        values = np.asarray(atom[1] if old else atom[2])
        index = [axis.ravel() for axis in np.broadcast_arrays(*(np.atleast_1d(np.asarray(part)) for part in atom[0]))]
        values = np.broadcast_to(values, index[0].shape) if values.size == 1 else values.ravel()
        for cell, part in grid.sorted(index):
            first = [side.start for side in grid.box(cell)]
            blocks[cell][tuple(axis[part] - at for axis, at in zip(index, first, strict=True))] = values[part]
        return
    _, mask, before, after = atom
    values, shape = np.asarray(before if old else after), tuple(part.stop - part.start for part in box)
    if mask is not None and values.size != 1:
        spread = np.zeros(shape, values.dtype)
        spread[mask] = values
        values = spread
    values = np.broadcast_to(values.reshape(()) if values.size == 1 else values, shape)
    for cell in grid.cells(box):
        block = blocks.get(cell)
        if block is None:  # the mask leaves it out
            continue
        place = grid.box(cell)
        shared = _shared(place, box)
        inside = shifted(shared, [part.start for part in box])
        target = block[shifted(shared, [part.start for part in place])]
        np.copyto(target, values[inside], where=True if mask is None else mask[inside], casting="unsafe")


def _shared(one: Box, other: Box) -> Box:
    return tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
