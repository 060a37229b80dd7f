"""``Docks``: the docks of one viewer, which come and go, and the window whose end is the end of what they show."""

from __future__ import annotations

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QMainWindow

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from qtpy.QtWidgets import QWidget

__all__ = ["Docks", "bring_forward", "opened"]


class Docks:
    """Holds docks without keeping them alive.

    Parameters
    ----------
    on_end : callable
        Called when the window that a dock stands in is gone.
    """

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._docks: list[weakref.ref[QWidget]] = []
        self._window: weakref.ref[QMainWindow] | None = None
        self._on_end = on_end

    def add(self, dock: QWidget) -> None:
        """Take a dock in."""
        self._docks.append(weakref.ref(dock))

    def living(self) -> list[QWidget]:
        """Return the docks that are still there."""
        docks = []
        for dock in (ref() for ref in self._docks):
            with contextlib.suppress(RuntimeError):  # Qt has deleted what Python still holds
                if dock is not None and dock.objectName():
                    docks.append(dock)
        self._docks = [weakref.ref(dock) for dock in docks]
        return docks

    @property
    def hidden(self) -> bool:
        """Whether nobody can see any of them."""
        return not any(dock.isVisible() for dock in self.living())

    def watch(self, widget: QWidget) -> None:
        """Find the window that a dock stands in."""
        window: Any = widget.window()
        while window is not None and not isinstance(window, QMainWindow):
            window = window.parentWidget()
        if window is not None and (self._window is None or self._window() is not window):
            self._window = weakref.ref(window)
            window.destroyed.connect(self._on_end)


def opened(viewer: napari.viewer.Viewer, docks: Docks, kind: type[Any], title: str) -> Any:
    """Return a viewer's dock of a kind; it is opened if there is none."""
    for dock in docks.living():
        if isinstance(dock, kind) and dock.parent() is not None:
            return dock
    dock = kind(viewer)
    viewer.window.add_dock_widget(dock, name=title, area="right", tabify=True)
    return dock


def bring_forward(dock: QWidget) -> None:
    """Show a dock that was hidden, or lies behind another one."""
    around = dock.parentWidget()
    if around is not None:
        around.show()
        around.raise_()
