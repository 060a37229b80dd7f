"""The files of a batch as a table that stays quick with thousands of rows."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QModelIndex, QSize, QSortFilterProxyModel, Qt, Signal
from qtpy.QtWidgets import QHeaderView, QSizePolicy, QWidget

from napari_tileseg.widgets.batch.rows import Row, counted, found_words, glyph, heard, state_words
from napari_tileseg.widgets.parts.rows import SIDE, RowTable, RowView

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable

    from qtpy.QtGui import QKeyEvent


__all__ = ["FileTable", "FileView"]

_STATE = Qt.ItemDataRole.UserRole


class FileTable(RowTable[Row]):
    """A row a file. Changes are gathered and told by `flush`, so that a quick batch does not paint for every file."""

    HEADS = ("File", "State")
    GLYPHS = ("", "check", "error", "long_right_arrow", "right_arrow", "warning")

    def __init__(self) -> None:
        super().__init__()
        self.idle = True
        self._changed: set[int] = set()

    def fill(self, rows: Iterable[Row], *, idle: bool) -> None:
        """Show other files.

        Parameters
        ----------
        rows : iterable of Row
        idle : bool
            Whether no batch has begun.
        """
        self.beginResetModel()
        self.rows, self.idle = list(rows), idle
        self._changed.clear()
        self.endResetModel()

    def begin(self, *, anew: bool = False) -> None:
        """Take note that a batch begins.

        Parameters
        ----------
        anew : bool
            It has made its list, and tells of each file that is done already: till then all wait.
        """
        self.idle = False
        for number, row in enumerate(self.rows):
            row.again = False
            if anew or row.state == "running":
                row.state, row.message = "waiting", ""
            self.touch(number)
        self.flush()

    def settle(self) -> None:
        """Take note that a batch is over: what was under way waits for the next one."""
        for number, row in enumerate(self.rows):
            if row.state == "running":
                row.state = "waiting"
                self.touch(number)
        self.flush()

    def hear(self, event: object) -> None:
        """Take an event in; it is seen after the next `flush`."""
        number = heard(self.rows, event)
        if number is not None:
            self._changed.add(number)

    def touch(self, number: int) -> None:
        """Take note that a row was changed by hand."""
        self._changed.add(number)

    def flush(self) -> bool:
        """Tell the view what has changed since the last time; return whether anything has."""
        changed, self._changed = sorted(self._changed), set()
        for _, group in groupby(enumerate(changed), key=lambda pair: pair[1] - pair[0]):
            numbers = [number for _, number in group]
            self.dataChanged.emit(self.index(numbers[0], 0), self.index(numbers[-1], len(self.HEADS) - 1))
        return bool(changed)

    def counts(self) -> Counter[str]:
        """Count the rows in each state."""
        return counted(self.rows)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self.rows):
            return None
        row = self.rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return row.name if index.column() == 0 else state_words(row, idle=self.idle)
        if role == Qt.ItemDataRole.DecorationRole and index.column() == 0:
            return self._icons.get(glyph(row))
        if role == Qt.ItemDataRole.ToolTipRole:
            return "\n".join(part for part in (row.name, found_words(row), row.message) if part)
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{row.name}, {state_words(row, idle=self.idle)}" if index.column() == 0 else state_words(row, idle=self.idle)
        if role == _STATE:
            return row.state
        return None


class _Filter(QSortFilterProxyModel):
    """Shows the rows in one state, or all."""

    def __init__(self, table: FileTable, parent: QWidget) -> None:
        super().__init__(parent)
        self.state = ""
        self._table = table
        self.setSourceModel(table)

    def filterAcceptsRow(self, source_row: int, source_parent: QModelIndex) -> bool:
        return not self.state or self._table.rows[source_row].state == self.state

    def show_state(self, state: str) -> None:
        self.state = state
        self.invalidateFilter()


class FileView(RowView):
    """The table; the selected row is told by its number in the batch, whatever is shown.

    Signals
    -------
    chosen
        The user has gone to a row, by mouse or key.
    stepped
        The user has gone there by a key: more steps may follow.
    opened
        The user has clicked a row or pressed Enter on it.
    """

    chosen = Signal(int)
    stepped = Signal(int)
    opened = Signal(int)

    def __init__(self, table: FileTable, parent: QWidget | None = None) -> None:
        super().__init__("Files of the batch", parent)
        self._table = table
        self._filter = _Filter(table, self)
        self.setModel(self._filter)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.setIconSize(QSize(SIDE, SIDE))
        policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Expanding)
        self.setSizePolicy(policy)
        _, head = self.heads
        head.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        head.setSectionResizeMode(1, QHeaderView.ResizeMode.Fixed)
        head.setSectionsClickable(False)
        selection = self.selectionModel()
        assert selection is not None
        selection.currentRowChanged.connect(self._on_current)
        self.clicked.connect(self._on_opened)
        self.activated.connect(self._on_opened)

    @property
    def number(self) -> int | None:
        """Number of the selected row in the batch."""
        index = self.currentIndex()
        return self._filter.mapToSource(index).row() if index.isValid() else None

    def show_state(self, state: str) -> None:
        """Show the rows in one state, or all for ``""``."""
        self._filter.show_state(state)

    def choose(self, number: int) -> None:
        """Select a row as if the user had gone there."""
        self.setCurrentIndex(self._filter.mapFromSource(self._table.index(number, 0)))

    def fit(self) -> None:
        """Give rows and the second column the size that the font asks for."""
        metrics = self.fontMetrics()
        side, head = self.heads
        side.setDefaultSectionSize(metrics.height() + 6)
        head.resizeSection(1, min(metrics.horizontalAdvance("9999 objects, 99 min") + 8, self.width() // 2))

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        before = self.number
        super().keyPressEvent(event)
        if self.number is not None and self.number != before:
            self.stepped.emit(self.number)

    def resizeEvent(self, event: Any) -> None:
        super().resizeEvent(event)
        self.fit()

    def sizeHint(self) -> QSize:
        return self.minimumSizeHint()  # it takes what the form leaves

    def minimumSizeHint(self) -> QSize:
        return QSize(120, 5 * (self.fontMetrics().height() + 6))

    def _on_current(self, index: QModelIndex, before: QModelIndex) -> None:
        self.chosen.emit(self._filter.mapToSource(index).row() if index.isValid() else -1)

    def _on_opened(self, index: QModelIndex) -> None:
        self.opened.emit(self._filter.mapToSource(index).row())
