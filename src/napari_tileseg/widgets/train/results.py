"""``ResultView``: the validation images, the worst first; a click shows one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QSizePolicy, QTableWidget, QTableWidgetItem, QWidget

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ResultView", "score_of"]


def score_of(scores: Mapping[str, float], measure: str) -> float:
    """Return the number by which images are ordered: the mean of the classes' Dice, or AP."""
    first = "ap50" if measure == "AP" else "dice"
    values = [value for name, value in scores.items() if name.split(" ")[0] == first and not math.isnan(value)]
    return sum(values) / len(values) if values else math.nan


class ResultView(QTableWidget):
    """A row a validation image.

    Signals
    -------
    picked
        Name of an image that was clicked, or reached with the keys and Enter.
    """

    picked = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(0, 2, parent)
        self.setObjectName("files")
        self.setAccessibleName("Validation images, the worst first")
        self.setToolTip("A click shows image, labels and what the model makes of it.")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setTabKeyNavigation(False)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        header, side = self.horizontalHeader(), self.verticalHeader()
        assert header is not None and side is not None
        side.hide()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.cellClicked.connect(self._on_row)
        self.cellActivated.connect(self._on_row)

    @property
    def names(self) -> list[str]:
        """What is listed, from top to bottom."""
        return [item.text() for row in range(self.rowCount()) if (item := self.item(row, 0)) is not None]

    def show_results(self, images: Sequence[Mapping[str, Any]], measure: str) -> None:
        """List images, the worst first; the selected one stays selected."""
        row = self.currentRow()
        held = self.item(row, 0)
        chosen = held.text() if held is not None and self.selectedItems() else ""
        self.setHorizontalHeaderLabels(["Worst first", measure])
        listed = sorted(((score_of(image["scores"], measure), image) for image in images), key=lambda pair: _order(pair[0]))
        self.setRowCount(len(listed))
        for place, (score, image) in enumerate(listed):
            name, value = QTableWidgetItem(image["name"]), QTableWidgetItem("-" if math.isnan(score) else f"{score:.2f}")
            tip = "\n".join(f"{key} {number:.3f}" for key, number in image["scores"].items())
            for item in (name, value):
                item.setToolTip(f"{image['name']}\n{tip}")
            value.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.setItem(place, 0, name)
            self.setItem(place, 1, value)
            if image["name"] == chosen:
                self.selectRow(place)
        self.fit()

    def fit(self) -> None:
        """Make rows as tall as the font needs."""
        side = self.verticalHeader()
        assert side is not None
        side.setDefaultSectionSize(self.fontMetrics().height() + 6)

    def sizeHint(self) -> QSize:
        return QSize(240, 120)

    def minimumSizeHint(self) -> QSize:
        return QSize(120, 66)

    def _on_row(self, row: int, column: int) -> None:
        item = self.item(row, 0)
        if item is not None:
            self.picked.emit(item.text())


def _order(score: float) -> float:
    return math.inf if math.isnan(score) else score
