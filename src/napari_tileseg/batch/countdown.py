"""``Countdown``: how long a batch of images of different sizes still takes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Countdown"]

_OPENING = 200_000
"""Bytes of pixels that take as long as opening a file and writing its result."""


class Countdown:
    """Tells the seconds that are left from the bytes that were worked through.

    Tasks that an earlier run has done, and those that fail, say nothing about the speed: they are taken off both sides.

    Parameters
    ----------
    sizes : mapping of int to int
        Bytes of each task's image by its number; 0 where nobody knows.
    timer : callable
        A clock that nobody sets back.
    """

    def __init__(self, sizes: Mapping[int, int], *, timer: Callable[[], float] = time.monotonic) -> None:
        self._weights = {number: size + _OPENING for number, size in sizes.items()}
        self._shares: dict[int, float] = {}
        self._worked = 0.0
        self._over = 0
        self._timer = timer
        self._began: float | None = None
        self._rested = 0.0
        self._paused_since: float | None = None

    @property
    def over(self) -> int:
        """How many tasks are over."""
        return self._over

    @property
    def paused(self) -> bool:
        return self._paused_since is not None

    def start(self) -> None:
        """Let the time run."""
        self._began = self._timer()

    def pause(self, paused: bool) -> None:
        """Stop the clock, or let it go on."""
        now = self._timer()
        if paused:
            self._paused_since = now
        elif self._paused_since is not None:
            self._rested += now - self._paused_since
            self._paused_since = None

    def advance(self, number: int, share: float) -> None:
        """Note that a share (0 to 1) of a task is done."""
        self._shares[number] = share

    def end(self, number: int, *, counted: bool) -> None:
        """Note that a task is over; `counted` if its time says something about the others."""
        self._over += 1
        self._shares.pop(number, None)
        weight = self._weights.pop(number, 0)
        self._worked += weight if counted else 0

    @property
    def seconds_left(self) -> float | None:
        """What is left; None while nothing is known."""
        if not self._weights:
            return 0.0
        running = sum(self._weights[number] * share for number, share in self._shares.items() if number in self._weights)
        worked = self._worked + running
        if self._began is None or worked <= 0:
            return None
        now = self._paused_since if self._paused_since is not None else self._timer()
        return (now - self._began - self._rested) / worked * (sum(self._weights.values()) - running)
