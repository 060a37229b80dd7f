"""What every command says and how it can be stopped: lines, JSON, one sentence per error, Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import signal
from typing import TYPE_CHECKING, Any

import typer

from napari_tileseg.errors import AxesError, Cancelled, ModelNotFoundError, OptionsError, TileSegError, TrustError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["complain", "duration", "emit", "guarded", "interrupts"]

_WRONG_ARGUMENTS = (OptionsError, ModelNotFoundError, AxesError)
"""Errors that mean exit status 2; all others mean 1."""

_MOST_FINDINGS = 100
"""So many of the calls in a file that waits for trust are told to programs."""


def complain(message: str) -> None:
    """Say something on stderr."""
    typer.echo(message, err=True)


def emit(record: dict[str, Any]) -> None:
    """Print one JSON event on one line of stdout."""
    typer.echo(json.dumps(record))


@contextlib.contextmanager
def guarded(json_lines: bool = False) -> Iterator[None]:
    """Turn the package's errors into one sentence on stderr and an exit status."""
    try:
        yield
    except TileSegError as error:
        if json_lines and not error.told:
            emit({"event": "error", "error": type(error).__name__, "message": str(error), **_refused(error)})
        if not error.told:
            complain(str(error))
        status = 130 if isinstance(error, Cancelled) else 2 if isinstance(error, _WRONG_ARGUMENTS) else 1
        raise typer.Exit(status) from None


def _refused(error: TileSegError) -> dict[str, Any]:
    """Return which file waits for trust, and what would run."""
    if not isinstance(error, TrustError) or error.path is None:
        return {}
    found = [str(finding) for finding in error.findings[:_MOST_FINDINGS]]
    return {"path": str(error.path.absolute()), "what": error.what, "findings": found}


@contextlib.contextmanager
def interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM, which batch systems send) into a wish to stop after the current tile.

    The second one stops at once.
    """
    asked: list[int] = []

    def on_interrupt(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, on_interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def duration(seconds: float) -> str:
    """Say how long: ``"12.3 s"``, ``"5 minutes"``, ``"3.1 hours"``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
