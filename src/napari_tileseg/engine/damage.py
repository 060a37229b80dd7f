"""``Damage``: places of an image that cannot be read, found by halving, left out or refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from napari_tileseg.errors import RunError, TileSegError, UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.parts import Region

    ReadBox = Callable[[tuple[slice, ...]], NDArray[Any]]

__all__ = ["Damage", "place"]

_LEAST = 64
"""Cells of this length along every axis, counted from the origin, are read or lost as a whole."""


class Damage:
    """What is known about unreadable places of one image; shared by everything that reads it.

    Parameters
    ----------
    name : str
        Of the image, for the sentence.
    policy : {"stop", "skip"}
        Whether an unreadable place ends the run.
    """

    def __init__(self, name: str, policy: Literal["stop", "skip"] = "stop") -> None:
        self._name, self._policy = name, policy
        self._found: dict[tuple[tuple[str, int], ...], list[Region]] = {}
        self._axes = ""
        self._told: set[str] = set()

    @property
    def places(self) -> list[str]:
        """The places, as a person would write them."""
        return [place(dict(position), self._axes, box) for position, boxes in list(self._found.items()) for box in sorted(boxes)]

    def state(self) -> list[Any]:
        """Return what `restore` needs, as JSON."""
        return [self._axes, [[list(position), boxes] for position, boxes in list(self._found.items())], sorted(self._told)]

    def restore(self, state: list[Any]) -> None:
        """Undo `state`."""
        self._axes, found = str(state[0]), state[1]
        for position, boxes in found:
            key = tuple((str(axis), int(index)) for axis, index in position)
            self._found[key] = [tuple((int(start), int(stop)) for start, stop in box) for box in boxes]
        self._told.update(state[2])

    def add(self, state: list[Any]) -> None:
        """Take over the places that another reader of the same image has found."""
        self._axes = self._axes or str(state[0])
        for position, boxes in state[1]:
            key = tuple((str(axis), int(index)) for axis, index in position)
            for box in boxes:
                self._note(key, tuple((int(start), int(stop)) for start, stop in box))

    def news(self) -> list[str]:
        """Return a sentence for each place that nobody has been told of."""
        fresh = [where for where in self.places if where not in self._told]
        self._told.update(fresh)
        return [f'"{self._name}" cannot be read at {where}. It is left without labels there.' for where in fresh]

    def lost(self, position: Mapping[str, int], region: Region) -> Iterator[Region]:
        """Yield the unreadable parts of a box of one sample."""
        return self.covered(position, region, factors=(1,) * len(region))

    def covered(self, position: Mapping[str, int], region: Region, *, factors: Sequence[float]) -> Iterator[Region]:
        """Yield the unreadable parts of a box on a finer grid.

        Parameters
        ----------
        position : mapping of str to int
            Which sample it is.
        region : tuple of (start, stop)
            The box, in pixels of the finer grid.
        factors : sequence of float
            How many of those lie along a pixel that was read, by axis.
        """
        for box in list(self._found.get(_key(position), ())):
            wide = [(math.floor(low * by), math.ceil(high * by)) for (low, high), by in zip(box, factors, strict=True)]
            common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(wide, region, strict=True))
            if all(start < stop for start, stop in common):
                yield common

    def pieces(
        self, read: ReadBox, region: tuple[slice, ...], position: Mapping[str, int], axes: str
    ) -> Iterator[tuple[Region, NDArray[Any]]]:
        """Read a box; where that fails, its parts that can be read.

        Parameters
        ----------
        read : callable
            Returns a box of the sample, shape (C, *box).
        region : tuple of slice
            The box.
        position : mapping of str to int
            Which sample it is.
        axes : str
            Letters of space.

        Yields
        ------
        tuple of (start, stop), ndarray
            Parts that do not overlap.

        Raises
        ------
        UnreadableError
            At the first place that cannot be read, if the policy is to stop.
        """
        box = tuple((span.start, span.stop) for span in region)
        try:
            yield box, read(region)
            return
        except (RunError, MemoryError):
            raise
        except Exception as error:
            failure = error
        yield from self._halves(read, box, failure, position, axes)

    def _halves(
        self, read: ReadBox, box: Region, failure: Exception, position: Mapping[str, int], axes: str
    ) -> Iterator[tuple[Region, NDArray[Any]]]:
        across = [axis for axis, (start, stop) in enumerate(box) if start // _LEAST != (stop - 1) // _LEAST]
        if not across:
            self._give_up(box, failure, position, axes)
            return
        axis = max(across, key=lambda axis: box[axis][1] - box[axis][0])
        middle = _middle(*box[axis])
        for span in ((box[axis][0], middle), (middle, box[axis][1])):
            yield from self.pieces(read, tuple(slice(*pair) for pair in (*box[:axis], span, *box[axis + 1 :])), position, axes)

    def _give_up(self, box: Region, failure: Exception, position: Mapping[str, int], axes: str) -> None:
        if self._policy == "stop":
            if isinstance(failure, TileSegError):
                raise failure
            reason = str(failure).strip().split("\n")[0] or type(failure).__name__
            raise UnreadableError(
                f'"{self._name}" cannot be read at {place(position, axes, box)}: {reason.rstrip(".")}. '
                "Copy the file again, or leave such parts out (unreadable = skip)."
            ) from failure
        self._axes = axes
        self._note(_key(position), box)

    def _note(self, key: tuple[tuple[str, int], ...], box: Region) -> None:
        boxes = self._found.setdefault(key, [])
        while (other := next((other for other in boxes if _join(other, box)), None)) is not None:
            boxes.remove(other)
            box = _join(other, box) or box
        boxes.append(box)


def _key(position: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(position.items())


def place(position: Mapping[str, int], axes: str, region: Region) -> str:
    """Write down where a box lies: ``"T 3, Y 0 to 64, X 128 to 192"``."""
    words = [f"{axis} {index}" for axis, index in position.items()]
    return ", ".join(words + [f"{axis} {start} to {stop}" for axis, (start, stop) in zip(axes, region, strict=True)])


def _middle(start: int, stop: int) -> int:
    """Return the multiple of the largest power of two inside a range: the same places are found whatever box was asked for."""
    step = 1 << (stop - start).bit_length()
    while not start < -(-(start + 1) // step) * step < stop:
        step //= 2
    return -(-(start + 1) // step) * step


def _join(first: Region, second: Region) -> Region | None:
    """Return the box that two boxes fill together; None where that is no box."""
    axes = range(len(first))
    both = tuple((min(first[axis][0], second[axis][0]), max(first[axis][1], second[axis][1])) for axis in axes)
    if both in (first, second):
        return both
    differ = [axis for axis in axes if first[axis] != second[axis]]
    touch = len(differ) == 1 and max(first[differ[0]][0], second[differ[0]][0]) <= min(first[differ[0]][1], second[differ[0]][1])
    return both if touch else None
