"""The fields of the Train dock; it holds choices and decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QVBoxLayout, QWidget

from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.unsupervised.config import UnsupervisedConfig
from napari_tileseg.widgets.parts import Browse, Combo, Edit, Fields, Fold, MessageBox, Note, PathEdit
from napari_tileseg.widgets.states import Message
from napari_tileseg.widgets.train.choices import FOLDS, Choices, default_name, words_of
from napari_tileseg.widgets.train.fields import FieldPage
from napari_tileseg.widgets.train.pairs import PairsField
from napari_tileseg.widgets.train.rows import ImagesField
from napari_tileseg.widgets.train.unlabelled import FOLDS as PLAIN_FOLDS
from napari_tileseg.widgets.train.unlabelled import takes_masks
from napari_tileseg.widgets.train.unlabelled import words_of as plain_words_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.layers import Layer
    from qtpy.QtGui import QShowEvent

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["TrainForm"]

_SOURCES = (("Open layers", "layers"), ("Folder", "folder"), ("Sparse labels", "sparse"), ("Images only", "images"))


class TrainForm(QWidget):
    """Examples, where to start, a name, and folds: other ones where images alone are learnt from.

    Signals
    -------
    changed
        A field changed.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self._own_name = False
        self._settings: Mapping[str, Any] = {}
        self._make_fields()
        self._lay_out()
        self._connect()
        self._show_source()
        self.tell_folds()

    def _make_fields(self) -> None:
        self.source = Combo(
            "Data",
            "The examples: layers that are open, two folders, or layers of which only a few pixels are labelled (0: not labelled). "
            "Images only: what is normal, or what more is to be made of.",
        )
        self.source.fill(_SOURCES, "layers")
        self.pairs = PairsField()
        self.plain = ImagesField()
        self.images = PathEdit("Images", str(TrainConfig.model_fields["images"].description))
        self.labels = PathEdit("Labels", str(TrainConfig.model_fields["labels"].description))
        self.browse_images = Browse("Choose the folder of images", (("Folder...", lambda: self._ask(self.images)),))
        deeds = (("Folder...", lambda: self._ask(self.labels)), ("COCO file...", lambda: self._ask(self.labels, "COCO (*.json)")))
        self.browse_labels = Browse("Choose the labels", deeds)
        self.report = Note()
        self.report.setAccessibleName("What there is to learn from")
        self.start = Combo("Start", "A model to go on from needs fewer labels than a new one.")
        self.name = Edit("Name", "Of the model; it is listed under it.")
        self.problem = MessageBox("Problem")
        self.warning = MessageBox("What should be known of the data")
        self.top, self.bottom = Fields(), Fields()
        self.top.add("Data", self.source)
        self.pairs_label = self.top.add("Pairs", self.pairs)
        self.plain_label = self.top.add("Images", self.plain)
        self.images_label = self.top.add("Images", self.images, self.browse_images)
        self.labels_label = self.top.add("Labels", self.labels, self.browse_labels)
        for label in (self.pairs_label, self.plain_label):
            self.top.grid.setAlignment(label, Qt.AlignmentFlag.AlignTop)
            label.setContentsMargins(0, 4, 0, 0)
        self.start_label = self.bottom.add("Start", self.start)
        self.bottom.add("Name", self.name)
        self.pages = {name: FieldPage(fields) for name, fields in FOLDS.items()}
        self.folds = {name: Fold(name, page) for name, page in self.pages.items()}
        self.plain_pages = {name: FieldPage(fields, UnsupervisedConfig) for name, fields in PLAIN_FOLDS.items()}
        self.plain_folds = {name: Fold(name, page) for name, page in self.plain_pages.items()}

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        for widget in (self.top, self.report, self.warning, self.bottom, self.problem, *self.every_fold):
            layout.addWidget(widget)
        self.report.hide()

    def _connect(self) -> None:
        self.source.currentIndexChanged.connect(self._on_source)
        for rows in (self.pairs, self.plain):
            rows.changed.connect(self.changed)
        for edit in (self.images, self.labels):
            edit.textEdited.connect(self._on_field)
        self.start.currentIndexChanged.connect(self._on_start)
        self.name.textEdited.connect(self._on_name)
        for page in (*self.pages.values(), *self.plain_pages.values()):
            page.changed.connect(self._on_field)
        for fold in self.every_fold:
            fold.toggled.connect(self.updateGeometry)

    @property
    def every_fold(self) -> list[Fold]:
        """All folds, those that are not seen now too."""
        return [*self.folds.values(), *self.plain_folds.values()]

    @property
    def alone(self) -> bool:
        """Whether images alone are learnt from."""
        return bool(self.source.value == "images")

    @property
    def shown_folds(self) -> dict[str, Fold]:
        """The folds that count for this source, by their titles."""
        return self.plain_folds if self.alone else self.folds

    @property
    def shown_pages(self) -> dict[str, FieldPage]:
        """What is under them."""
        return self.plain_pages if self.alone else self.pages

    def follow(self, layers: Sequence[Layer]) -> None:
        """Offer the layers that are open."""
        self.pairs.follow(layers)
        self.plain.follow(layers)

    def layers(self) -> list[tuple[Layer, ...]]:
        """Return the layers that are chosen; none where a folder counts."""
        if self.source.value == "folder" or (self.alone and self.images.text().strip()):
            return []
        return (self.plain if self.alone else self.pairs).chosen()

    def offer_models(self, specs: Sequence[ModelSpec]) -> None:
        """List the models that a training can go on from."""
        first = self.start.count() == 0
        chosen = self.start.value
        entries = [("New", ""), *((f"From {spec.label}", spec.name) for spec in specs)]
        self.start.fill(entries, "" if chosen is None else chosen)
        if first or self.start.value != chosen:
            self._show_start()

    def choices(self) -> Choices:
        """Return what the fields hold."""
        values: dict[str, Any] = {}
        for page in self.shown_pages.values():
            values |= page.values()
        return Choices(
            source=self.source.value,
            images=self.images.text().strip(),
            labels=self.labels.text().strip(),
            start="" if self.alone else self.start.value or "",
            name=self.name.text().strip(),
            values=values,
        )

    def propose_name(self) -> None:
        """Write a name that is free, unless the user has given one."""
        if not self._own_name:
            self.name.setText(default_name("normal" if self.alone else self.start.value or "", own=not self.alone))

    def free_name(self) -> None:
        """Let the name follow the model again: the last one is taken now."""
        self._own_name = False
        self.propose_name()

    def complain(self, sentence: str) -> None:
        """Show what keeps a training from starting; an empty sentence takes it away."""
        self.problem.show_message(Message("error", sentence) if sentence else None)

    def tell(self, lines: Sequence[str], warnings: Sequence[str], settings: Mapping[str, Any]) -> None:
        """Show what was found in the data, and what follows from it."""
        self.report.setText("\n".join(lines))
        self.report.setVisible(bool(lines))
        self.warning.show_message(Message("warning", "\n".join(warnings)) if warnings else None)
        self._settings = settings
        for page in self.shown_pages.values():
            page.tell_derived(settings)
        self.tell_folds()

    def tell_folds(self) -> None:
        """Say in the folded headers what is inside."""
        choices = self.choices()
        words = plain_words_of if self.alone else words_of
        for name, fold in self.shown_folds.items():
            fold.say(words(name, choices, self._settings))

    def set_theme(self, theme: str, color: str) -> None:
        """Take arrows and icons from another theme; `color` is its icon colour."""
        for fold in self.every_fold:
            fold.set_theme(theme)
        for box in (self.problem, self.warning):
            box.set_theme(theme, color)

    def align(self) -> None:
        """Line all fields up."""
        for group in ((self.top, self.bottom), tuple(page.fields for page in self.shown_pages.values())):
            width = max(fields.label_width for fields in group)
            for fields in group:
                fields.align(width)

    def showEvent(self, event: QShowEvent | None) -> None:
        if event is not None:
            super().showEvent(event)
        self.align()  # only now the style sheet's fonts are in force

    def widgets_in_order(self) -> list[QWidget]:
        """Return the fields from top to bottom, as Tab takes them."""
        fields: list[QWidget] = [self.source]
        for field in (self.pairs, self.plain):
            fields += [*(widget for row in field.rows for widget in row), field.add_button]
        fields += [self.images, self.browse_images, self.labels, self.browse_labels, self.start, self.name]
        for fold, page in zip(self.every_fold, (*self.pages.values(), *self.plain_pages.values()), strict=True):
            fields += [fold.header, *page.widgets.values()]
        return fields

    def _ask(self, edit: PathEdit, files: str = "") -> None:
        name, place = edit.accessibleName(), str(edit.text())
        chosen = QFileDialog.getOpenFileName(self, name, place, files)[0] if files else QFileDialog.getExistingDirectory(self, name, place)
        if chosen:
            edit.write(chosen)

    def _show_source(self) -> None:
        """Show what counts for this source: rows of layers or folders, and its folds."""
        folder, alone = self.source.value == "folder", self.alone
        given = bool(self.images.text().strip())
        masks = alone and given and takes_masks(self.choices().values)
        self.images_label.setText("Folder" if alone else "Images")
        self.images.setPlaceholderText("instead of open layers" if alone else "")
        self.labels_label.setText("Masks" if alone else "Labels")
        self.labels.setPlaceholderText("none" if alone else "")
        parts: tuple[tuple[bool, tuple[QWidget, ...]], ...] = (
            (not folder and not alone, (self.pairs_label, self.pairs)),
            (alone and not given, (self.plain_label, self.plain)),
            (folder or alone, (self.images_label, self.images, self.browse_images)),
            (folder or masks, (self.labels_label, self.labels, self.browse_labels)),
            (not alone, (self.start_label, self.start, *self.folds.values())),
            (alone, tuple(self.plain_folds.values())),
        )
        for shown, widgets in parts:
            for widget in widgets:
                widget.setVisible(shown)
        for name in ("encoder_steps", "kappa"):
            self.plain_pages["Steps"].enable(name, takes_masks(self.plain_pages["Network"].values()))
        self.plain_pages["Images"].enable("classes", masks)

    def _show_start(self) -> None:
        started = bool(self.start.value)
        network = self.pages["Network"]
        for name in ("network", "arguments", "dimensions"):
            network.enable(name, not started)
        network.enable("freeze", started)
        self.propose_name()

    def _on_source(self) -> None:
        self.propose_name()
        self._settings = {}
        self._on_field()

    def _on_start(self) -> None:
        self._show_start()
        self._on_field()

    def _on_name(self) -> None:
        self._own_name = bool(self.name.text().strip())
        self._on_field()

    def _on_field(self) -> None:
        self._show_source()
        self.align()
        self.tell_folds()
        self.changed.emit()
