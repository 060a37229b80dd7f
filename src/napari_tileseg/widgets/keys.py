"""Keys: one for the whole viewer, a few inside a dock."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QShortcut, QWidget

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

__all__ = ["CONTROL", "SEGMENT_KEY", "bind_segment", "dock_shortcut", "named", "pressed"]

CONTROL = "Meta" if sys.platform == "darwin" else "Control"
"""What napari calls the key that Qt calls Ctrl: on a Mac that is Command, as in napari's own keys for undo and redo."""

SEGMENT_KEY = f"{CONTROL}-Shift-G"
"""As napari spells it; free on every kind of layer in napari 0.9."""


def named(keys: str) -> str:
    """Return keys as they are called on this system: ``"Ctrl+F"`` is ``"Cmd+F"`` on a Mac."""
    return keys.replace("Ctrl", "Cmd") if sys.platform == "darwin" else keys


def bind_segment(viewer: napari.viewer.Viewer) -> None:
    """Bind the key that segments the active image; it works while no dock has the focus too.

    napari registers a manifest's key bindings without a function, so that they are bound here.
    """
    viewer.bind_key(SEGMENT_KEY, _segment_active, overwrite=True)


def _segment_active(viewer: napari.viewer.Viewer) -> None:
    """Segment the active image with TileSeg."""
    from napari_tileseg.widgets.segment import dock_of

    dock_of(viewer).segment_active()


def dock_shortcut(dock: QWidget, keys: str, deed: Callable[[], None]) -> QShortcut:
    """Bind a key inside a dock: its fields take most keys before the viewer sees them."""
    shortcut = QShortcut(QKeySequence(keys), dock)
    shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
    shortcut.activated.connect(deed)
    return shortcut


def pressed(deed: Callable[[], object]) -> Callable[[Any], None]:
    """Return what napari calls with the layer when a key is pressed."""

    def press(layer: Any) -> None:
        deed()

    return press
