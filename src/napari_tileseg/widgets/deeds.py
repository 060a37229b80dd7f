"""What the links of the Segment dock do: save, tell details, help, copy."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_tileseg.errors import TileSegError
from napari_tileseg.io.files import is_zarr
from napari_tileseg.models.registry import card
from napari_tileseg.moving import move
from napari_tileseg.widgets import save as saving
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.details import DEEDS, command_line, details_text, help_text
from napari_tileseg.widgets.dialogs import KEYS, TextDialog, copy_text
from napari_tileseg.widgets.keys import named
from napari_tileseg.widgets.states import Action, Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.widgets.course import Course
    from napari_tileseg.widgets.models.session import ModelsSession
    from napari_tileseg.widgets.session import Order, Session
    from napari_tileseg.widgets.states import Run

__all__ = ["Deeds", "copy_details", "export_job", "show_help", "show_keys"]

_COPIED = 1 << 30
"""Labels up to this many bytes are copied before they are saved, so that painting may go on meanwhile."""


class Deeds(QObject):
    """Windows and files beside the dock.

    Signals
    -------
    told
        A `Message` to show, or None.
    """

    told = Signal(object)

    def __init__(self, session: Session, dock: QWidget) -> None:
        super().__init__(dock)
        self._session = session
        self._models: ModelsSession | None = None
        self._bridge = Bridge(self)

    @property
    def _dock(self) -> QWidget:
        return cast("QWidget", self.parent())

    def save(self) -> None:
        """Ask for a file and write the labels there, in another thread."""
        result, order = self._session.result, self._session.order
        if result is None or order is None or not result.shown:
            return
        self._session.put_back()
        path = saving.ask_path(self._dock, saving.default_name(result.volume, result.name, large=result.store is not None))
        if path is None or ((path.is_file() or is_zarr(path)) and not saving.confirm_overwrite(self._dock, path)):
            return
        wishes = saving.ask_mesh(self._dock, path, order.spec.classes, result.layers[-1].selected_label)
        if wishes is None:
            return
        volume = result.labels_volume()
        if isinstance(volume.data, np.ndarray) and volume.data.nbytes <= _COPIED:
            volume = volume.with_data(volume.data.copy())
        provenance, spec = {**self._session.provenance, **saving.by_hand(result.layers)}, order.spec
        self.told.emit(Message("info", f"Saving {path.name}"))
        image = result.volume
        self._bridge.background(
            lambda: saving.save(volume, path, spec, provenance, overwrite=True, image=image, wishes=wishes), self._on_saved
        )

    def _on_saved(self, answer: Any) -> None:
        if isinstance(answer, TileSegError):
            self.told.emit(Message("error", str(answer), (Action.SAVE,)))
        elif isinstance(answer, Exception):
            self.told.emit(Message("error", f"The labels could not be saved: {answer}. Choose another place.", (Action.SAVE,)))
        else:
            self.told.emit(Message("done", f"Saved as {answer.name}.", (Action.SAVE, Action.DETAILS)))

    def show_card(self, spec: ModelSpec) -> None:
        """Show a model's card."""
        TextDialog(spec.label, card(spec.name), markdown=True, parent=self._dock).show()

    def trust(self) -> None:
        """Find out what the model of the last run would run, and ask whether it may."""
        from napari_tileseg.widgets.models.session import models_session_of  # which imports what this module is made for

        viewer, order = self._session.viewer, self._session.order
        if viewer is None or order is None:
            return
        self._models = models_session_of(viewer)
        with contextlib.suppress(RuntimeError, TypeError):  # it was not connected
            self._models.told.disconnect(self._on_trust)
        self._models.told.connect(self._on_trust)
        self.told.emit(Message("info", f"Finding out what {order.spec.label} would run"))
        self._models.find_out(order.job.model, order.spec.label, self._dock)

    def _on_trust(self, message: Message | None) -> None:
        """Tell here what comes of a question that was asked here."""
        if message is not None and self._models is not None and self._models.asker is self._dock:
            self.told.emit(message)

    def show_details(self, provenance: Mapping[str, Any] | None = None) -> None:
        """Show what the run was, or what a provenance says of an earlier one."""
        if provenance:
            TextDialog("Details", details_text(provenance), parent=self._dock).show()
            return
        dialog = TextDialog("Details", details_text(self._session.provenance), deeds=DEEDS, parent=self._dock)
        dialog.chosen.connect(self._on_deed)
        dialog.show()

    def show_help(self, sentence: str) -> None:
        """Say what can be done about a failure."""
        show_help(sentence, self._dock)

    def show_keys(self) -> None:
        """Show the keys of the dock."""
        show_keys(self._dock)

    def copy_details(self) -> None:
        """Put what a bug report needs on the clipboard."""
        copy_details(self._session.state)

    def _on_deed(self, deed: str) -> None:
        order = self._session.order
        if order is None:
            return
        if deed == "Copy as command":
            copy_text(command_line(order.job, order.spec, saving.default_name(order.volume, f"{order.volume.name}_{order.spec.name}")))
        elif deed == "Export job":
            self._export(order)
        elif deed == "Run again":
            try:
                self._session.start(order)
            except TileSegError as error:
                self.told.emit(Message("error", str(error), (Action.HELP,)))

    def _export(self, order: Order) -> None:
        message = export_job(order.job, f"{order.volume.name}_{order.spec.name}.json", self._dock)
        if message is not None:
            self.told.emit(message)


def export_job(job: BaseModel, name: str, parent: QWidget) -> Message | None:
    """Ask for a file and write a job there; return what went wrong."""
    chosen, _ = QFileDialog.getSaveFileName(parent, "Export job", name, "Job (*.json)")
    if not chosen:
        return None
    path = Path(chosen)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_text(job.model_dump_json(indent=2) + "\n", encoding="utf-8")
        move(temporary, path)
    except OSError as error:
        return Message("error", f"The job could not be written: {error.strerror or error}. Choose another place.")
    return None


def show_help(sentence: str, parent: QWidget) -> None:
    """Say what can be done about a failure."""
    TextDialog("How to fix", help_text(sentence), parent=parent).show()


def copy_details(state: Run | Course) -> None:
    """Put what a bug report needs on the clipboard."""
    copy_text(f"{state.sentence}\n\n{state.details}".strip())


def show_keys(parent: QWidget, keys: Sequence[tuple[str, str]] = KEYS) -> None:
    """Show the keys of a dock."""
    TextDialog("Keys", "\n".join(f"{named(name):<14} {deed}" for name, deed in keys), parent=parent).show()
