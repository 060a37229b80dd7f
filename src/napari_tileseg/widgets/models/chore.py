"""``Chore``: one command of ``tileseg`` in a process of its own, so that napari loads no torch and stays quick."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from napari_tileseg.errors import RunError
from napari_tileseg.folders import cache_folder
from napari_tileseg.worker.interpreter import creation_flags, environment, find_python, tool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

__all__ = ["Chore", "Ended", "command"]

_GRACE = 4.0
"""Seconds that a command has to tidy up once it was asked to stop."""

_AGAIN = 1.5
"""Seconds between two requests to stop."""

_LONGEST = 2**24
"""Most characters of one line: a card of a stranger may be long, not endless."""

_TAIL = 4000

_OPTION = re.compile(r" \(--[^()]*\)")
"""What sentences say of options of the command line, which a dock has fields for."""


@dataclass(frozen=True)
class Ended:
    """How a command came to its end.

    Parameters
    ----------
    events : tuple of dict
        Everything it printed, line by line; without what it told of its progress.
    status : int
        Its exit status, negative for a signal.
    cancelled : bool
        Somebody asked it to stop.
    told : str
        The end of what it wrote to stderr.
    """

    events: tuple[dict[str, Any], ...] = ()
    status: int = 0
    cancelled: bool = False
    told: str = field(default="", compare=False)

    @property
    def error(self) -> dict[str, Any] | None:
        """The event that tells of an error; None if it did what it was asked for."""
        found = next((event for event in self.events if event.get("event") == "error"), None)
        if found is not None:
            return {**found, "message": _OPTION.sub("", str(found.get("message", "")))}
        if self.status == 0 and not self.cancelled:
            return None
        return {"event": "error", "error": "RunError", "message": self._sentence}

    @property
    def answer(self) -> dict[str, Any]:
        """The last event; empty if there is none."""
        return self.events[-1] if self.events else {}

    @property
    def _sentence(self) -> str:
        lines = [line.strip() for line in self.told.splitlines() if line.strip()]
        if self.status < 0 or not lines:
            how = f"signal {-self.status}" if self.status < 0 else f"status {self.status}"
            return f"The process that did this ended by itself ({how}), most likely for lack of memory. Close other programs and try again."
        return lines[-1]


def command(words: Sequence[str]) -> list[str]:
    """Return what starts ``tileseg`` with some words.

    Raises
    ------
    RunError
        If there is no Python that could run it.
    """
    return tool(find_python(), words)


class Chore:
    """A command that runs; it ends with its own end, by `cancel`, or by `kill`.

    Parameters
    ----------
    words : sequence of str
        What follows ``tileseg``; with ``--json``.
    on_event : callable
        Called on another thread with each event that tells of progress.
    on_end : callable
        Called there once, with an `Ended`.
    start : callable, optional
        Makes a command line of the words; `command` by default.

    Raises
    ------
    RunError
        If it cannot be started.
    """

    def __init__(
        self,
        words: Sequence[str],
        on_end: Callable[[Ended], None],
        *,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        start: Callable[[Sequence[str]], list[str]] = command,
    ) -> None:
        self.words = tuple(words)
        self._on_end: Callable[[Ended], None] | None = on_end
        self._on_event = on_event
        self._cancelled = False
        folder = cache_folder()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._popen = subprocess.Popen(
                start(words),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,  # not the user's, which may be taken away meanwhile
                env={**environment(), "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "COLUMNS": "1000"},
                creationflags=creation_flags(),
            )
        except OSError as error:
            raise RunError(f"The process for this could not be started: {error.strerror or error}. Restart napari.") from None
        self._thread = threading.Thread(target=self._follow, name="tileseg-chore", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def cancel(self) -> None:
        """Ask it to stop as Ctrl-C does, so that it tidies up; where it does not hear, it is ended."""
        if self._cancelled:
            return
        self._cancelled = True
        self._interrupt()  # at once: the program may be about to end
        threading.Thread(target=self._stop, name="tileseg-stop", daemon=True).start()

    def kill(self) -> None:
        """End it without asking."""
        self._cancelled = True
        if self.running:
            self._popen.kill()

    def join(self, seconds: float) -> None:
        """Wait for its end."""
        self._thread.join(seconds)

    def _stop(self) -> None:
        """Ask again and again, since what comes while a library is imported can be swallowed there; then end it."""
        end = time.monotonic() + _GRACE
        while self.running and time.monotonic() < end:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_AGAIN)
            self._interrupt()
        self.kill()

    def _interrupt(self) -> None:
        if not self.running:
            return
        if sys.platform == "win32":
            self._popen.terminate()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._popen.pid, signal.SIGINT)

    def _follow(self) -> None:
        """Read what it says until it ends."""
        stdout, stderr = cast("IO[bytes]", self._popen.stdout), cast("IO[bytes]", self._popen.stderr)
        told: list[bytes] = []
        reader = threading.Thread(target=_keep_tail, args=(stderr, told), name="tileseg-told", daemon=True)
        reader.start()
        events: list[dict[str, Any]] = []
        with stdout:
            while line := stdout.readline(_LONGEST):
                event = _parsed(line)
                if event.get("event") in _PROGRESS:
                    if self._on_event is not None:
                        self._on_event(event)
                elif event:
                    events.append(event)
        status = self._popen.wait()
        reader.join(_GRACE)
        text = b"".join(told).decode("utf-8", errors="replace")[-_TAIL:]
        on_end, self._on_end = self._on_end, None  # it may hold a dock
        if on_end is not None:
            on_end(Ended(tuple(events), status, self._cancelled and status != 0, text))


_PROGRESS = ("progress", "downloading", "download progress")
"""Events that only tell how far it is."""


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _keep_tail(stream: IO[bytes], told: list[bytes]) -> None:
    with stream:
        while part := stream.readline(_TAIL):
            told.append(part)
            del told[:-50]
