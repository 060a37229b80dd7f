"""The run's bar in napari's activity dock."""

from __future__ import annotations

from typing import Protocol

from napari.utils import progress

__all__ = ["Activity", "Counted"]


class Counted(Protocol):
    """Something that is so far along."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...


class Activity:
    """A bar that is opened and closed with a run.

    napari's bars call ``processEvents`` on every change, so that a change may end in another one: those are skipped.
    """

    def __init__(self) -> None:
        self._bar: progress | None = None
        self._busy = False
        self._close_later = False

    def open(self, text: str) -> None:
        """Show a bar of unknown length."""
        self.close()
        self._guarded(lambda: self._make(text))

    def update(self, run: Counted) -> None:
        """Move the bar to where the run is."""
        self._guarded(lambda: self._move(run))

    def close(self) -> None:
        """Take the bar away."""
        if self._busy:
            self._close_later = True
            return
        bar, self._bar = self._bar, None
        if bar is not None:
            bar.close()

    def _make(self, text: str) -> None:
        self._bar = progress(total=0, desc=text)

    def _move(self, run: Counted) -> None:
        bar = self._bar
        if bar is None or not run.total:
            return
        if bar.total != run.total:
            bar.total = run.total
        if run.done > bar.n:
            bar.update(run.done - bar.n)

    def _guarded(self, change: object) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            change()  # type: ignore[operator]
        finally:
            self._busy = False
        if self._close_later:
            self._close_later = False
            self.close()
