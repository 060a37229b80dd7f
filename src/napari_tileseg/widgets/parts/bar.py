"""A progress bar that says what it counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QProgressBar, QWidget

if TYPE_CHECKING:
    from napari_tileseg.widgets.states import Bar

__all__ = ["ProgressBar"]

_STEPS = 1000


class ProgressBar(QProgressBar):
    """Hidden while there is nothing to count; its words stand inside."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Progress")
        self.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.setTextVisible(True)
        self.setMinimumWidth(40)
        self.hide()

    def show_bar(self, bar: Bar | None) -> None:
        """Show the words and the share of a `Bar`, or nothing."""
        self.setVisible(bar is not None)
        if bar is None:
            return
        # A bar of unknown length stands still with its words: Qt's busy bar shows no text in most styles.
        # Qt paints a bar at once when its value is set, and the canvas with it; with updates off it is painted with all else.
        self.setUpdatesEnabled(False)
        self.setRange(0, _STEPS)
        self.setValue(round((bar.share or 0) * _STEPS))
        self.setUpdatesEnabled(True)
        self.setFormat(bar.text.replace("%", "%%"))
        self.setAccessibleDescription(bar.text)
