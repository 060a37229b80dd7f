"""``RefineDesk``: a viewer with the Refine dock in it, worked by mouse and keyboard."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.widgets.refine import RefineWidget

PATIENCE = 60.0
"""Seconds after which a test gives up waiting; a busy machine is no bug."""


def blobs(shape: tuple[int, ...] = (60, 80), dtype: Any = np.uint16) -> NDArray[Any]:
    """Return labels: 1 a square, 2 one beside it, 3 a long bar, 4 a ring."""
    plane = np.zeros(shape[-2:], dtype)
    plane[5:15, 5:15] = 1
    plane[5:15, 15:25] = 2
    plane[25:33, 5:45] = 3
    plane[40:55, 40:55] = 4
    plane[45:50, 45:50] = 0
    labels = np.zeros(shape, dtype)
    labels[...] = plane
    return labels


class RefineDesk:
    """A viewer with the dock in it."""

    def __init__(self, viewer: Any, qtbot: Any, dock: RefineWidget) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.dock = dock
        self.session = dock.session
        self.form = dock.form

    @property
    def text(self) -> str:
        """What the message says."""
        return self.dock.message.text.text() if self.dock.message.shown is not None else ""

    @property
    def layer(self) -> Any:
        assert self.session.labels is not None
        return self.session.labels

    @property
    def data(self) -> NDArray[Any]:
        return np.asarray(self.layer.data)

    def add(self, labels: Any, **more: Any) -> Any:
        """Add a labels layer, and wait until its objects are known."""
        layer = self.viewer.add_labels(labels, **more)
        self.qtbot.wait(1)
        work = self.session.work
        if work is not None:
            looked: list[bool] = []
            work.when_looked(lambda: looked.append(True))
            self.until(lambda: bool(looked))
        return layer

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited in vain: {self.session.state}, {self.text!r}"
            self.qtbot.wait(5)

    def settle(self) -> None:
        """Wait until nothing goes on in another thread."""
        self.until(lambda: not self.session.busy)

    def tool(self, name: str) -> None:
        """Press the button of a tool with the mouse."""
        self.qtbot.mouseClick(self.form.tools[name], Qt.MouseButton.LeftButton)

    def follow(self, action: Any) -> None:
        """Click a link of the message."""
        self.qtbot.mouseClick(self.dock.message.links.buttons[action], Qt.MouseButton.LeftButton)

    def click(self, *point: float, shift: bool = False) -> None:
        """Click a pixel of the labels in the canvas, through napari's own callbacks."""
        self.drag([point], shift=shift)
        self.settle()

    def drag(self, points: Sequence[Sequence[float]], *, shift: bool = False) -> None:
        """Press the mouse at the first pixel, move it through the others, and let it go."""
        layer = self.layer
        event = _Event(layer, points[0], self.viewer, shift=shift)
        runs = [callback(layer, event) for callback in layer.mouse_drag_callbacks]
        runs = [run for run in runs if run is not None and hasattr(run, "__next__")]
        for run in runs:
            next(run)
        event.type = "mouse_move"
        for point in points[1:]:
            event.move(layer, point)
            for run in runs:
                next(run)
        event.type = "mouse_release"
        for run in runs:
            next(run, None)
        self.settle()

    def press(self, key: str) -> None:
        """Press a key on the canvas, as napari looks it up."""
        from napari.utils.key_bindings import coerce_keybinding

        from napari_tileseg.widgets.keys import CONTROL

        bound = coerce_keybinding(key.replace("Control", CONTROL))
        for keymap in (self.layer.keymap, type(self.layer).class_keymap):
            if bound in keymap:
                keymap[bound](self.layer)
                break
        self.settle()

    def paint(self, points: Sequence[Sequence[float]], label: int) -> None:
        """Paint with napari's own brush, one stroke."""
        layer = self.layer
        layer.selected_label = label
        with layer.block_history():
            for point in points:
                layer.paint(point, label)


class _Event:
    """What napari's callbacks are given for the mouse."""

    def __init__(self, layer: Any, point: Sequence[float], viewer: Any, *, shift: bool) -> None:
        self.type = "mouse_press"
        self.button = 1
        self.modifiers = ("Shift",) if shift else ()
        self.dims_displayed = list(viewer.dims.displayed)
        self.view_direction = None if viewer.dims.ndisplay == 2 else np.array([1.0, 0, 0])
        self.handled = False
        self.move(layer, point)

    def move(self, layer: Any, point: Sequence[float]) -> None:
        self.position = layer.data_to_world(point)
        self.pos = np.array(point[-2:]) * 10.0
