"""The Batch dock: a folder of images becomes a folder of labels."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtWidgets import QFileDialog, QHBoxLayout, QLabel

from napari_tileseg.batch.job import BatchJob
from napari_tileseg.errors import TileSegError
from napari_tileseg.models.registry import list_models
from napari_tileseg.widgets.batch.choices import (
    ALL_LAYERS,
    SELECTED_LAYERS,
    Recipe,
    choices_of,
    default_output,
    load_job,
    paths_of,
    recipe_of,
)
from napari_tileseg.widgets.batch.deeds import BatchDeeds
from napari_tileseg.widgets.batch.form import AS_SEGMENT, FROM_FILE, BatchForm
from napari_tileseg.widgets.batch.layers import images_of
from napari_tileseg.widgets.batch.outlook import Outlook, look, place_of
from napari_tileseg.widgets.batch.recipe import segment_recipe
from napari_tileseg.widgets.batch.rows import SHOWN
from napari_tileseg.widgets.batch.session import batch_session_of
from napari_tileseg.widgets.batch.states import row_message, view
from napari_tileseg.widgets.batch.table import FileView
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.folding import FoldingDock
from napari_tileseg.widgets.late import Late, soon
from napari_tileseg.widgets.parts import Combo, MessageBox
from napari_tileseg.widgets.session import real_viewer
from napari_tileseg.widgets.states import Action, Message, Prospect
from napari_tileseg.widgets.style import icon_color

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_tileseg.widgets.batch.outlook import Order
    from napari_tileseg.widgets.batch.session import BatchSession

__all__ = ["BatchWidget"]

_PAUSE = 250
"""Milliseconds without another change before the folder is looked at."""

_STEP = 150
"""Milliseconds that a row stays selected before its file is opened: the arrow keys may run through."""

_NOTHING = "Choose a folder of images, or open layers."


class BatchWidget(FoldingDock):
    """Form, what will happen, buttons, progress, message, the files, and a sentence about the selected one.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    session: BatchSession
    form: BatchForm

    def __init__(self, viewer: napari.viewer.Viewer) -> None:  # napari looks for exactly this annotation to inject the viewer
        viewer = real_viewer(viewer)
        super().__init__(viewer, batch_session_of(viewer), BatchForm(), ("Start", "Pause"))
        self.shown = Combo("Show", "Which files are shown.")
        self.files = FileView(self.session.table)
        self.about_row = MessageBox("About the selected file")
        self.deeds = BatchDeeds(self.session, self)
        self._bridge = Bridge(self)
        self._saved: Recipe | None = None
        self._outlook: Outlook | None = None
        self._looking: threading.Event | None = None
        self._row_told = ""
        self._own_output = False
        self._guess = ""
        self._pause = soon(self, _PAUSE, self._look)
        self._step = soon(self, _STEP, self._open_row)
        self._lay_out()
        self._connect()
        self.form.offer_models(list_models())
        self._restyle()
        self._guess_images()
        self.session.docks.add(self)
        self._draw()
        self._on_change()

    # -- building --------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        filters = QHBoxLayout()
        filters.setSpacing(6)
        label = QLabel("Show")
        label.setBuddy(self.shown)
        filters.addWidget(label)
        filters.addWidget(self.shown, 1)
        self.shown.fill([(text, state) for state, text in SHOWN.items()])
        below = self._stack()
        below.addLayout(filters)
        below.addWidget(self.files, 1)
        below.addWidget(self.about_row)
        self._order_tabs(self.shown, self.files)

    def _connect(self) -> None:
        super()._connect()
        self.form.output_edited.connect(self._on_output)
        self.form.settings_chosen.connect(self._on_settings)
        self.form.acted.connect(self.act)
        self.about_row.chosen.connect(self.act)
        self.deeds.told.connect(self._on_told)
        self.shown.currentIndexChanged.connect(self._on_filter)
        self.files.chosen.connect(self._on_row)
        self.files.stepped.connect(self._on_stepped)
        self.files.opened.connect(self._on_opened)
        self.session.ended.connect(self._on_change)
        self.session.told.connect(self._on_row_told)
        self.segment.altered.connect(self._on_segment)
        self.segment.models_changed.connect(self._on_change)
        self.viewer.layers.selection.events.changed.connect(self._on_layers)

    # -- what the form holds ---------------------------------------------------------------------------------------

    def _guess_images(self) -> None:
        """Start with the folder of the active image, or of another one, or else with the open layers."""
        if self.session.order is not None or self.form.images.text() not in ("", self._guess):
            return
        layers = self._layers()
        active = self.viewer.layers.selection.active
        ordered = [layer for layer in layers if layer is active] + layers
        paths = (getattr(layer.source, "path", None) for layer in ordered)
        folder = next((str(Path(path).parent) for path in paths if path and Path(path).parent.is_dir()), "")
        guess = folder or (ALL_LAYERS if layers else "")
        if guess != self.form.images.text():
            self.form.images.setText(guess)
        self._guess = ALL_LAYERS if guess == ALL_LAYERS else ""  # a folder stays, whatever is opened next

    def recipe(self) -> Recipe:
        """Return model and options: Segment's, or those of a saved job.

        Raises
        ------
        OptionsError
            If the fields of Segment cannot be used.
        """
        return self._saved if self._saved is not None and self.form.settings.value != AS_SEGMENT else segment_recipe(self.segment)

    def _layers(self) -> list[Image]:
        """Return the layers that are meant, without those that a click on a row has opened."""
        pair = self.session.pair
        wanted = [layer for layer in self.viewer.layers if pair is None or layer not in pair.layers]
        if self.form.images.text() == SELECTED_LAYERS:
            wanted = [layer for layer in wanted if layer in self.viewer.layers.selection]
        return [layer for layer in wanted if isinstance(layer, Image)]

    def _on_segment(self) -> None:
        if self._saved is None or self.form.settings.value == AS_SEGMENT:
            self._on_change()

    def _on_layers(self, event: Any = None) -> None:
        if self.session.state.folded:
            return  # files of the batch are being opened
        before = self.form.images.text()
        self._guess_images()
        if self.form.images.text() != before or self.form.choices().layers:
            self._on_change()

    def _on_output(self) -> None:
        self._own_output = bool(self.form.output.text().strip())

    def _on_settings(self, value: Any) -> None:
        if value == FROM_FILE:
            chosen, _ = QFileDialog.getOpenFileName(self, "Saved job", "", "Job (*.json)")
            self.form.settings.choose(AS_SEGMENT)
            if chosen:
                self.use_job(Path(chosen))
            return
        if value != AS_SEGMENT:
            self.use_job(Path(value))
            return
        self._on_change()

    def use_job(self, path: Path) -> None:
        """Take the settings of a saved job; of a saved batch also its images and its folder."""
        try:
            job = load_job(path)
        except TileSegError as error:
            self.form.complain("settings", str(error))
            return
        self._saved = recipe_of(job)
        entries = [("As in Segment now", AS_SEGMENT), (f"As in {path.name}", str(path)), ("From a saved job...", FROM_FILE)]
        self.form.settings.fill(entries, str(path))
        if isinstance(job, BatchJob):
            self._own_output = True
            self.form.take(choices_of(job, self.form.choices()))
        self._on_change()

    # -- what a batch would do -------------------------------------------------------------------------------------

    def _on_change(self) -> None:
        """Fill in what follows from other fields now, and look at the files soon."""
        self._told = None
        self._outlook = None
        if self._looking is not None:
            self._looking.set()
        choices = self.form.choices()
        if not self._own_output:
            self.form.output.setText(self._default_output())
        try:
            recipe = self.recipe()
            self.form.about.say("The model that fits the images" if recipe.free else recipe.words)
            self.form.offer_models(list_models(), recipe.model)
        except TileSegError as error:
            self.form.about.say("")
            self._refuse(error, "settings")
            return
        self.form.complain("", "")
        self._prospect = Prospect(box="Looking at the files" if choices.images else _NOTHING)
        if not choices.images and not self.session.state.folded:
            self.session.look_at(())
        self._draw()
        self._pause.start()

    def _default_output(self) -> str:
        choices = self.form.choices()
        if not choices.layers:
            return default_output(paths_of(choices.images))
        paths = [str(path) for layer in self._layers() if (path := getattr(layer.source, "path", None))]
        return default_output(paths[:1]) or str(Path.home() / "tileseg_labels")

    def _look(self) -> None:
        """Ask in another thread what the batch would do."""
        choices = self.form.choices()
        if not choices.images or self.session.active:
            return
        try:
            recipe = self.recipe()
            images = None
            if choices.layers:
                spec = next((spec for spec in list_models() if spec.name == recipe.model), None)
                images = images_of(self._layers(), spec, choices.axes.replace(" ", "").upper() or recipe.axes or "")
        except TileSegError as error:
            self._refuse(error)
            return
        stop = self._looking = threading.Event()
        self._bridge.background(lambda: look(choices, recipe, images, stop.is_set), Late(self, "_on_outlook", stop))

    def _on_outlook(self, stop: threading.Event, answer: Any) -> None:
        if stop is not self._looking or stop.is_set():
            return
        if isinstance(answer, TileSegError):
            self._refuse(answer)
        elif isinstance(answer, Exception):
            self._prospect = Prospect(box=f"What the batch would do could not be found out: {answer}.")
        else:
            self._outlook = answer
            self._prospect = Prospect(ready=True, box=answer.box)
            self.form.about.say(answer.recipe.words)
            self.form.offer_models(list_models(), answer.recipe.model)
            self.session.look_at(answer.rows)
        self._draw()

    def _refuse(self, error: TileSegError, place: str = "") -> None:
        """Put a sentence at the field that causes it."""
        place = place or place_of(error)
        self.form.complain(place, str(error))
        names = {"images": "Images", "settings": "Settings", "output": "Save in"}
        self._prospect = Prospect(box=f"Waiting for a change at {names[place]}.")
        self.session.look_at(())
        self._draw()

    # -- deeds -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a batch with what the fields hold now."""
        if self._outlook is not None:
            self.session.start(self._outlook.order)

    def renew(self) -> None:
        """Put the last batch away and set up another."""
        self.session.forget()
        self._on_change()

    @property
    def order(self) -> Order | None:
        """The batch that the fields ask for, once it is looked at."""
        return self._outlook.order if self._outlook is not None else None

    def act(self, action: Action) -> None:
        """Do what a link asks for."""
        number = self.files.number
        row = self.session.table.rows[number] if number is not None else None
        deeds: dict[Action, Callable[[], object]] = {
            Action.RETRY_FAILED: self.session.retry,
            Action.RETRY: lambda: self._retry(number),
            Action.OPEN: lambda: self.session.open(number) if number is not None else None,
            Action.SHOW: lambda: self.deeds.show_in_folder(row),
            Action.REPORT: self.deeds.open_report,
            Action.FOLDER: self.deeds.open_folder,
            Action.DETAILS: self.deeds.show_details,
            Action.COMMAND: lambda: self.deeds.copy_command(self.order),
            Action.EXPORT: lambda: self.deeds.export(self.order),
            Action.HELP: self.deeds.show_help,
            Action.COPY: self.deeds.copy_details,
        }
        with contextlib.suppress(KeyError):
            deeds[action]()

    def _retry(self, number: int | None) -> None:
        """Try a file again; before a batch has begun it begins one."""
        if number is None:
            return
        if self.session.order is None and self.order is not None:
            self.session.start(self.order, retry=(self.session.table.rows[number].name,))
        else:
            self.session.retry(number)

    def show_keys(self) -> None:
        """Show the keys of the dock."""
        self.deeds.show_keys()

    # -- the files -------------------------------------------------------------------------------------------------

    def _on_filter(self) -> None:
        self.files.show_state(self.shown.value or "")

    def _on_stepped(self, _number: int) -> None:
        self._step.start()

    def _on_row(self, number: int) -> None:
        self._row_told = ""
        self._draw_row()

    def _on_opened(self, number: int) -> None:
        self._step.stop()
        self._open(number)

    def _open_row(self) -> None:
        number = self.files.number
        if number is not None:
            self._open(number)

    def _open(self, number: int) -> None:
        """Open what a row stands for; of a file that failed its sentence is enough."""
        if self.session.table.rows[number].state != "failed":
            self.session.open(number)

    def _on_row_told(self, sentence: str) -> None:
        self._row_told = sentence
        self._draw_row()

    # -- drawing ---------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        state = self.session.state
        shown = view(self._prospect, state)
        self._show_view(shown)
        self.box.setVisible(not shown.folded or self.setup.opened)
        self.message.show_message(self._told if self._told is not None and not self.session.active else shown.message)
        counts = self.session.table.counts()
        for place, (key, text) in enumerate(SHOWN.items()):
            words = f"{text} ({counts[key]})"
            if self.shown.itemText(place) != words:
                self.shown.setItemText(place, words)
        self._draw_row()

    def _draw_row(self) -> None:
        number = self.files.number
        row = self.session.table.rows[number] if number is not None and number < len(self.session.table.rows) else None
        message = row_message(row, active=self.session.active)
        if message is None and self._row_told:
            message = Message("warning", self._row_told, (Action.SHOW,))
        self.about_row.show_message(message)

    def _on_told(self, message: Message) -> None:
        self._told = message
        self._draw()

    def _restyle(self, event: Any = None) -> None:
        super()._restyle(event)
        theme = str(self.viewer.theme)
        color = icon_color(theme)
        self.session.table.set_theme(theme, color)
        self.about_row.set_theme(theme, color)
        self.files.fit()
