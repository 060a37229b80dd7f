"""What every dock is: as large as napari's own, followed by the session of its viewer once it stands in a window."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSize
from qtpy.QtWidgets import QWidget

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent

    from napari_tileseg.widgets.docks import Docks

__all__ = ["Dock"]


class Dock(QWidget):
    """A dock that knows how large it would be, and takes note of its window.

    Parameters
    ----------
    docks : Docks
        Those of the session that ends with the window.
    """

    def __init__(self, docks: Docks) -> None:
        super().__init__()
        self.setObjectName("tileseg")  # what the style sheets speak of
        self._docks = docks

    def on_show(self) -> None:
        """Follow the window that the dock stands in; called whenever it comes into sight."""
        self._docks.watch(self)

    def showEvent(self, event: QShowEvent | None) -> None:
        if event is not None:
            super().showEvent(event)
        self.on_show()

    def sizeHint(self) -> QSize:
        return QSize(300, 700)

    def minimumSizeHint(self) -> QSize:
        return QSize(240, super().minimumSizeHint().height())
