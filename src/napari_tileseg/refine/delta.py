"""``Delta`` and ``Edit``: what a step changes in labels, so that it can be done, undone, kept and counted.

A tool computes an `Edit` and changes nothing. An edit is a list of boxes before and after::

    Edit("merge", (Delta, Delta, ...), "Merged 2 objects.")
                     |
                     start (5, 120, 88)    before [[0 7 7]    after [[0 3 3]
                                                   [0 7 3]]          [0 3 3]]

The deltas of an edit are done in order and undone in the opposite order, so a later one may lie over an earlier one.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numcodecs.blosc import Blosc  # type: ignore[import-untyped]

from napari_tileseg.errors import InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box

__all__ = ["STALE", "Change", "Delta", "Edit", "PackedDelta"]

STALE = "The labels were changed since this step was prepared. Do the step again."
"""What is said when an edit no longer fits the labels it was made for."""

_CODEC = Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE)


class _Change:
    """What a delta is, however its values are kept."""

    if TYPE_CHECKING:  # a property here would become the default of a dataclass's field

        @property
        def start(self) -> tuple[int, ...]: ...
        @property
        def shape(self) -> tuple[int, ...]: ...
        @property
        def before(self) -> NDArray[Any]: ...
        @property
        def after(self) -> NDArray[Any]: ...

    @property
    def box(self) -> Box:
        """The part of the array that is written: one slice per axis."""
        return tuple(slice(first, first + size) for first, size in zip(self.start, self.shape, strict=True))

    @property
    def changed(self) -> NDArray[np.bool_]:
        """Where the two differ, an array of the shape of the box."""
        mask: NDArray[np.bool_] = self.before != self.after
        return mask

    def apply(self, array: Any) -> None:
        """Write what comes after into the box of an array (NumPy, Zarr, or whatever takes such an assignment)."""
        array[self.box] = self.after

    def revert(self, array: Any) -> None:
        """Write what was before."""
        array[self.box] = self.before


@dataclass(frozen=True, eq=False)
class Delta(_Change):
    """One box of a label array, before and after.

    Parameters
    ----------
    start : tuple of int
        Index of the box's first pixel, one per axis of the array.
    before, after : ndarray of int
        Of one shape and type; both as many axes as the array.
    """

    start: tuple[int, ...]
    before: NDArray[Any]
    after: NDArray[Any]

    @classmethod
    def between(cls, start: Sequence[int], before: NDArray[Any], after: NDArray[Any]) -> Delta | None:
        """Return the smallest delta between two boxes that begin at `start`; None if they are equal."""
        mask = before != after
        spans = []
        for axis in range(mask.ndim):
            along = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
            if not len(along):
                return None
            spans.append(slice(int(along[0]), int(along[-1]) + 1))
        box = tuple(spans)
        first = tuple(int(at) + part.start for at, part in zip(start, box, strict=True))
        return cls(first, before[box].copy(), after[box].astype(before.dtype))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.before.shape

    @property
    def nbytes(self) -> int:
        """Bytes of memory that this takes."""
        return self.before.nbytes + self.after.nbytes

    @cached_property
    def pixels(self) -> int:
        """How many pixels differ."""
        return int(np.count_nonzero(self.changed))

    def packed(self) -> PackedDelta:
        """Return the same, compressed."""
        return PackedDelta(self.start, self.shape, self.before.dtype, _pack(self.before), _pack(self.after), self.pixels)


@dataclass(frozen=True, eq=False)
class PackedDelta(_Change):
    """A delta whose values are compressed, and taken out where they are asked for.

    Parameters
    ----------
    start, shape : tuple of int
    dtype : numpy.dtype
    packed_before, packed_after : bytes
        Blosc, as `Delta.packed` makes them.
    pixels : int
        How many pixels differ.
    """

    start: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    packed_before: bytes
    packed_after: bytes
    pixels: int

    @property
    def before(self) -> NDArray[Any]:
        return self._unpack(self.packed_before)

    @property
    def after(self) -> NDArray[Any]:
        return self._unpack(self.packed_after)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that this takes."""
        return len(self.packed_before) + len(self.packed_after)

    def packed(self) -> PackedDelta:
        return self

    def inverse(self) -> PackedDelta:
        """Return what undoes it."""
        return PackedDelta(self.start, self.shape, self.dtype, self.packed_after, self.packed_before, self.pixels)

    def _unpack(self, packed: bytes) -> NDArray[Any]:
        return np.frombuffer(_CODEC.decode(packed), self.dtype).reshape(self.shape)


Change = Delta | PackedDelta
"""A delta, packed or not: both have ``start``, ``shape``, ``before``, ``after``, ``box``, ``changed``, ``pixels``, ``nbytes``."""


def _pack(values: NDArray[Any]) -> bytes:
    return bytes(_CODEC.encode(np.ascontiguousarray(values)))


