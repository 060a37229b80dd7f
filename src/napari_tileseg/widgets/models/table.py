"""The models as a table that can be searched and sorted; a narrow dock shows its first columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QModelIndex, QSize, QSortFilterProxyModel, Qt, Signal
from qtpy.QtWidgets import QHeaderView, QSizePolicy, QWidget

from napari_tileseg.widgets.models.rows import COLUMNS, Row, cell, glyph, matches, tip
from napari_tileseg.widgets.parts.rows import SIDE, RowTable, RowView

if TYPE_CHECKING:
    from collections.abc import Sequence


__all__ = ["ModelTable", "ModelView"]

_SORT = Qt.ItemDataRole.UserRole

_WIDEST = "a class, another one"
"""No column but the first is wider than this; the whole is in the tooltip."""

_FEW = 12
"""So many of the longest words of a column are measured."""

_PADDING = 12
"""Pixels of a cell that its words cannot take."""

_MODEL = "Nuclei 2D"
"""So much of a name is always shown before another column is."""


class ModelTable(RowTable[Row]):
    """A row a model."""

    HEADS = COLUMNS
    GLYPHS = ("", "check", "error", "warning")

    def fill(self, rows: Sequence[Row]) -> None:
        """Show other models."""
        self.beginResetModel()
        self.rows = list(rows)
        self.endResetModel()

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self.rows):
            return None
        row, column = self.rows[index.row()], COLUMNS[index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return cell(row, column)
        if role == Qt.ItemDataRole.DecorationRole and column == "Model":
            return self._icons.get(glyph(row))
        if role == Qt.ItemDataRole.ToolTipRole:
            return tip(row)
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return tip(row).replace("\n", ", ") if column == "Model" else cell(row, column)
        if role == _SORT:
            return row.size or 0 if column == "Size" else cell(row, column).casefold()
        return None


class _Filter(QSortFilterProxyModel):
    """Shows the models that have the words of a search."""

    def __init__(self, table: ModelTable, parent: QWidget) -> None:
        super().__init__(parent)
        self.words = ""
        self._table = table
        self.setSourceModel(table)
        self.setSortRole(_SORT)

    def filterAcceptsRow(self, source_row: int, source_parent: QModelIndex) -> bool:
        return matches(self._table.rows[source_row], self.words)

    def search(self, words: str) -> None:
        self.words = words
        self.invalidateFilter()


class ModelView(RowView):
    """The table; the selected row is told by its model, whatever is shown and however it is sorted.

    Signals
    -------
    chosen
        Another row is selected, or none.
    opened
        The user has pressed Enter on a row, or clicked it twice.
    """

    chosen = Signal()
    opened = Signal()

    def __init__(self, table: ModelTable, parent: QWidget | None = None) -> None:
        super().__init__("Models", parent)
        self._table = table
        self._filter = _Filter(table, self)
        self._sorted: int | None = None
        self._longest: dict[str, list[str]] = {}
        self.setModel(self._filter)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setIconSize(QSize(SIDE, SIDE))
        self.setSizePolicy(QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding))
        _, head = self.heads
        head.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        head.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        head.setSectionsClickable(True)
        head.setMinimumSectionSize(24)
        head.sectionClicked.connect(self._on_head)
        self._filter.modelReset.connect(self._on_reset)
        selection = self.selectionModel()
        assert selection is not None
        selection.currentRowChanged.connect(self._on_current)
        self.activated.connect(self._on_opened)

    @property
    def row(self) -> Row | None:
        """The selected model."""
        index = self.currentIndex()
        number = self._filter.mapToSource(index).row() if index.isValid() else -1
        return self._table.rows[number] if 0 <= number < len(self._table.rows) else None

    @property
    def shown(self) -> list[Row]:
        """The models that are shown, from top to bottom."""
        return [self._table.rows[self._filter.mapToSource(self._filter.index(place, 0)).row()] for place in range(self._filter.rowCount())]

    def search(self, words: str) -> None:
        """Show the models that have these words; the first one is selected where the selected one has not."""
        self._filter.search(words)
        if self.row is None:
            self.choose_first()

    def choose(self, ref: str) -> bool:
        """Select a model by its reference; False if it is not shown."""
        for place, row in enumerate(self.shown):
            if ref and ref in (row.ref, row.name):
                self.setCurrentIndex(self._filter.index(place, 0))
                return True
        return False

    def choose_first(self) -> None:
        """Select the first model."""
        self.setCurrentIndex(self._filter.index(0, 0))

    def fit(self) -> None:
        """Give rows and columns the size that the font asks for, and hide the columns that there is no room for."""
        metrics = self.fontMetrics()
        side, head = self.heads
        side.setDefaultSectionSize(metrics.height() + 6)
        left = self.width() - metrics.horizontalAdvance(_MODEL) - SIDE - 12
        widest = metrics.horizontalAdvance(_WIDEST)
        for number, column in enumerate(COLUMNS[1:], 1):
            words = self._longest.get(column, [])
            if not any(words):
                self.setColumnHidden(number, True)
                continue
            needed = min(max(map(metrics.horizontalAdvance, (column, *words))), widest) + _PADDING
            there = left >= needed
            self.setColumnHidden(number, not there)
            if there:
                head.resizeSection(number, needed)
                left -= needed
            else:
                left = 0  # columns keep their order: no later one takes its place

    def resizeEvent(self, event: Any) -> None:
        super().resizeEvent(event)
        self.fit()

    def sizeHint(self) -> QSize:
        return self.minimumSizeHint()  # it takes what the rest leaves

    def minimumSizeHint(self) -> QSize:
        return QSize(120, 5 * (self.fontMetrics().height() + 6))

    def _on_reset(self) -> None:
        """Note the longest words of each column."""
        words = {column: {cell(row, column) for row in self._table.rows} for column in COLUMNS[1:]}
        self._longest = {column: sorted(found, key=len)[-_FEW:] for column, found in words.items()}
        self.fit()

    def _on_head(self, section: int) -> None:
        """Sort by a column; the third click brings the order back that the models came in."""
        head = self.horizontalHeader()
        assert head is not None
        order = Qt.SortOrder.AscendingOrder
        if self._sorted == section and self._filter.sortOrder() == order:
            order = Qt.SortOrder.DescendingOrder
        elif self._sorted == section:
            section = -1
        self._sorted = section
        head.setSortIndicatorShown(section >= 0)
        if section >= 0:
            head.setSortIndicator(section, order)
        self._filter.sort(section, order)

    def _on_current(self, index: QModelIndex, before: QModelIndex) -> None:
        self.chosen.emit()

    def _on_opened(self, index: QModelIndex) -> None:
        self.opened.emit()
