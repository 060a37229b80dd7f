"""The objects as a table that stays quick with a hundred thousand rows: sorted as columns, put into words where it is seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QAbstractTableModel, QItemSelection, QItemSelectionModel, QModelIndex, QSize, Qt, QTimer, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QSizePolicy, QWidget

from napari_tileseg.widgets.parts.rows import RowView
from napari_tileseg.widgets.refine.checks import CHECK
from napari_tileseg.widgets.refine.sheets import SCORE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from qtpy.QtGui import QKeyEvent

    from napari_tileseg.measure.sheet import Sheet

__all__ = ["ObjectTable", "ObjectView", "words"]

_CLASS = "class"
_WORDS = (_CLASS, CHECK)
"""Columns of words, which come from the layer's own table."""

_SEEN = 200
"""Rows whose shapes are measured together."""


def words(name: str, value: Any) -> str:
    """Put a cell into words: numbers with four digits, nothing for what is not known."""
    if isinstance(value, str):
        return value
    number = float(value)
    if not np.isfinite(number):
        return ""
    if name == "label" or name.endswith("[px]") or name in ("pixels", "voxels") or (number == int(number) and abs(number) < 1e6):
        return f"{number:.0f}"
    return f"{number:.4g}" if 1e-3 <= abs(number) < 1e5 else f"{number:.3e}"


class ObjectTable(QAbstractTableModel):
    """A row an object.

    Signals
    -------
    wanted
        Shapes of these rows of the sheet are looked at and not measured yet.
    """

    wanted = Signal(list)

    def __init__(self) -> None:
        super().__init__()
        self.sheet: Sheet | None = None
        self.names: list[str] = []
        self.said: dict[str, NDArray[Any]] = {}
        self.order: NDArray[np.intp] = np.zeros(0, np.intp)
        self.sorted_by: tuple[str, bool] = ("label", False)
        self._columns: dict[str, NDArray[Any]] = {}
        self._asked: set[int] = set()
        self._ask = QTimer(self)
        self._ask.setSingleShot(True)
        self._ask.setInterval(0)
        self._ask.timeout.connect(self._tell)

    def fill(self, sheet: Sheet | None, said: Mapping[str, NDArray[Any]]) -> None:
        """Show other objects, or the same ones measured anew, in the order that was chosen before.

        Parameters
        ----------
        sheet : Sheet or None
        said : mapping of str to ndarray of str
            ``class`` and ``check`` of each row of the sheet, as far as there are any.
        """
        self.beginResetModel()
        self.sheet, self.said = sheet, dict(said)
        self._columns.clear()
        self._asked.clear()
        self.names = self._shown()
        self.order = self._sorted()
        self.endResetModel()

    def _shown(self) -> list[str]:
        """Return the columns: what one looks for first comes first."""
        if self.sheet is None:
            return []
        hidden = ("pixels", "voxels", f"max {SCORE}")
        names = [name for name in self.sheet.names if name not in hidden and not name.startswith(("first ", "last "))]
        score = f"mean {SCORE}"
        first = ["label", *(name for name in _WORDS if name in self.said), self.sheet.size_name, *([score] if score in names else [])]
        return first + [name for name in names if name not in first] + ["box"]

    def say(self, said: Mapping[str, NDArray[Any]]) -> None:
        """Take other words of the layer's table."""
        if set(said) != set(self.said):
            self.fill(self.sheet, said)
            return
        self.said = dict(said)
        if len(self.order):
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.order) - 1, len(self.names) - 1))

    def shaped(self) -> None:
        """Take note that more shapes are measured."""
        self._asked.clear()
        for name in self.sheet.shape_names if self.sheet is not None else ():
            self._columns.pop(name, None)
        if len(self.order):
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.order) - 1, len(self.names) - 1))

    def column(self, name: str) -> NDArray[Any]:
        """Return a column in the order of the sheet."""
        assert self.sheet is not None  # there are no columns without
        if name in self.said:
            return self.said[name]
        if name not in self._columns:
            self._columns[name] = self.sheet.column("label" if name == "box" else name)
        return self._columns[name]

    def label(self, row: int) -> int:
        """Return the object of a row that is shown."""
        assert self.sheet is not None
        return int(self.sheet.labels[self.order[row]])

    def row_of(self, label: int) -> int | None:
        """Return the row that shows an object."""
        at = self.sheet.row(label) if self.sheet is not None else None
        return None if at is None else int(np.flatnonzero(self.order == at)[0])

    def unmeasured(self, name: str) -> list[int]:
        """Return the rows of the sheet whose shape must be measured before they can be sorted by a column."""
        if self.sheet is None or name not in self.sheet.shape_names:
            return []
        return [row for row in range(len(self.sheet)) if not self.sheet.shaped(row)]

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        if not 0 <= column < len(self.names):
            return
        self.sort_by(self.names[column], descending=order == Qt.SortOrder.DescendingOrder)

    def sort_by(self, name: str, *, descending: bool = False) -> None:
        """Order the rows by a column; those without a value come last."""
        self.sorted_by = (name, descending)
        self.beginResetModel()
        self.order = self._sorted()
        self.endResetModel()

    def _sorted(self) -> NDArray[np.intp]:
        if self.sheet is None:
            return np.zeros(0, np.intp)
        name, descending = self.sorted_by
        if name not in self.names:
            return np.arange(len(self.sheet))
        values = self.column(name)
        if values.dtype == object:
            values = np.unique(values.astype(str), return_inverse=True)[1]
        unknown = np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)
        keys = values.astype(np.float64)
        return np.lexsort((-keys if descending else keys, unknown))

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.names)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if orientation == Qt.Orientation.Horizontal and 0 <= section < len(self.names):
            name = self.names[section]
            if role == Qt.ItemDataRole.DisplayRole:
                return SCORE if name == f"mean {SCORE}" else name
            if role == Qt.ItemDataRole.TextAlignmentRole:
                return int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)  # the arrow stands at the right
        return None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if not index.isValid() or index.row() >= len(self.order) or self.sheet is None:
            return None
        name, row = self.names[index.column()], int(self.order[index.row()])
        if role == Qt.ItemDataRole.DisplayRole:
            return self._cell(name, row)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(self._side(name) | Qt.AlignmentFlag.AlignVCenter)
        if role == Qt.ItemDataRole.AccessibleTextRole:
            return f"{name} {self._cell(name, row)}"
        return None

    def _side(self, name: str) -> Qt.AlignmentFlag:
        return Qt.AlignmentFlag.AlignLeft if name in _WORDS else Qt.AlignmentFlag.AlignRight

    def _cell(self, name: str, row: int) -> str:
        assert self.sheet is not None
        if name == "box":
            return " ".join(f"{part.start}-{part.stop - 1}" for part in self.sheet.box(row))
        if name in self.sheet.shape_names:
            if not self.sheet.shaped(row):
                self._asked.add(row)
                self._ask.start()
                return ""
            return words(name, self.sheet.shape(row).get(name, np.nan))
        return words(name, self.column(name)[row])

    def _tell(self) -> None:
        rows = sorted(self._asked)[:_SEEN]
        self._asked.clear()
        if rows:
            self.wanted.emit(rows)