@dataclass(frozen=True, eq=False)
class Edit:
    """One step for the user: all its deltas are done and undone together. An edit that changes nothing is falsy.

    Parameters
    ----------
    tool : str
        Name of what made it: ``"merge"``, ``"paint"``.
    deltas : tuple of Delta or PackedDelta
        In the order in which they are done.
    note : str
        The sentence to show: ``"Removed 14 of 86 objects."``
    about : mapping
        What the labels' provenance is to say of it, JSON-able; empty for nothing but that the tool was used.
    """

    tool: str
    deltas: tuple[Change, ...] = ()
    note: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.deltas)

    @property
    def pixels(self) -> int:
        """How many pixels it changes; one that is changed by two deltas counts twice."""
        return sum(delta.pixels for delta in self.deltas)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes."""
        return sum(delta.nbytes for delta in self.deltas)

    def apply(self, array: Any) -> None:
        """Do it.

        Raises
        ------
        InputError
            If the array does not hold what the edit was made for; it is left as it was.
        OutputError
            If the disk refuses; what was done already is undone, as far as it lets us.
        """
        done: list[Change] = []
        for delta in self.deltas:
            with _taken_back(array, done, delta):
                if not _holds(array, delta.box, delta.before):
                    raise InputError(STALE)
                delta.apply(array)
            done.append(delta)

    def revert(self, array: Any) -> None:
        """Undo it, bit for bit.

        Raises
        ------
        InputError
            If the array does not hold what the edit left; it is left as it was.
        OutputError
            If the disk refuses; what was undone already is done again, as far as it lets us.
        """
        undone: list[Change] = []
        for delta in reversed(self.deltas):
            with _taken_back(array, undone, delta, undo=True):
                if not _holds(array, delta.box, delta.after):
                    raise InputError("The labels were changed since this step was done, so it cannot be undone.")
                delta.revert(array)
            undone.append(delta)

    def packed(self) -> Edit:
        """Return the same, compressed."""
        return replace(self, deltas=tuple(delta.packed() for delta in self.deltas))

    def inverse(self) -> Edit:
        """Return what undoes it, as a step of its own (tool ``"undo"``), compressed."""
        return Edit("undo", tuple(delta.packed().inverse() for delta in reversed(self.deltas)), self.note)

    def points(self) -> tuple[tuple[NDArray[np.intp], ...], NDArray[Any]]:
        """Return the changed pixels and their new values: what napari's ``Labels.data_setitem`` takes.

        Returns
        -------
        indices : tuple of ndarray, each of shape (N,)
            One per axis. Each pixel comes once.
        values : ndarray, shape (N,)
        """
        return _points([(delta.start, delta.changed, delta.after) for delta in self.deltas])

    @classmethod
    def painted(cls, array: Any, strokes: Iterable[tuple[tuple[Any, ...], Any, Any]], note: str = "") -> Edit:
        """Make an edit of what was painted already.

        Parameters
        ----------
        array : array-like
            The labels as they are now.
        strokes : iterable of (indices, before, after)
            Oldest first: indices along each axis, and the values there. ``layer.events.paint`` of napari gives them so.
        """
        atoms = [(tuple(np.atleast_1d(np.asarray(axis)) for axis in indices), before) for indices, before, _ in strokes]
        atoms = [(indices, before) for indices, before in atoms if indices and indices[0].size]
        if not atoms:
            return cls("paint", (), note)
        first = [min(int(indices[axis].min()) for indices, _ in atoms) for axis in range(len(atoms[0][0]))]
        last = [max(int(indices[axis].max()) for indices, _ in atoms) for axis in range(len(first))]
        after = np.array(array[tuple(slice(low, high + 1) for low, high in zip(first, last, strict=True))])
        before = after.copy()
        for indices, old in reversed(atoms):
            before[tuple(axis - low for axis, low in zip(indices, first, strict=True))] = old
        delta = Delta.between(first, before, after)
        return cls("paint", (delta,) if delta else (), note)


@contextlib.contextmanager
def _taken_back(array: Any, done: list[Change], delta: Change, *, undo: bool = False) -> Iterator[None]:
    """Take back what was done of an edit if the rest of it fails."""

    def back(change: Change) -> None:
        (change.apply if undo else change.revert)(array)

    try:
        yield
    except InputError:  # before this delta was written
        for earlier in reversed(done):
            back(earlier)
        raise
    except OSError as error:
        with contextlib.suppress(OSError):
            for earlier in (delta, *reversed(done)):  # of this one a part may be written
                back(earlier)
        raise OutputError(
            f"The labels could not be changed: {error.strerror or error}. Free some space, or save them elsewhere."
        ) from error


def _holds(array: Any, box: Box, values: NDArray[Any]) -> bool:
    return bool(np.array_equal(np.asarray(array[box]), values))


def _points(parts: list[tuple[tuple[int, ...], NDArray[np.bool_], NDArray[Any]]]) -> tuple[tuple[NDArray[np.intp], ...], NDArray[Any]]:
    if not parts:
        return (), np.zeros(0, np.int64)
    places = [np.argwhere(mask) + np.asarray(start) for start, mask, _ in parts]
    values = np.concatenate([after[mask] for _, mask, after in parts])
    every = np.concatenate(places)
    if len(parts) > 1:  # of a pixel that changed twice the last value counts
        reverse = np.ascontiguousarray(every[::-1])
        _, kept = np.unique(reverse, axis=0, return_index=True)
        kept = len(every) - 1 - kept
        every, values = every[kept], values[kept]
    return tuple(every.T), values
