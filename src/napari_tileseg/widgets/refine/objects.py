"""``Objects``: the fold with the table of all objects, which selects with the layer, and goes out as CSV."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from napari_tileseg.io.tables import write_table
from napari_tileseg.widgets.late import Late
from napari_tileseg.widgets.parts import Fold, Note
from napari_tileseg.widgets.refine.checks import CHECK, column
from napari_tileseg.widgets.refine.gaze import look_at
from napari_tileseg.widgets.refine.sheets import SCORE, sheet_of
from napari_tileseg.widgets.refine.table import ObjectTable, ObjectView
from napari_tileseg.widgets.states import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.widgets.refine.session import RefineSession

__all__ = ["Objects", "full_table"]

_SHAPED = 20_000
"""Shapes of more objects than that do not go into a file: they take a millisecond each."""


class Objects(Fold):
    """A table, a note, Export CSV.

    Parameters
    ----------
    session : RefineSession
    """

    def __init__(self, session: RefineSession) -> None:
        self._session = session
        content = QWidget()
        content.setObjectName("plain")
        super().__init__("Objects", content)
        self.table = ObjectTable()
        self.view = ObjectView(self.table)
        self.note = Note()
        self.note.setAccessibleName("What is measured")
        self.export = QPushButton("Export CSV...")
        self.export.setAccessibleName("Export CSV")
        self.export.setToolTip("Write what is known of each object, at all time points, into a file.")
        row = QHBoxLayout()
        row.addWidget(self.note, 1)
        row.addWidget(self.export)
        layout = QVBoxLayout(content)
        layout.setContentsMargins(8, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.view)
        layout.addLayout(row)
        self._layer: Labels | None = None
        self._sorting: tuple[str, bool] | None = None
        self.table.wanted.connect(session.sheets.shape)
        self.view.chosen.connect(self._on_rows)
        self.view.opened.connect(self._on_opened)
        self.view.heading.connect(self._on_heading)
        self.export.clicked.connect(self.ask)
        self.toggled.connect(self._on_toggled)
        self.destroyed.connect(lambda *_: session.sheets.want("objects", False))
        session.sheets.changed.connect(self._on_sheet)
        session.sheets.shaped.connect(self._on_shaped)
        session.chosen.connect(self._on_chosen)
        session.looked.connect(self._count)
        session.edited.connect(self._count)
        session.changed.connect(self._on_state)
        self._on_chosen()

    def widgets_in_order(self) -> list[Any]:
        """Return the fields from top to bottom, as Tab takes them."""
        return [self.header, self.view, self.export]

    # -- what is shown ---------------------------------------------------------------------------------------------

    def _on_toggled(self, opened: bool) -> None:
        self._session.sheets.want("objects", opened)
        self._say()

    def _on_chosen(self) -> None:
        layer = self._session.labels
        if layer is not self._layer:
            if self._layer is not None:
                self._layer.events.selected_label.disconnect(self._on_label)
                self._layer.events.features.disconnect(self._on_features)
            self._layer = layer
            if layer is not None:
                layer.events.selected_label.connect(self._on_label)
                layer.events.features.connect(self._on_features)
        self._count()
        self._on_sheet()

    def _count(self, *_: Any) -> None:
        """Tell in the header how many objects there are."""
        work = self._session.work
        known = work is not None and work.canvas.looked
        self.say(f"{len(work.canvas.index):,}" if work is not None and known else "")

    def _on_state(self) -> None:
        self.export.setEnabled(self._session.work is not None and not self._session.busy)

    def _on_sheet(self) -> None:
        sheet, layer = self._session.sheets.sheet, self._layer
        said = _said(layer, sheet.labels) if sheet is not None and layer is not None else {}
        self.table.fill(sheet, said)
        self._select()
        self._say()

    def _on_shaped(self) -> None:
        self.table.shaped()
        if self._sorting is not None:
            (name, descending), self._sorting = self._sorting, None
            self._sort(name, descending)
        self._say()

    def _on_features(self, event: Any = None) -> None:
        if self.table.sheet is not None and self._layer is not None:
            self.table.say(_said(self._layer, self.table.sheet.labels))

    def _say(self) -> None:
        sheets = self._session.sheets
        if self._sorting is not None:
            self.note.setText("Measuring shapes")
        elif self.opened and sheets.sheet is None and self._session.work is not None:
            self.note.setText("Measuring")
        elif sheets.sheet is not None and not len(sheets.sheet):
            self.note.setText("There is no object here.")
        else:
            self.note.setText("")

    # -- order and selection ---------------------------------------------------------------------------------------

    def _on_heading(self, name: str, descending: bool) -> None:
        left = self.table.unmeasured(name)
        if left:
            self._sorting = (name, descending)
            self._session.sheets.shape(left)
            self._say()
        else:
            self._sort(name, descending)

    def _sort(self, name: str, descending: bool) -> None:
        if self.table.unmeasured(name):  # what was asked for before is only a part
            self._on_heading(name, descending)
            return
        self.table.sort_by(name, descending=descending)
        self._select()

    def _select(self) -> None:
        """Select in the table what is selected in the layer."""
        if self._layer is not None and self.table.sheet is not None:
            self.view.choose(self._session.selected_ids())

    def _on_rows(self, labels: list[int]) -> None:
        """Select in the layer what the user has selected in the table."""
        if self._layer is None or not labels:
            return
        self._session.select(labels)
        if len(labels) == 1:
            self._look(labels[0], zoom=False)

    def _on_label(self, event: Any = None) -> None:
        """Select in the table what the user has picked in the layer."""
        if self._layer is None or self.table.sheet is None or int(self._layer.selected_label) in self.view.selected()[:1]:
            return
        self.view.choose([int(self._layer.selected_label)])

    def _on_opened(self, label: int) -> None:
        self._look(label, zoom=True)

    def _look(self, label: int, *, zoom: bool) -> None:
        session = self._session
        work, viewer = session.work, session.viewer
        if work is None or viewer is None or self._layer is None or not work.canvas.looked:
            return
        if label in work.canvas.index and session.sheets.at in work.canvas.index.positions(label):
            session.guarded(
                lambda: look_at(viewer, work.layer, work.canvas, label, work.canvas.index.box(label, session.sheets.at), zoom=zoom)
            )

    # -- CSV -------------------------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask for a file, and write the table there in another thread."""
        if self._layer is None:
            return
        name, _ = QFileDialog.getSaveFileName(self, "Export objects", f"{self._layer.name}.csv", "CSV (*.csv)")
        if name:
            path = Path(name)
            self.write(path if path.suffix else path.with_suffix(".csv"))

    def write(self, path: Path) -> None:
        """Write the table of all time points, in another thread."""
        session, layer = self._session, self._layer
        if session.work is None or layer is None:
            return
        canvas, channels = session.work.canvas, session.sheets.channels()
        name = session.image.name if session.image is not None else layer.name
        session.run(
            "Measuring all objects",
            lambda cancelled: (write_table(full_table(canvas, channels, layer, cancelled), path, image=name), path)[1],
            Late(self, "_on_written"),
        )

    def _on_written(self, path: Path) -> None:
        self._session.tell(Message("done", f"Exported as {path.name}."))


