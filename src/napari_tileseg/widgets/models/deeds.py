"""What the links of the Models dock do beside the dock: choose files, show cards and keys, use a model in Segment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from napari.layers import Image
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QDockWidget, QFileDialog, QMenu, QMessageBox, QWidget

from napari_tileseg.widgets.deeds import show_keys
from napari_tileseg.widgets.dialogs import TextDialog
from napari_tileseg.widgets.segment import dock_of
from napari_tileseg.widgets.states import Message

if TYPE_CHECKING:
    import napari

    from napari_tileseg.widgets.models.rows import Row
    from napari_tileseg.widgets.models.session import ModelsSession

__all__ = ["KEYS", "ModelsDeeds", "bring_to_front"]

KEYS = (
    ("Ctrl+Enter", "press the big button"),
    ("Enter", "in the table: the same"),
    ("Ctrl+F", "search"),
    ("Esc", "cancel, while something goes on"),
    ("?", "these keys"),
)

_FILES = "Models (*.zip *.onnx *.pt *.pth *.ts *.pt2 *.ckpt *.safetensors *.yaml);;All files (*)"


class ModelsDeeds(QObject):
    """Windows beside the dock.

    Signals
    -------
    told
        A `Message` to show.
    """

    told = Signal(object)

    def __init__(self, viewer: napari.viewer.Viewer, session: ModelsSession, dock: QWidget) -> None:
        super().__init__(dock)
        self._viewer = viewer
        self._session = session

    @property
    def _dock(self) -> QWidget:
        return cast("QWidget", self.parent())

    def ask_import(self, button: QWidget | None) -> None:
        """Ask whether files, a folder or something on the web is to be imported: a menu at the link."""
        menu = QMenu(self._dock)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for text, deed in (("Files...", self.ask_files), ("Folder...", self.ask_folder), ("Address...", self._session.ask_address)):
            action = menu.addAction(text)
            assert action is not None  # Qt makes one for every text
            action.triggered.connect(lambda _checked=False, chosen=deed: chosen())
        place = button or self._dock
        menu.popup(place.mapToGlobal(place.rect().bottomLeft()))

    def ask_files(self) -> None:
        """Ask for files, and import them."""
        chosen, _ = QFileDialog.getOpenFileNames(self._dock, "Import a model", "", _FILES)
        self._session.bring(chosen)

    def ask_folder(self) -> None:
        """Ask for a folder, and import it."""
        chosen = QFileDialog.getExistingDirectory(self._dock, "Import a model")
        if chosen:
            self._session.bring([chosen])

    def export(self, row: Row) -> None:
        """Ask for a file, and write the model there in our own format."""
        chosen, _ = QFileDialog.getSaveFileName(
            self._dock, "Export a model", f"{row.name}.tileseg.zip", "TileSeg model (*.tileseg.zip);;All files (*)"
        )
        if not chosen:
            return
        path = Path(chosen)
        if not path.name.endswith(".zip"):
            path = path.with_name(f"{path.name}.tileseg.zip")
            buttons = QMessageBox.StandardButton
            if path.exists() and buttons.Yes != QMessageBox.question(
                self._dock, "Export a model", f'"{path.name}" is there already. Replace it?', buttons.Yes | buttons.No, buttons.No
            ):
                return
        self._session.export(row.ref, row.title, path)

    def remove(self, row: Row) -> None:
        """Ask whether a model is to be deleted, and delete it; no by default."""
        buttons = QMessageBox.StandardButton
        question = QMessageBox(QMessageBox.Icon.Question, "Remove a model", "", buttons.Yes | buttons.No, self._dock)
        question.setText(f"Delete {row.title} from this computer? What it was imported from stays where it is.")
        question.setDefaultButton(buttons.No)
        if question.exec() == buttons.Yes:
            self._session.remove(row.ref, row.title)

    def show_card(self, row: Row) -> None:
        """Show all that the authors of a model say of it."""
        dock = self._dock
        self._session.shelf.show_card(row.ref, lambda text: TextDialog(row.title, text, markdown=True, parent=dock).show())

    def use(self, name: str) -> bool:
        """Choose a model in the Segment dock, and bring that to the front."""
        dock = dock_of(self._viewer)
        if not dock.choose_model(name):
            self.told.emit(Message("error", f"{name} is not among the models that Segment lists. Import it again."))
            return False
        bring_to_front(dock)
        return True

    def try_out(self, name: str) -> None:
        """Segment the active image with a model."""
        if not isinstance(self._viewer.layers.selection.active, Image):
            self.told.emit(Message("warning", "No image is active. Click an image in the layer list, and try again."))
        elif self.use(name):
            dock = dock_of(self._viewer)
            dock.segment_active()

    def show_keys(self) -> None:
        """Show the keys of the dock."""
        show_keys(self._dock, KEYS)


def bring_to_front(dock: QWidget) -> None:
    """Show the frame of a dock before those that lie over it."""
    frame = dock.parent()
    if isinstance(frame, QDockWidget):
        frame.show()
        frame.raise_()
