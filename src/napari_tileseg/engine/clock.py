"""``Clock``: how far the whole run is, and how long it still takes."""

from __future__ import annotations

import time

from napari_tileseg.engine.events import Progress

__all__ = ["Clock"]


class Clock:
    """Turns finished tiles into progress with the seconds that are left; tiles of an earlier run cost no time.

    Parameters
    ----------
    total : int
        Tiles of all samples.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._began = time.monotonic()
        self._first: int | None = None
        self._base = self._done = self._after = 0

    def plan(self, after: int, tiles: int) -> None:
        """Say that `tiles` tiles are to be computed until `after` of all are done; they may be others than was planned first."""
        self._base, self._after = max(after - tiles, self._done), after
        if self._first is None:
            self._first = self._base

    def progress(self, done: int, total: int) -> Progress:
        """Return the progress of the whole when `done` of the `total` tiles of the latest plan are computed."""
        self._done = self._base + done * (self._after - self._base) // total
        worked = self._done - (self._first or 0)
        elapsed = time.monotonic() - self._began
        return Progress(self._done, self.total, elapsed / worked * (self.total - self._done) if worked > 0 else None)
