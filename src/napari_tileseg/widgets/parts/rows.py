"""``RowTable``: a table whose rows are held as a list, with a glyph before the first column; and ``RowView``, which shows one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSize, Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_tileseg.widgets.parts.button import tinted_icon

if TYPE_CHECKING:
    from qtpy.QtGui import QIcon
    from qtpy.QtWidgets import QWidget

__all__ = ["SIDE", "RowTable", "RowView"]

SIDE = 14
"""Pixels of a glyph."""

Row = TypeVar("Row")


class RowTable(QAbstractTableModel, Generic[Row]):
    """What such tables share; `data` and how rows come in are their own.

    Attributes
    ----------
    HEADS : tuple of str
        Words above the columns.
    GLYPHS : tuple of str
        Names of the icons that a row may have; empty for none.
    """

    HEADS: ClassVar[tuple[str, ...]] = ()
    GLYPHS: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self._icons: dict[str, QIcon] = {}

    def set_theme(self, theme: str, color: str) -> None:
        """Take the glyphs from another theme, in its icon colour."""
        self._icons = {name: tinted_icon(theme, name, QSize(SIDE, SIDE), color) for name in self.GLYPHS}
        if self.rows:
            self.dataChanged.emit(self.index(0, 0), self.index(len(self.rows) - 1, 0), [Qt.ItemDataRole.DecorationRole])

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        return 0 if parent is not None and parent.isValid() else len(self.HEADS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self.HEADS[section]
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        return None


class RowView(QTableView):
    """Shows whole rows, without grid and numbers; Tab leaves it.

    Parameters
    ----------
    name : str
        What it is called where it is read aloud.
    """

    def __init__(self, name: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("files")  # what the style sheets speak of
        self.setAccessibleName(name)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        side, head = self.heads
        side.hide()
        side.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        head.setHighlightSections(False)

    @property
    def heads(self) -> tuple[QHeaderView, QHeaderView]:
        """What stands beside the rows, and above the columns."""
        side, head = self.verticalHeader(), self.horizontalHeader()
        assert side is not None and head is not None  # every table has both
        return side, head
