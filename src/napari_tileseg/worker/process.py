"""``ModelProcess``: the parent's hold on the child, its pipes, its log and its end."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from typing import IO, TYPE_CHECKING, Any, cast

from napari_tileseg.worker.interpreter import command, creation_flags, environment
from napari_tileseg.worker.messages import Envelope, from_line, to_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["ModelProcess"]

_LOG = logging.getLogger(__name__)
_TAIL = 1 << 12
_GRACE = 0.8
"""Seconds that the process has to go by itself once its pipe is closed."""


class ModelProcess:
    """A running child.

    Parameters
    ----------
    python : str
        The interpreter.
    folder : Path
        Where it runs and keeps its log.
    deliver : callable
        Called on this object's own thread for every message, in order, and once with None when the process has ended.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(self, python: str, folder: Path, deliver: Callable[[ModelProcess, Envelope | None], None]) -> None:
        self.folder = folder
        self._log = folder / "log.txt"
        self._deliver = deliver
        self._sending = threading.Lock()
        with self._log.open("a+b") as log:
            self._popen = subprocess.Popen(
                command(python),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env=environment(),
                creationflags=creation_flags(),
            )
        threading.Thread(target=self._pump, name="tileseg-pump", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal; None while the process runs."""
        return self._popen.poll()

    def send(self, body: Any, run: int = 0) -> None:
        """Send a message; to a process that has gone it is lost, and its end is delivered anyway."""
        stdin = cast("IO[bytes]", self._popen.stdin)
        with contextlib.suppress(OSError, ValueError), self._sending:
            stdin.write(to_line(body, run))
            stdin.flush()

    def log_tail(self) -> str:
        """Return the last lines of what the process and its libraries printed."""
        try:
            with self._log.open("rb") as log:
                size = log.seek(0, 2)
                log.seek(max(0, size - _TAIL))
                return log.read().decode("utf-8", errors="replace").strip()
        except OSError:
            return ""

    def kill(self) -> None:
        """End it without asking."""
        with contextlib.suppress(OSError):
            self._popen.kill()

    def hang_up(self) -> None:
        """Close its pipe: it ends by itself, at once."""
        if self._sending.acquire(timeout=_GRACE / 4):
            try:
                with contextlib.suppress(OSError):
                    cast("IO[bytes]", self._popen.stdin).close()
            finally:
                self._sending.release()
        else:  # somebody waits for a child that does not listen
            self.kill()

    def end(self) -> None:
        """Hang up, and kill it if that does not help; returns within two seconds."""
        self.hang_up()
        try:
            self._popen.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(_GRACE / 2)

    def _pump(self) -> None:
        with cast("IO[bytes]", self._popen.stdout) as stdout:
            for line in stdout:
                try:
                    envelope = from_line(line)
                except ValueError:
                    _LOG.warning("the model's process sent %r", line[:200])
                    continue
                self._deliver(self, envelope)
        try:
            self._popen.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self.kill()
            self._popen.wait()
        self.hang_up()
        self._deliver(self, None)
