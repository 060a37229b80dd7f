"""Events of a run told on a console: a bar, plain lines, or JSON."""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

from napari_tileseg.engine.events import Event, Planned, Progress, Warned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["reporter"]

_STEPS = 10
"""How many lines of progress a run prints where there is no terminal."""


@contextlib.contextmanager
def reporter(json_lines: bool) -> Iterator[Callable[[Event], None]]:
    """Give the reporter that suits the console: JSON on stdout if asked for, else a bar or lines on stderr."""
    if json_lines:
        yield _print_json
    elif sys.stderr.isatty():
        with _Bar() as bar:
            yield bar
    else:
        yield _Lines()


def _print_json(event: Event) -> None:
    print(json.dumps(event.to_dict()), flush=True)


class _Lines:
    """A line at the start and after every tenth of the tiles, on stderr."""

    def __init__(self) -> None:
        self._said = 0

    def __call__(self, event: Event) -> None:
        match event:
            case Planned(tiles=tiles, window=window, device=device):
                self._say(f"{tiles} tile{'s' * (tiles != 1)} of {' x '.join(map(str, window))} on {device}")
            case Progress(done, total, seconds_left) if done * _STEPS // max(total, 1) > self._said:
                self._said = done * _STEPS // max(total, 1)
                self._say(f"{done} of {total} tiles{_left(seconds_left)}")
            case Warned(message):
                self._say(message)

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)


class _Bar:
    """A progress bar on the terminal; it disappears when the run ends."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Rows

        self._rows = Rows(BarColumn(), TextColumn("{task.description}"), console=Console(stderr=True), transient=True)
        self._task = self._rows.add_task("Loading the model", total=None)

    def __enter__(self) -> _Bar:
        self._rows.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._rows.stop()

    def __call__(self, event: Event) -> None:
        match event:
            case Planned(tiles=tiles):
                self._rows.update(self._task, total=tiles, description=f"0 of {tiles} tiles")
            case Progress(done, total, seconds_left):
                self._rows.update(self._task, completed=done, description=f"{done} of {total} tiles{_left(seconds_left)}")
            case Warned(message):
                self._rows.console.print(message)


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f", {seconds:.0f} s left"