class ObjectView(RowView):
    """The table; selected rows are told by their labels.

    Signals
    -------
    chosen
        Labels that the user has selected, the current one first.
    opened
        The label that the user has double-clicked, or pressed Enter on.
    heading
        The column by which the user wants the rows ordered, and whether the largest come first.
    """

    chosen = Signal(list)
    opened = Signal(int)
    heading = Signal(str, bool)

    def __init__(self, table: ObjectTable, parent: QWidget | None = None) -> None:
        super().__init__("Objects", parent)
        self._table = table
        self._quiet = False
        self.setModel(table)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        _, head = self.heads
        head.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
        head.setSectionsClickable(True)
        head.setSortIndicatorShown(True)
        head.sectionClicked.connect(self._on_heading)
        table.modelReset.connect(self._fit)
        selection = self.selectionModel()
        assert selection is not None
        selection.selectionChanged.connect(self._on_selection)
        self.doubleClicked.connect(lambda index: self.opened.emit(self._table.label(index.row())))

    def selected(self) -> list[int]:
        """Return the selected labels, the current one first."""
        selection = self.selectionModel()
        assert selection is not None
        rows: list[int] = []
        for part in list(selection.selection()):  # type: ignore[call-overload]  # stubs do not know that it can be iterated over
            rows += range(part.top(), part.bottom() + 1)
        current = self.currentIndex().row()
        rows = sorted(set(rows), key=lambda row: (row != current, row))
        return [self._table.label(row) for row in rows if row < len(self._table.order)]

    def choose(self, labels: Iterable[int], *, scroll: bool = True) -> None:
        """Select objects without telling of it."""
        rows = [row for label in labels if (row := self._table.row_of(label)) is not None]
        selection = self.selectionModel()
        assert selection is not None
        self._quiet = True
        try:
            wanted = QItemSelection()
            last = self._table.columnCount() - 1
            for row in rows:
                wanted.select(self._table.index(row, 0), self._table.index(row, last))
            selection.select(wanted, QItemSelectionModel.SelectionFlag.ClearAndSelect)
            if rows:
                selection.setCurrentIndex(self._table.index(rows[0], 0), QItemSelectionModel.SelectionFlag.NoUpdate)
                if scroll:
                    self._show(rows[0])
        finally:
            self._quiet = False

    def _show(self, row: int) -> None:
        """Scroll up or down to a row; the columns in view stay."""
        bar = self.horizontalScrollBar()
        at = bar.value() if bar is not None else 0
        self.scrollTo(self._table.index(row, 0))
        if bar is not None:
            bar.setValue(at)

    def _on_selection(self, *_: Any) -> None:
        if not self._quiet:
            self.chosen.emit(self.selected())

    def _on_heading(self, section: int) -> None:
        name, descending = self._table.names[section], False
        if self._table.sorted_by[0] == name:
            descending = not self._table.sorted_by[1]
        elif name not in ("label", "box", *_WORDS):
            descending = True  # the largest are looked for first
        self.heading.emit(name, descending)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and not event.modifiers():
            if self.currentIndex().isValid():
                self.opened.emit(self._table.label(self.currentIndex().row()))
            return
        super().keyPressEvent(event)

    def _fit(self) -> None:
        """Give rows and columns the size that the font and the first rows ask for."""
        metrics = self.fontMetrics()
        side, head = self.heads
        side.setDefaultSectionSize(metrics.height() + 6)
        name, descending = self._table.sorted_by
        for place, shown in enumerate(self._table.names):
            texts = [str(self._table.headerData(place, Qt.Orientation.Horizontal)) + "   "]
            if len(self._table.order):
                texts.append(str(self._table.data(self._table.index(len(self._table.order) - 1, place)) or ""))
            if shown in _WORDS:
                texts += sorted(set(self._table.said[shown].tolist()), key=len)[-1:]
            head.resizeSection(place, max(metrics.horizontalAdvance(text) for text in texts) + 14)
            if shown == name:
                head.setSortIndicator(place, Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder)

    def sizeHint(self) -> QSize:
        return QSize(240, 10 * (self.fontMetrics().height() + 6))

    def minimumSizeHint(self) -> QSize:
        return QSize(120, 4 * (self.fontMetrics().height() + 6))