def full_table(canvas: Canvas, channels: dict[str, Any], layer: Labels, cancel: Callable[[], bool]) -> dict[str, NDArray[Any]]:
    """Measure the objects of all time points.

    Returns
    -------
    dict of str to ndarray
        Columns: label, class and checked (where they are known), place along axes over which no object extends, measures.

    Raises
    ------
    Cancelled
    """
    axes = [str(name) for name in layer.axis_labels]
    tables: list[dict[str, NDArray[Any]]] = []
    for at in np.ndindex(*(canvas.shape[axis] for axis in canvas.outer)):
        sheet = sheet_of(canvas, channels, axes, at, cancel)
        if len(sheet) <= _SHAPED:
            for row in range(len(sheet)):
                if row % 64 == 0 and cancel():
                    return {}
                sheet.shape(row)
        said = _said(layer, sheet.labels)
        columns = {"label": sheet.labels, **{"checked" if name == CHECK else name: words for name, words in said.items()}}
        columns |= {axes[axis]: np.full(len(sheet), place) for axis, place in zip(canvas.outer, at, strict=True)}
        columns |= {name: sheet.column(name) for name in sheet.names if name not in columns and name != f"max {SCORE}"}
        tables.append({SCORE if name == f"mean {SCORE}" else name: values for name, values in columns.items()})
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]} if tables else {}


def _said(layer: Labels, labels: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return class and check of objects, as far as the layer's table knows any."""
    found = {name: column(layer, name, labels) for name in ("class", CHECK)}
    return {name: values for name, values in found.items() if values is not None and (values != "").any()}
