"""Who wants to know that labels were written: napari saves layers by itself, and tells nobody."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Protocol

    class Listener(Protocol):
        """Anything that wants to know."""

        def on_written(self, data: Any, path: Path) -> None: ...


__all__ = ["listen", "tell_written"]

_LISTENERS: weakref.WeakSet[Listener] = weakref.WeakSet()


def listen(listener: Listener) -> None:
    """Call ``listener.on_written(data, path)`` from now on, as long as it lives."""
    _LISTENERS.add(listener)


def tell_written(data: Any, path: Path) -> None:
    """Tell that an array of labels (the object itself, no copy) is in a file now."""
    for listener in list(_LISTENERS):
        listener.on_written(data, path)
