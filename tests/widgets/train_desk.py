"""``TrainDesk``: a viewer with the Train dock in it, worked by mouse and keyboard, and examples that are quickly learnt."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt

from napari_tileseg.widgets.states import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.widgets.train import TrainWidget

PATIENCE = float(os.environ.get("TRAIN_PATIENCE", "150"))
"""Seconds after which a test gives up waiting; a busy machine is no bug."""


def scene(number: int, side: int = 64) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return an image of bright squares in noise, and the class of each pixel."""
    rng = np.random.default_rng(number)
    labels = np.zeros((side, side), np.int64)
    for _ in range(4):
        y, x = rng.integers(0, side - 16, 2)
        labels[y : y + 14, x : x + 14] = 1
    return (labels * 3 + rng.normal(size=labels.shape)).astype(np.float32), labels


class TrainDesk:
    """A viewer with the dock in it."""

    def __init__(self, viewer: Any, qtbot: Any, dock: TrainWidget) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.dock = dock
        self.session = dock.session
        self.form = dock.form

    @property
    def phase(self) -> Phase:
        return self.session.state.phase

    @property
    def text(self) -> str:
        """What the message says."""
        return self.dock.message.text.text() if self.dock.message.shown is not None else ""

    @property
    def problem(self) -> str:
        """What keeps a training from starting."""
        return self.form.problem.text.text() if self.form.problem.shown is not None else ""

    @property
    def layers(self) -> list[str]:
        return [layer.name for layer in self.viewer.layers]

    def click(self, button: Any = None) -> None:
        """Press a button with the mouse; the big one by default."""
        self.qtbot.mouseClick(button or self.dock.button, Qt.MouseButton.LeftButton)

    def follow(self, action: Any) -> None:
        """Click a link of the message."""
        self.click(self.dock.message.links.buttons[action])

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            told = (self.problem, self.dock.box.label.text(), self.text, self.layers, self.session.state)
            assert time.monotonic() < end, f"waited in vain: {told}"
            self.qtbot.wait(10)

    def open_pairs(self, count: int, *, side: int = 64) -> None:
        """Open images, and their labels over each."""
        for number in range(count):
            image, labels = scene(number, side)
            self.viewer.add_image(image, name=f"field {number}")
            self.viewer.add_labels(labels, name=f"field {number}_labels")

    def set(self, **values: str) -> None:
        """Write into fields under the folds, as a user would."""
        for name, text in values.items():
            for page in self.form.pages.values():
                if name in page.widgets:
                    page.widgets[name].setText(text)
                    page.widgets[name].textEdited.emit(text)

    def make_small(self, epochs: int = 2, steps: int = 4) -> None:
        """Ask for a training of a second."""
        arguments = "channels=[4, 8], stem_channels=4"
        self.set(arguments=arguments, window="32, 32", batch="4", epochs=str(epochs), epoch_steps=str(steps), warmup="0")
        self.form.pages["Labels"].widgets["task"].choose("classes")

    def settle(self) -> None:
        """Wait until the data is looked at."""
        self.until(lambda: self.dock.button.isEnabled() or self.problem)

    def start(self) -> None:
        self.settle()
        self.click()
        self.until(lambda: self.session.active)

    def finish(self, *phases: Phase) -> None:
        """Wait for the end."""
        self.until(lambda: not self.session.active)
        assert self.phase in (phases or (Phase.DONE,)), self.session.state
