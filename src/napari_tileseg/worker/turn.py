"""``Turn``: anything that takes its turn with the model's process, from the queue to its end."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

from napari_tileseg.worker.messages import CancelledRun, Died, Done, Evented, Failed, Loaded, Loading, Message, Pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.volume import Volume
    from napari_tileseg.worker.messages import Begin, BeginBatch, BeginProbe, BeginTraining
    from napari_tileseg.worker.process import ModelProcess

__all__ = ["OVER", "Pausable", "RunState", "Turn"]

RunState = Literal["queued", "loading", "running", "cancelling", "cancelled", "done", "failed", "died"]

OVER: frozenset[RunState] = frozenset({"cancelled", "done", "failed", "died"})
"""States in which nothing happens to a run any more."""


class Turn(ABC):
    """Queued, under way or over. The supervisor makes it and moves it on.

    Parameters
    ----------
    number : int
        Grows with every turn of a supervisor.
    on_message : callable
        Gets every message, in order.
    on_cancel : callable
        The supervisor's way to stop it.

    Attributes
    ----------
    state : str
        One of `RunState`.
    process : ModelProcess or None
        Where it runs or ran.
    announced : int
        The place in the queue that its callback knows of.
    volume : Volume or None
        The image whose boxes the model's process asks for; None where it reads files by itself.
    patience : float or None
        Seconds after which one that was cancelled is ended with its process; None for the usual ones.
    """

    volume: Volume | None = None
    patience: float | None = None

    def __init__(self, number: int, *, on_message: Callable[[Message], None], on_cancel: Callable[[Turn], None]) -> None:
        self.number = number
        self.state: RunState = "queued"
        self.on_message = on_message
        self.process: ModelProcess | None = None
        self.announced = 0
        self._on_cancel = on_cancel
        self._over = threading.Event()

    @property
    def removed(self) -> bool:
        """Whether the result is gone from here."""
        return False

    @property
    @abstractmethod
    def tiles(self) -> tuple[int, int]:
        """Parts of the result that are safe, and parts there are; (0, 0) before the plan."""

    @property
    @abstractmethod
    def left(self) -> str:
        """A sentence that says what is left if the process ends now."""

    @abstractmethod
    def begin(self, backend: str) -> Begin | BeginBatch | BeginProbe | BeginTraining:
        """Return the message that starts it."""

    def cancel(self) -> None:
        """Stop within one tile and keep what is finished; a second call ends the model's process at once."""
        self._on_cancel(self)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is over and its last message delivered; return whether it is. Not for callbacks."""
        return self._over.wait(timeout)

    def note(self, message: Message) -> None:
        """Take over what a message says about the state."""
        match message:
            case Loading() if self.state != "cancelling":
                self.state = "loading"
            case Loaded() if self.state != "cancelling":
                self.state = "running"
            case Evented() if self.state == "loading":
                self.state = "running"
            case Done():
                self.state = "done"
            case CancelledRun():
                self.state = "cancelled"
            case Failed():
                self.state = "failed"
            case Died():
                self.state = "died"

    def finish(self) -> None:
        """Wake whoever waits."""
        self._over.set()


class Pausable(Turn):
    """A turn of many parts, which can wait between two of them.

    Attributes
    ----------
    paused : bool
        Whether somebody has asked it to pause.
    """

    def __init__(self, number: int, *, on_message: Callable[[Message], None], on_cancel: Callable[[Turn], None]) -> None:
        super().__init__(number, on_message=on_message, on_cancel=on_cancel)
        self.paused = False

    def pause(self, paused: bool = True) -> None:
        """Wait before the next tile or step until this is called with False; models stay loaded."""
        self.paused = paused
        process = self.process
        if process is not None and self.state not in OVER:
            process.send(Pause(paused), self.number)
