"""The drawings of a layer's tools, made a breath after the layer, so that the window does not stand still for all of it at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Layer

__all__ = ["tools_later"]

_BREATH = 30
"""Milliseconds between two of them."""


@contextmanager
def tools_later(layer: Layer) -> Iterator[None]:
    """Hide the drawings that a layer brings for its polygon and brush tools while it is put into a viewer; then show them one by one.

    They are empty until a tool is used, but making them takes about as long as all the rest of the insertion. napari keeps them in
    a private dictionary; where it does not, nothing is put off.
    """
    overlays: Any = getattr(layer, "_overlays", {})
    hidden = [overlay for overlay in overlays.values() if getattr(overlay, "visible", False)]
    for overlay in hidden:
        overlay.visible = False
    try:
        yield
    finally:
        for number, overlay in enumerate(hidden, start=1):
            QTimer.singleShot(_BREATH * number, lambda overlay=overlay: _show(overlay))


def _show(overlay: Any) -> None:
    overlay.visible = True
