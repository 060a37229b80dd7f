"""Here again: labels that were computed anew in a box, blended into the others as one step.

::

    box    +-----------------------+    computed with context around it, so that what is cut by its sides
           |  inner +-----------+  |    matters little;
           |        |           |  |    only `inner` is changed. An object that crosses its sides goes on outside
           |        +-----------+  |    under the id that it has there.
           +-----------------------+
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.blocks import clipped, shape_of, shifted
from napari_tileseg.refine.canvas import Place
from napari_tileseg.refine.draft import Draft
from napari_tileseg.refine.recolor import check_id, counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit

__all__ = ["blend", "in_classes"]

_TABLE = 1 << 22
"""Largest value for which a table of all values is made."""


def in_classes(found: NDArray[Any], names: Sequence[str], known: Mapping[str, int], *, masks: bool = False) -> NDArray[Any]:
    """Return what a model found in the values that other labels have for the same classes; classes that they do not know are background.

    Parameters
    ----------
    found : ndarray
        Numbers of classes (...), of which 0 is the background; or masks (K, ...), one for each class, of which later ones win.
    names : sequence of str
        The model's classes.
    known : mapping of str to int
        The classes of the labels, and their values.
    masks : bool

    Raises
    ------
    InputError
        If the labels know none of the classes.
    """
    values = [known.get(name, 0) for name in names]
    if not masks:
        values[0] = 0
    if not any(values):
        theirs = ", ".join(name for name, value in known.items() if value)
        given = ", ".join(names if masks else names[1:])
        raise InputError(f"The model gives {given}; these labels hold {theirs}. Choose a model of the same classes.")
    if not masks:
        return np.asarray(np.array(values, np.min_scalar_type(max(values)))[found])
    labels = np.zeros(found.shape[1:], np.min_scalar_type(max(values)))
    for mask, value in zip(found, values, strict=True):
        if value:
            labels[mask.astype(bool)] = value
    return labels


def blend(
    canvas: Canvas,
    box: Box,
    labels: NDArray[Any],
    *,
    inner: Box | None = None,
    least: float = 0.5,
    about: Mapping[str, Any] | None = None,
) -> Edit:
    """Put labels that were computed anew in place of the old ones.

    Parameters
    ----------
    canvas : Canvas
        Its `classes` says whether values are classes, which are taken as they are, or objects.
    box : Box
        What `labels` cover, one slice for each axis of the labels.
    labels : ndarray of int
        Of the box's size; axes of length 1 may be missing. Ids of objects have no meaning outside of it.
    inner : Box, optional
        The part that is replaced; all of `box` by default.
    least : float
        A new object keeps the id of an old one if they share at least that part of the smaller of the two; each id is kept by
        one object, the one that shares most. Other objects get new ids.
    about : mapping, optional
        What the labels' provenance is to say of it.

    Raises
    ------
    InputError
        If the labels do not cover the box, or the box lies outside of the canvas.
    """
    part = box if inner is None else inner
    sizes = shape_of(box)
    if len(box) != canvas.ndim or clipped(box, canvas.shape) != tuple(box) or 0 in sizes:
        raise InputError("The box is not inside the labels. Draw it there.")
    if labels.size != np.prod(sizes, dtype=np.int64) or [n for n in labels.shape if n > 1] != [n for n in sizes if n > 1]:
        raise InputError(f"The new labels have shape {labels.shape}, the box {sizes}.")
    local = shifted(part, [side.start for side in box])
    if 0 in shape_of(part) or clipped(local, sizes) != local:
        raise InputError("What is to be replaced is not inside the box that was computed.")
    if not 0 < least <= 1:
        raise OptionsError(f"least = {least} is not accepted: give a number above 0, up to 1.")
    new = labels.reshape(sizes)
    place = Place((None,) * canvas.ndim)
    draft = Draft(canvas)
    old = draft.read(place, box)
    if canvas.classes:
        highest = int(new.max())
        after = new.astype(canvas.dtype) if highest == 0 else new.astype(np.min_scalar_type(check_id(canvas, highest))).astype(canvas.dtype)
        pixels = draft.write(place, part, old[local], after[local])
        return replace(draft.edit("again", f"Changed {pixels} pixels in the box."), about=about or {})
    after, kept, fresh = _named(canvas, old, new, local, least)
    draft.write(place, part, old[local], after[local])
    return replace(draft.edit("again", f"{counted(kept + fresh).capitalize()} in the box, {fresh} of them new."), about=about or {})


def _named(canvas: Canvas, old: NDArray[Any], new: NDArray[Any], local: Box, least: float) -> tuple[NDArray[Any], int, int]:
    """Give new objects the ids of old ones, or free ones; return the labels, and how many got which."""
    ids, numbers = _numbered(new)
    inside = {int(number) for number in np.unique(numbers[local]) if ids[number]}
    old_ids, old_numbers = _numbered(old)
    pairs, places = _numbered(numbers * len(old_ids) + old_numbers)
    shared = np.bincount(places.ravel())
    new_sizes, old_sizes = np.bincount(numbers.ravel()), np.bincount(old_numbers.ravel())
    names: dict[int, int] = {}
    taken: set[int] = set()
    for pair in np.argsort(-shared, kind="stable"):
        mine, other = divmod(int(pairs[pair]), len(old_ids))
        smaller = min(int(new_sizes[mine]), int(old_sizes[other]))
        if mine in inside and old_ids[other] and mine not in names and other not in taken and shared[pair] >= least * smaller:
            names[mine] = int(old_ids[other])
            taken.add(other)
    others = sorted(inside - names.keys())
    kept = len(names)
    if others:
        names |= dict(zip(others, canvas.index.free_ids(len(others)), strict=True))
    table = np.zeros(len(ids), old.dtype)
    for number, name in names.items():
        table[number] = name
    return table[numbers], kept, len(others)


def _numbered(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the values that there are, ascending, and of each pixel the place of its value among them."""
    low, high = int(values.min()), int(values.max())
    if low >= 0 and high < _TABLE:  # no sorting
        there = np.bincount(values.ravel(), minlength=high + 1) > 0
        return np.flatnonzero(there), (np.cumsum(there) - 1)[values]
    found, places = np.unique(values, return_inverse=True)
    return found, places.reshape(values.shape)
