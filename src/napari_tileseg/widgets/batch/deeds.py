"""What the links of the Batch dock do: open folder and report, tell details, export, copy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from qtpy.QtCore import QObject, QUrl, Signal
from qtpy.QtGui import QDesktopServices

from napari_tileseg.models.registry import find_spec
from napari_tileseg.widgets.batch.choices import batch_command
from napari_tileseg.widgets.deeds import copy_details, export_job, show_help, show_keys
from napari_tileseg.widgets.dialogs import TextDialog, copy_text
from napari_tileseg.widgets.states import Message

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_tileseg.widgets.batch.outlook import Order
    from napari_tileseg.widgets.batch.rows import Row
    from napari_tileseg.widgets.batch.session import BatchSession

__all__ = ["KEYS", "BatchDeeds"]

KEYS = (
    ("Ctrl+Enter", "press the big button"),
    ("Esc", "cancel, while a batch goes on"),
    ("Up, Down", "in the table: show the file before, the next one"),
    ("?", "these keys"),
)

_DEEDS = ("Copy as command", "Export job")


class BatchDeeds(QObject):
    """Windows and files beside the dock.

    Signals
    -------
    told
        A `Message` to show.
    """

    told = Signal(object)

    def __init__(self, session: BatchSession, dock: QWidget) -> None:
        super().__init__(dock)
        self._session = session

    @property
    def _dock(self) -> QWidget:
        return cast("QWidget", self.parent())

    def open_folder(self) -> None:
        """Show the folder of the results in the system's file manager."""
        if self._session.order is not None:
            self._open(Path(self._session.order.job.output).expanduser())

    def open_report(self) -> None:
        """Show the report in a browser."""
        result = self._session.state.result
        if result is not None and result.report:
            self._open(Path(result.report))

    def show_in_folder(self, row: Row | None) -> None:
        """Show a file in the system's file manager, selected where that is possible."""
        if row is None or not row.input:
            return
        path = Path(row.input)
        # Explorer reads its line itself: with quotes around the whole word, as a list would have, it shows the user's documents.
        commands: dict[str, str | list[str]] = {"win32": f'explorer /select,"{path}"', "darwin": ["open", "-R", str(path)]}
        if sys.platform in commands and path.exists():
            subprocess.Popen(commands[sys.platform])
        else:
            self._open(path.parent)

    def show_details(self) -> None:
        """Show what the batch is."""
        order = self._session.order
        if order is None:
            return
        dialog = TextDialog("Details", order.job.model_dump_json(indent=2), deeds=_DEEDS, parent=self._dock)
        dialog.chosen.connect(lambda deed: self.copy_command(order) if deed == _DEEDS[0] else self.export(order))
        dialog.show()

    def copy_command(self, order: Order | None) -> None:
        """Put the command that runs a batch on the clipboard."""
        if order is None:
            self.told.emit(Message("warning", "The fields do not make a batch yet."))
            return
        copy_text(batch_command(order.job, find_spec(order.job.models[0]), workers=order.workers, cluster=order.cluster))
        self.told.emit(Message("info", "The command is on the clipboard."))

    def export(self, order: Order | None) -> None:
        """Write the job to a file, for the command line: ``tileseg run FILE``."""
        if order is None:
            self.told.emit(Message("warning", "The fields do not make a batch yet."))
            return
        message = export_job(order.job, f"{Path(order.job.output).name}.json", self._dock)
        if message is not None:
            self.told.emit(message)

    def show_help(self) -> None:
        """Say what can be done about a failure."""
        show_help(self._session.state.sentence, self._dock)

    def show_keys(self) -> None:
        """Show the keys of the dock."""
        show_keys(self._dock, KEYS)

    def copy_details(self) -> None:
        """Put what a bug report needs on the clipboard."""
        copy_details(self._session.state)

    def _open(self, path: Path) -> None:
        if not path.exists() or not QDesktopServices.openUrl(QUrl.fromLocalFile(str(path))):
            self.told.emit(Message("warning", f"{path} could not be opened."))
