"""``Growth``: which images of a watched folder are whole, and which are still being written."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.errors import TileSegError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

__all__ = ["Growth"]

Look = tuple[int, int, int]
"""What is compared: number of files, bytes, and the sum of the times of change."""


@dataclass
class _Seen:
    """How an image looked, since when it looks so, and whether that is accepted as whole."""

    look: Look
    since: float
    whole: bool = False


class Growth:
    """Watches images grow. Only their own sizes and times are compared, never with this computer's clock.

    Parameters
    ----------
    settle : float
        Seconds for which an image must look the same before it is opened.
    patience : float
        Seconds for which an image that cannot be opened must look the same before it is taken as it is: its task says what is
        wrong with it. Until then it may be a file whose writer pauses.
    opens : callable
        Opens a path; raises a `TileSegError` if it is no whole image.
    clock : callable
        Seconds that only go forward.
    """

    def __init__(self, settle: float, patience: float, opens: Callable[[str], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._settle = settle
        self._patience = patience
        self._opens = opens
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._changed = clock()

    def whole(self, paths: Iterable[str]) -> set[str]:
        """Look at each path once and return those that have stopped growing; ask again after a while for the others."""
        present = list(dict.fromkeys(paths))
        for gone in self._seen.keys() - set(present):
            del self._seen[gone]
            self._changed = self._clock()
        return {path for path in present if self._is_whole(path)}

    @property
    def quiet(self) -> float:
        """Seconds since anything was seen to change."""
        return self._clock() - self._changed

    def _is_whole(self, path: str) -> bool:
        look, now = _look(path), self._clock()
        seen = self._seen.get(path)
        if look is None or seen is None or seen.look != look:
            self._changed = now
            if look is None:
                self._seen.pop(path, None)
            else:
                self._seen[path] = _Seen(look, now)
            return False
        quiet = now - seen.since
        if not seen.whole and quiet >= self._settle:
            seen.whole = quiet >= self._patience or self._can_be_opened(path)
        return seen.whole

    def _can_be_opened(self, path: str) -> bool:
        try:
            self._opens(path)
        except TileSegError:
            return False
        return True


def _look(path: str) -> Look | None:
    """Return what can be seen of a file, or of all files in a folder; None where it vanishes meanwhile."""
    try:
        if not os.path.isdir(path):
            found = os.stat(path)
            return 1, found.st_size, found.st_mtime_ns
        entries = [(entry.st_size, entry.st_mtime_ns) for entry in _inside(path)]
    except OSError:
        return None
    return len(entries), sum(size for size, _ in entries), sum(changed for _, changed in entries)


def _inside(folder: str | Path) -> Iterator[os.stat_result]:
    """Yield what is known of every file and folder in a folder, however deep."""
    for entry in os.scandir(folder):
        yield entry.stat()
        if entry.is_dir(follow_symlinks=False):
            yield from _inside(entry.path)
