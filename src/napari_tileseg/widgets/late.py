"""Later: an answer for a dock that may be gone by then, and a deed that waits until nothing changes any more."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from qtpy.QtCore import QObject

__all__ = ["Late", "soon"]


class Late:
    """Calls a method of a dock with the answer; it keeps no dock alive.

    Parameters
    ----------
    dock : QObject
    method : str
        Its name.
    *before
        Arguments that go before the answer.
    """

    def __init__(self, dock: QObject, method: str, *before: Any) -> None:
        self._dock = weakref.ref(dock)
        self._method = method
        self._before = before

    def __call__(self, answer: Any) -> None:
        dock = self._dock()
        if dock is not None:
            getattr(dock, self._method)(*self._before, answer)


def soon(parent: QObject, milliseconds: int, deed: Callable[[], None]) -> QTimer:
    """Return a timer that does something once, so many milliseconds after its last start."""
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(milliseconds)
    timer.timeout.connect(deed)
    return timer
