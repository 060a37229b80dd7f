"""A layer put into a viewer in several breaths, so that the window does not stand still for all of it at once."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Layer

__all__ = ["in_breaths"]

_BREATH = 30
"""Milliseconds between two of them."""


@contextmanager
def in_breaths(layer: Layer) -> Iterator[None]:
    """Hide a layer while it is put into a viewer; then show it, and after it the drawings of its polygon and brush tools, one by one.

    The drawings are empty until a tool is used, but making them takes about as long as all the rest of the insertion. napari keeps
    them in a private dictionary; where it does not, they are not put off.
    """
    overlays: Any = getattr(layer, "_overlays", {})
    hidden = [item for item in (layer, *overlays.values()) if getattr(item, "visible", False)]
    for item in hidden:
        item.visible = False
    try:
        yield
    finally:
        for number, item in enumerate(hidden):
            QTimer.singleShot(_BREATH * number, lambda item=item: _show(item))


def _show(item: Any) -> None:
    item.visible = True
