"""The fields of the Segment dock; it holds choices and decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_tileseg.job import SegmentOptions
from napari_tileseg.widgets.channels import ChannelFields
from napari_tileseg.widgets.choices import Choices, results_words
from napari_tileseg.widgets.options import OptionsPage
from napari_tileseg.widgets.parts import Combo, Edit, Fields, Fold, Links, MessageBox, Tick
from napari_tileseg.widgets.parts.fields import Note
from napari_tileseg.widgets.states import Action, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Image
    from qtpy.QtGui import QShowEvent


__all__ = ["SegmentForm"]


def _tip(name: str) -> str:
    """Return an option's tooltip: the one place where its words stand is `SegmentOptions`."""
    return str(SegmentOptions.model_fields[name].description)


class SegmentForm(QWidget):
    """Image, model, axes, channels, device, and three folds.

    Signals
    -------
    changed
        A field changed.
    image_chosen, model_chosen, axes_edited
        That field changed by the user's hand.
    card_wanted
        The button Card was pressed.
    acted
        A link was chosen.
    """

    changed = Signal()
    image_chosen = Signal()
    model_chosen = Signal()
    axes_edited = Signal()
    card_wanted = Signal()
    acted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._make_fields()
        self._make_folds()
        self._lay_out()
        self._connect()
        self.tell_folds()

    def _make_fields(self) -> None:
        self.image = Combo("Image", "The image to segment.")
        self.model = Combo("Model", "What finds the objects.")
        self.card = QPushButton("Card")
        self.card.setAccessibleName("Card")
        self.card.setToolTip("Axes, channels, classes, licence, scores.")
        self.about = Note()
        self.axes = Edit("Axes", "One letter per dimension: T time, C channel, Z Y X space.")
        self.mapping = Note()
        self.mapping.setAccessibleName("How the axes are used")
        self.question = MessageBox("Question about the axes")
        self.channels = ChannelFields()
        self.device = Combo("Device", _tip("device"))
        self.loaded = QLabel()
        self.unload = Links()
        self.memory = QWidget()
        self.memory.setObjectName("plain")
        row = QHBoxLayout(self.memory)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(self.loaded)
        row.addWidget(self.unload)
        row.addStretch(1)
        self.top, self.middle, self.bottom = Fields(), Fields(), Fields()
        self.top.add("Image", self.image)
        self.top.add("Model", self.model, self.card)
        self.middle.add("Axes", self.axes)
        self.bottom.add("Device", self.device)

    def _make_folds(self) -> None:
        self.region = Combo("Region", "Only this part, with context.")
        self.region.fill([("Whole image", "whole"), ("Visible part", "visible"), ("Rectangles", "rectangles")])
        where = Fields(indent=8)
        where.add("Region", self.region)
        self.where_fields = where
        self.options = OptionsPage()
        self.keep_scores = Tick("Keep scores as a layer", _tip("scores"))
        self.uncertainty = Combo("Uncertainty", _tip("uncertainty"))
        self.uncertainty.fill([("Off", ""), ("Entropy", "entropy"), ("Disagreement", "disagreement")])
        self.objects = Tick("Objects table", "Size and shape.")
        self.keep = Combo("Keep in", "Disk when memory is short.")
        self.keep.fill([("Auto", "auto"), ("Memory", "memory"), ("Disk", "disk")])
        results = Fields(indent=8)
        results.add_wide(self.keep_scores)
        results.add_wide(self.objects)
        results.add(self.uncertainty.accessibleName(), self.uncertainty)
        results.add("Keep in", self.keep)
        self.results_fields = results
        self.where_fold = Fold("Where", where)
        self.options_fold = Fold("Options", self.options)
        self.results_fold = Fold("Results", results)
        self.options_problem = MessageBox("Problem with the options")
        self.where_problem = MessageBox("Problem with the region")

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.setSpacing(4)
        row = (self.top, self.about, self.middle, self.mapping, self.question, self.channels, self.bottom, self.memory)
        folds = (self.where_fold, self.where_problem, self.options_fold, self.options_problem, self.results_fold)
        for widget in (*row, *folds):
            layout.addWidget(widget)
        layout.addStretch(1)
        self.memory.hide()

    def _connect(self) -> None:
        self.image.currentIndexChanged.connect(self._on_image)
        self.model.currentIndexChanged.connect(self._on_model)
        self.axes.textEdited.connect(self._on_axes)
        self.card.clicked.connect(self.card_wanted)
        for box in (self.question, self.options_problem, self.where_problem):
            box.chosen.connect(self.acted)
        self.unload.chosen.connect(self.acted)
        for combo in (self.device, self.region, self.uncertainty, self.keep):
            combo.currentIndexChanged.connect(self._on_field)
        for tick in (self.keep_scores, self.objects):
            tick.toggled.connect(self._on_field)
        self.options.changed.connect(self._on_field)
        self.channels.changed.connect(self._on_field)
        for fold in (self.where_fold, self.options_fold, self.options.advanced_fold, self.results_fold):
            fold.toggled.connect(self._on_fold)

    def choices(self) -> Choices:
        """Return what the fields hold."""
        return Choices(
            model=self.model.value or "",
            axes=self.axes.text(),
            settings=self.options.settings,
            channels=self.channels.indices,
            device=self.device.value or "auto",
            region=self.region.value,
            scores=self.keep_scores.isChecked(),
            uncertainty=self.uncertainty.value,
            objects=self.objects.isChecked(),
            keep=self.keep.value,
        )

    def set_images(self, layers: Sequence[Image], chosen: Image | None) -> None:
        """List image layers; the chosen one stays chosen whatever it is called now."""
        self.image.fill([(layer.name, layer) for layer in layers], chosen)
        self.image.setEnabled(bool(layers))

    def set_axes(self, axes: str) -> None:
        """Write the axes as the field shows them: ``"Y X"``."""
        self.axes.setText(" ".join(axes))

    def ask(self, question: str, links: tuple[Action, ...]) -> None:
        """Ask at the axes what only the user can know; an empty question takes it away."""
        self.question.show_message(Message("warning", question, links) if question else None)
        self.mapping.setVisible(not question and bool(self.mapping.text()))

    def complain(self, place: str, sentence: str) -> None:
        """Put a sentence at the field that causes it: axes, options or where."""
        for name, box in (("axes", self.question), ("options", self.options_problem), ("where", self.where_problem)):
            if name == place and sentence:
                box.show_message(Message("error", sentence))
                self.mapping.setVisible(name != "axes" and bool(self.mapping.text()))
            elif box.shown is not None and not (name == "axes" and box.shown.links):
                box.show_message(None)

    def set_loaded(self, text: str) -> None:
        """Say what is loaded, with a link that unloads it."""
        self.loaded.setText(text)
        self.unload.show_links((Action.UNLOAD,) if text else ())
        self.memory.setVisible(bool(text))

    def set_theme(self, theme: str, color: str) -> None:
        """Take arrows and icons from another theme; `color` is its icon colour."""
        for fold in (self.where_fold, self.options_fold, self.options.advanced_fold, self.results_fold):
            fold.set_theme(theme)
        for box in (self.question, self.options_problem, self.where_problem):
            box.set_theme(theme, color)

    def tell_folds(self, region: str = "") -> None:
        """Say in the folded headers what is inside."""
        words = {"whole": "whole image", "visible": "visible part", "rectangles": "rectangles"}[self.region.value]
        self.where_fold.say(f"{words} ({region})" if region else words)
        self.options_fold.say(self.options.words)
        self.results_fold.say(results_words(self.choices()))

    def align(self) -> None:
        """Line all fields up."""
        outer = (self.top, self.middle, self.bottom, self.channels.fields)
        inner = (self.where_fields, self.options.fields, self.options.advanced_fields, self.results_fields)
        for group in (outer, inner):
            width = max(fields.label_width for fields in group)
            for fields in group:
                fields.align(width)

    def showEvent(self, event: QShowEvent | None) -> None:
        if event is not None:
            super().showEvent(event)
        self.align()  # only now the style sheet's fonts are in force

    def _on_image(self) -> None:
        self.image_chosen.emit()

    def _on_model(self) -> None:
        self.model_chosen.emit()

    def _on_axes(self) -> None:
        self.axes_edited.emit()

    def _on_field(self) -> None:
        self.tell_folds()
        self.changed.emit()

    def _on_fold(self) -> None:
        self.updateGeometry()

    def widgets_in_order(self) -> list[Any]:
        """Return the fields from top to bottom, as Tab takes them."""
        return [
            self.image,
            self.model,
            self.card,
            self.axes,
            *self.channels.combos,
            self.device,
            self.where_fold.header,
            self.region,
            self.options_fold.header,
            *self.options.natives,
            self.results_fold.header,
            self.keep_scores,
            self.objects,
            self.uncertainty,
            self.keep,
        ]
