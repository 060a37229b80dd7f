"""The only place where other threads reach Qt's: worker messages, and answers of background calls."""

from __future__ import annotations

import atexit
import contextlib
import logging
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_tileseg.worker.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bridge", "close_supervisor", "supervisor"]

_LOG = logging.getLogger(__name__)

_TURN = 0.02
"""Seconds that messages may keep the window busy at a time."""


class Bridge(QObject):
    """Carries calls into Qt's thread, in order.

    Parameters
    ----------
    parent : QObject, optional
        Calls that arrive after its end are dropped.
    """

    _carried = Signal(object, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._open = True
        self._carried.connect(self._deliver, Qt.ConnectionType.QueuedConnection)

    def carry(self, receiver: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a function that any thread may call; `receiver` is called with its argument in Qt's thread."""

        def send(content: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the Qt object is gone: nobody is left to listen
                if self._open:
                    self._carried.emit(receiver, content)

        return send

    def stream(self, receiver: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a function like that of `carry`, for messages by the thousand: the window may breathe in between."""
        waiting: deque[Any] = deque()
        wake = self.carry(lambda _: drain())

        def send(content: Any) -> None:
            waiting.append(content)
            if len(waiting) == 1:
                wake(None)

        def drain() -> None:
            end = time.monotonic() + _TURN
            while waiting and self._open:
                receiver(waiting[0])
                waiting.popleft()  # only now, so that `send` does not wake anybody meanwhile
                if time.monotonic() > end and waiting:
                    QTimer.singleShot(1, drain)
                    return

        return send

    def background(self, work: Callable[[], Any], receiver: Callable[[Any], None]) -> None:
        """Call `work` in another thread and `receiver` with its result, or its exception, in Qt's thread."""
        answer = self.carry(receiver)

        def tell(future: Future[Any]) -> None:
            if not future.cancelled():
                answer(future.exception() or future.result())

        _pool().submit(work).add_done_callback(tell)

    def close(self) -> None:
        """Deliver nothing any more."""
        self._open = False

    def _deliver(self, receiver: Callable[[Any], None], content: Any) -> None:
        if self._open:
            receiver(content)


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="tileseg")


_supervisors: list[Supervisor] = []


def supervisor() -> Supervisor:
    """Return the one supervisor of this process; it is made when the first run needs it and ends with the program."""
    if not _supervisors:
        _supervisors.append(Supervisor())
        atexit.register(close_supervisor)
        application = QApplication.instance()
        if application is not None:
            application.aboutToQuit.connect(close_supervisor)
    return _supervisors[0]


def existing_supervisor() -> Supervisor | None:
    """Return the supervisor if there is one already."""
    return _supervisors[0] if _supervisors else None


def close_supervisor() -> None:
    """End the child process and everything that waits for it; the next run starts a new one."""
    while _supervisors:
        try:
            _supervisors.pop().close()
        except Exception:
            _LOG.exception("the model's process could not be ended")
