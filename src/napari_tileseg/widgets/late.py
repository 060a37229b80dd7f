"""``Late``: an answer for a dock that may be gone by then."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

__all__ = ["Late"]


class Late:
    """Calls a method of a dock with the answer; it keeps no dock alive.

    Parameters
    ----------
    dock : QWidget
    method : str
        Its name.
    *before
        Arguments that go before the answer.
    """

    def __init__(self, dock: QWidget, method: str, *before: Any) -> None:
        self._dock = weakref.ref(dock)
        self._method = method
        self._before = before

    def __call__(self, answer: Any) -> None:
        dock = self._dock()
        if dock is not None:
            getattr(dock, self._method)(*self._before, answer)
