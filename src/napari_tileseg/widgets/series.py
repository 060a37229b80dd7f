"""``SeriesDialog``: which series of a folder of DICOM are opened, where there are many."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QThread
from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMainWindow,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["FEW", "SeriesDialog", "ask_series"]

FEW = 3
"""Up to so many series are opened without a question."""


class SeriesDialog(QDialog):
    """A list of series to be ticked: number, description, modality, size and spacing.

    Parameters
    ----------
    name : str
        Of the folder.
    titles : sequence of str
        What `dicom_listing.listing` says of each series.
    """

    def __init__(self, name: str, titles: Sequence[str], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Open series")
        words = QLabel(f'"{name}" holds {len(titles)} series. Choose those to open.')
        words.setTextFormat(Qt.TextFormat.PlainText)
        words.setWordWrap(True)
        self.list = QListWidget()
        self.list.setAccessibleName("Series")
        self._items: list[QListWidgetItem] = []
        for number, title in enumerate(titles, 1):
            item = QListWidgetItem(f"{number}   {title}")
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Unchecked)
            self.list.addItem(item)
            self._items.append(item)
        self.list.setCurrentRow(0)
        self.go, self.all = QPushButton("Open"), QPushButton("Choose all")
        self.all.clicked.connect(self._tick_all)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.buttons.addButton(self.go, QDialogButtonBox.ButtonRole.AcceptRole)
        self.buttons.addButton(self.all, QDialogButtonBox.ButtonRole.ActionRole)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.list.itemChanged.connect(self._on_tick)
        self.list.itemDoubleClicked.connect(self._open_one)
        layout = QVBoxLayout(self)
        for part in (words, self.list, self.buttons):
            layout.addWidget(part)
        self.resize(560, 360)
        self._on_tick()

    def chosen(self) -> list[int]:
        """Return the places of the series that are ticked, from 0."""
        return [place for place, item in enumerate(self._items) if item.checkState() == Qt.CheckState.Checked]

    def _on_tick(self, *_: object) -> None:
        self.go.setEnabled(bool(self.chosen()))

    def _tick_all(self) -> None:
        for item in self._items:
            item.setCheckState(Qt.CheckState.Checked)

    def _open_one(self, item: QListWidgetItem) -> None:
        item.setCheckState(Qt.CheckState.Checked)
        self.accept()


def ask_series(name: str, titles: Sequence[str]) -> list[int]:
    """Let the user choose some of many series; all where they are few, or there is no window to ask in.

    Returns
    -------
    list of int
        Places from 0; none where the user wants nothing opened.
    """
    window = _window()
    if len(titles) <= FEW or window is None:
        return list(range(len(titles)))
    dialog = SeriesDialog(name, titles, window)
    chosen = dialog.chosen() if dialog.exec() else []
    dialog.deleteLater()
    return chosen


def _window() -> QWidget | None:
    """Return napari's window if somebody can see it, and this is the thread that may ask."""
    application = QApplication.instance()
    if application is None or QThread.currentThread() != application.thread():
        return None
    windows = (window for window in QApplication.topLevelWidgets() if isinstance(window, QMainWindow) and window.isVisible())
    return next(windows, None)
