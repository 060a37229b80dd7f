"""``edit_of``: what somebody painted with napari's own brush, as an `Edit` like those of our tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.refine.delta import Delta, Edit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["edit_of"]


def edit_of(item: Sequence[Any], data: Any, tool: str = "paint") -> Edit:
    """Return one step of napari's history as an edit.

    napari tells of a step before it writes it (a fill) or after (a stroke), so that what is in the array now is no help: both
    sides are made of the step itself.

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
        Without deltas where nothing changed.
    """
    boxes = [_box(atom, data.shape) for atom in item]
    boxes = [box for box in boxes if all(start < stop for start, stop in box)]
    if not boxes:
        return Edit(tool, ())
    whole = tuple((min(box[axis][0] for box in boxes), max(box[axis][1] for box in boxes)) for axis in range(len(data.shape)))
    start = tuple(low for low, _ in whole)
    before = np.array(data[tuple(slice(*span) for span in whole)])
    for atom in reversed(item):
        _put(atom, before, start, old=True)
    after = before.copy()
    for atom in item:
        _put(atom, after, start, old=False)
    delta = Delta.between(start, before, after)
    return Edit(tool, (delta,) if delta is not None else ())


def _box(atom: Any, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return start and stop along each axis of what one change touches."""
    index = atom[0]
    if all(isinstance(part, slice) for part in index):
        return tuple(part.indices(size)[:2] for part, size in zip(index, shape, strict=True))
    parts = [np.atleast_1d(np.asarray(part)) for part in index]
    if any(part.size == 0 for part in parts):
        return tuple((0, 0) for _ in shape)
    return tuple((int(part.min()), int(part.max()) + 1) for part in parts)


def _put(atom: Any, block: NDArray[Any], start: tuple[int, ...], *, old: bool) -> None:
    """Write one side of a change into the block of labels that begins at `start`."""
    index = atom[0]
    if len(atom) == 3:
        inside = tuple(np.asarray(part) - low for part, low in zip(index, start, strict=True))
        block[inside] = atom[1] if old else atom[2]
        return
    _, mask, before, after = atom
    box = tuple(slice(part.start - low, part.stop - low) for part, low in zip(index, start, strict=True))
    part = block[box]
    if mask is None:
        part[...] = before if old else after
    else:
        part[mask] = before if old else after
