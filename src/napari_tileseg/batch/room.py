"""``Room``: how many images may be in memory; ``Gate``: small images are computed side by side, large ones alone."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Gate", "Room"]

_LOOK = 0.1
"""Seconds between two looks whether somebody wants to stop."""


class Room:
    """Counts the images that are in memory, from before one is read until its last result is written.

    Parameters
    ----------
    images : int
        Most of them.
    size : int
        Most bytes of all of them; one image may be larger if it is the only one.

    Attributes
    ----------
    most : int
        How many there were at once, at most.
    """

    def __init__(self, images: int, size: int) -> None:
        self._images, self._size = images, size
        self._held: dict[int, int] = {}
        self._next = 0
        self._changed = threading.Condition()
        self.most = 0

    def enter(self, size: int, stop: Callable[[], bool]) -> int | None:
        """Wait until there is room for an image of about `size` bytes; return its ticket, None if `stop` says so first."""
        while not stop():  # which may take long: others must be able to leave meanwhile
            with self._changed:
                if self._fits(size) or (self._changed.wait(_LOOK) and self._fits(size)):
                    self._next += 1
                    self._held[self._next] = size
                    self.most = max(self.most, len(self._held))
                    return self._next
        return None

    def weigh(self, ticket: int, size: int) -> None:
        """Correct the size of an image, once it is known."""
        with self._changed:
            self._held[ticket] = size

    def leave(self, ticket: int) -> None:
        """Give the room of an image back."""
        with self._changed:
            del self._held[ticket]
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return not self._held or (len(self._held) < self._images and sum(self._held.values()) + size <= self._size)


class Gate:
    """Lets small images pass together, and a large one when no other is inside."""

    def __init__(self) -> None:
        self._small = self._waiting = 0
        self._large = False
        self._changed = threading.Condition()

    @contextmanager
    def passed(self, large: bool) -> Iterator[None]:
        """Hold the gate while the block lasts."""
        self._enter(large)
        try:
            yield
        finally:
            with self._changed:
                if large:
                    self._large = False
                else:
                    self._small -= 1
                self._changed.notify_all()

    def _enter(self, large: bool) -> None:
        with self._changed:
            if large:
                self._waiting += 1
                self._changed.wait_for(lambda: not self._large and not self._small)
                self._waiting -= 1
                self._large = True
            else:
                self._changed.wait_for(lambda: not self._large and not self._waiting)
                self._small += 1
