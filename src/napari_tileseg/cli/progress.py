"""Events of a batch told on a console: bars, a line for each image, or JSON; failures are named on stderr in all three."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

from napari_tileseg.batch.events import BatchProgress, BatchStarted, TaskEnded, TaskProgress, TaskStarted
from napari_tileseg.cli.console import complain, emit
from napari_tileseg.cli.sentences import left, outcome, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_tileseg.batch.events import BatchEvent

__all__ = ["progress"]


@contextlib.contextmanager
def progress(json_lines: bool, stopping: Callable[[], bool]) -> Iterator[Callable[[BatchEvent], None]]:
    """Give what suits the console: JSON on stdout if asked for, else bars or lines on stderr.

    Parameters
    ----------
    json_lines : bool
    stopping : callable
        Whether somebody has asked the batch to stop.
    """
    if json_lines:
        yield _tell_json
    elif sys.stderr.isatty():
        with _Bars(stopping) as bars:
            yield bars
    else:
        yield _tell_lines


def _tell_json(event: BatchEvent) -> None:
    emit(event.to_dict())
    if isinstance(event, TaskEnded) and event.state == "failed":
        complain(outcome(event))


def _tell_lines(event: BatchEvent) -> None:
    match event:
        case BatchStarted():
            for line in _beginning(event):
                complain(line)
        case TaskEnded() if not event.before or event.state == "failed":
            complain(outcome(event))


def _beginning(event: BatchStarted) -> Iterator[str]:
    """Say how many there are, which were done before, and what is left out and why."""
    count = len(event.names)
    yield f"{count} image{'s' * (count != 1)}" + (f", {event.before} of them done before" if event.before else "")
    for name, reason in event.left_out:
        yield f"{printable(name)} is left out: {printable(reason)}"


class _Bars:
    """A bar for all and one for each image that is being worked on; they disappear at the end, the named failures stay."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._stopping = stopping
        text = TextColumn("{task.description}", markup=False)
        self._rows = Progress(BarColumn(), text, console=Console(stderr=True), transient=True)
        self._all = self._rows.add_task("Listing the images", total=None)
        self._current: dict[int, Any] = {}
        self._names: dict[int, str] = {}

    def __enter__(self) -> _Bars:
        self._rows.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._rows.stop()

    def __call__(self, event: BatchEvent) -> None:
        match event:
            case BatchStarted():
                for line in _beginning(event):
                    self._say(line)
                self._rows.update(
                    self._all, total=len(event.names), completed=event.before, description=self._so_far(event.before, len(event.names))
                )
            case TaskStarted(number, name):
                self._names[number] = printable(name)
                self._current[number] = self._rows.add_task(self._names[number], total=None)
            case TaskProgress(number, done, total) if number in self._current:
                text = f"{self._names[number]}: {done} of {total} tiles"
                self._rows.update(self._current[number], total=total, completed=done, description=text)
            case TaskEnded():
                if event.number in self._current:
                    self._rows.remove_task(self._current.pop(event.number))
                if event.state == "failed" or (event.message and not event.before):
                    self._say(outcome(event))
            case BatchProgress(done, total, seconds_left):
                self._rows.update(self._all, total=total, completed=done, description=self._so_far(done, total, seconds_left))

    def _so_far(self, done: int, total: int, seconds_left: float | None = None) -> str:
        if self._stopping():
            return "Stopping after the current tile; Ctrl-C again stops at once"
        return f"{done} of {total} images{left(seconds_left)}"

    def _say(self, line: str) -> None:
        self._rows.console.print(line, markup=False, highlight=False)
