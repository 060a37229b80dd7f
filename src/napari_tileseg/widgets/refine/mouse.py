"""``Mouse``: clicks and lines on the labels while a tool is held, told in pixels of the labels."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.widgets.shown import shown_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari.layers import Labels
    from numpy.typing import NDArray

__all__ = ["Click", "Mouse"]

_STILL = 4.0
"""Pixels of the screen that the mouse may move in a click: hands are not still."""


@dataclass(frozen=True, eq=False)
class Click:
    """Where the mouse was pressed.

    Parameters
    ----------
    value : int
        The label there; in 3D that of the first object along the ray.
    point : ndarray of int, shape (ndim,), or None
        The pixel; None outside of the labels, and in 3D where only the object is known.
    more : bool
        Whether Shift was held.
    """

    value: int
    point: tuple[int, ...] | None
    more: bool = False


class Mouse:
    """Follows the mouse on one layer.

    Parameters
    ----------
    on_click : callable
        Called with a `Click`.
    on_line : callable
        Called with an array (n, ndim) of places, and whether the line is complete.
    """

    def __init__(self, on_click: Callable[[Click], None], on_line: Callable[[NDArray[np.float64], bool], None]) -> None:
        self._on_click = on_click
        self._on_line = on_line
        self._layer: Labels | None = None
        self._drags = False
        self.more = False
        """Whether Shift was held when the mouse was pressed."""

    def hold(self, layer: Labels, *, drags: bool) -> None:
        """Listen to a layer; with `drags`, dragging draws lines and does not move the view."""
        self.let_go()
        layer.mode = "pan_zoom"
        self._layer, self._drags = layer, drags
        layer.mouse_pan = not drags
        layer.mouse_drag_callbacks.append(self._follow)
        if drags:
            layer.bind_key("Space", self._move_view, overwrite=True)

    def let_go(self) -> None:
        """Give the mouse back to napari."""
        layer, self._layer = self._layer, None
        if layer is None:
            return
        with contextlib.suppress(ValueError):
            layer.mouse_drag_callbacks.remove(self._follow)
        if self._drags:
            layer.bind_key("Space", None)
        if str(layer.mode) == "pan_zoom":
            layer.mouse_pan = True

    def _move_view(self, layer: Labels) -> Iterator[None]:
        """Move the view while the key is held."""
        layer.mouse_pan = True
        yield
        held = self._drags and self._layer is layer
        layer.mouse_pan = not held

    def _follow(self, layer: Labels, event: Any) -> Iterator[None]:
        if event.button != 1 or self._layer is None or layer is not self._layer:
            return
        pans = layer.mouse_pan
        flat = len(event.dims_displayed) == 2
        click = _click(layer, event)
        self.more = click.more
        pressed, line, moved = np.asarray(event.pos), [_place(layer, event)], False
        yield
        while event.type == "mouse_move":
            moved = moved or float(np.abs(np.asarray(event.pos) - pressed).max()) > _STILL
            if moved and flat and not pans:
                line.append(_place(layer, event))
                self._on_line(np.array(line), False)
            yield
        if not moved:
            self._on_click(click)
        elif flat and not pans:
            self._on_line(np.array(line), True)


def _place(layer: Labels, event: Any) -> NDArray[np.float64]:
    return shown_at(layer, event.position, event.dims_displayed)


def _click(layer: Labels, event: Any) -> Click:
    more = "Shift" in event.modifiers
    if len(event.dims_displayed) == 2:
        place = tuple(int(part) for part in np.round(_place(layer, event)))
        inside = all(0 <= part < size for part, size in zip(place, layer.data.shape, strict=True))
        return Click(int(np.asarray(layer.data[place])), place, more) if inside else Click(0, None, more)
    value = layer.get_value(event.position, view_direction=event.view_direction, dims_displayed=event.dims_displayed, world=True)
    return Click(int(value or 0), None, more)
