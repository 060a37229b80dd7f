"""``Growth``: which images of a watched folder are whole, and which are still being written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.batch.stamps import input_stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Growth"]


@dataclass
class _Seen:
    """How an image looked, since when it looks so, and whether that is accepted as whole."""

    look: str
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
        Opens a path; raises an error if it is no whole image.
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
        """Seconds since anything was seen to change; 0 while any image is not whole."""
        return self._clock() - self._changed if all(seen.whole for seen in self._seen.values()) else 0.0

    def look(self, path: str) -> str:
        """Return how an image looked when it was last looked at; equal for equal sizes and times."""
        return self._seen[path].look

    def _is_whole(self, path: str) -> bool:
        look, now = _look(path), self._clock()
        seen = self._seen.get(path)
        if not look:
            if self._seen.pop(path, None):
                self._changed = now
            return False
        if seen is None or seen.look != look:
            self._changed, self._seen[path] = now, _Seen(look, now)
            return False
        quiet = now - seen.since
        if not seen.whole and quiet >= self._settle:
            seen.whole = quiet >= self._patience or self._can_be_opened(path)
        return seen.whole

    def _can_be_opened(self, path: str) -> bool:
        try:
            self._opens(path)
        except Exception:  # whatever a reader makes of half a file
            return False
        return True


def _look(path: str) -> str:
    """Return what can be seen of an image from outside; nothing where it vanishes meanwhile."""
    try:
        return input_stamp(Path(path))
    except OSError:
        return ""
