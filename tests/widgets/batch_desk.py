"""``BatchDesk``: a viewer with the Batch dock in it, worked by mouse and keyboard."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from qtpy.QtCore import Qt

from napari_tileseg.job import Job
from napari_tileseg.widgets.states import Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_tileseg.widgets.batch import BatchWidget
    from napari_tileseg.widgets.batch.rows import Row

PATIENCE = float(os.environ.get("BATCH_PATIENCE", "120"))
"""Seconds after which a test gives up waiting; a busy machine is no bug."""


def make_folder(folder: Path, count: int, *, side: int = 64) -> Path:
    """Fill a folder with small images of noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(7)
    for number in range(count):
        tifffile.imwrite(folder / f"image{number:02d}.tif", rng.normal(size=(side, side)).astype(np.float32))
    return folder


def save_job(folder: Path, model: str = "small-objects") -> Path:
    """Write a job file, for the settings of a batch."""
    path = folder / f"{model}.json"
    path.write_text(Job(model=model).model_dump_json())
    return path


class BatchDesk:
    """A viewer with the dock in it."""

    def __init__(self, viewer: Any, qtbot: Any, dock: BatchWidget) -> None:
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
    def box(self) -> str:
        return self.dock.box.label.text()

    @property
    def rows(self) -> dict[str, Row]:
        return {row.name: row for row in self.session.table.rows}

    @property
    def layers(self) -> list[str]:
        return [layer.name for layer in self.viewer.layers]

    def click(self, button: Any = None) -> None:
        """Press a button with the mouse; the big one by default."""
        self.qtbot.mouseClick(button or self.dock.button, Qt.MouseButton.LeftButton)

    def follow(self, action: Any) -> None:
        """Click a link of a message."""
        for links in (self.dock.message.links, self.dock.about_row.links, self.form.links):
            if action in links.shown and not links.isHidden():
                self.click(links.buttons[action])
                return
        raise AssertionError(f"there is no link {action}")

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            problems = [box.shown.text for box in self.form.problems.values() if box.shown is not None]
            assert time.monotonic() < end, f"waited in vain: {problems}, {self.box!r}, {self.text!r}, {self.layers}, {self.session.state}"
            self.qtbot.wait(10)

    def use(self, folder: Path, job: Path) -> None:
        """Fill in the form, and wait until the files are listed."""
        self.dock.use_job(job)
        self.form.images.write(str(folder))
        self.settle()

    def settle(self) -> None:
        """Wait until what a batch would do is known."""
        self.until(lambda: self.dock.order is not None)

    def start(self) -> None:
        self.click()
        self.until(lambda: self.session.active)

    def finish(self, *phases: Phase) -> None:
        """Wait for the end."""
        self.until(lambda: not self.session.active)
        assert self.phase in (phases or (Phase.DONE,)), self.session.state

    def over(self) -> int:
        """Count the files that are over."""
        return sum(row.state in ("done", "failed", "skipped") for row in self.session.table.rows)

    def row_at(self, name: str) -> Any:
        """Return where in the table a file is seen."""
        files = self.dock.files
        model = files.model()
        for place in range(model.rowCount()):
            if model.index(place, 0).data() == name:
                return files.visualRect(model.index(place, 0)).center()
        raise AssertionError(f"{name} is not shown")

    def click_row(self, name: str) -> None:
        """Click a file with the mouse."""
        self.qtbot.mouseClick(self.dock.files.viewport(), Qt.MouseButton.LeftButton, pos=self.row_at(name))
