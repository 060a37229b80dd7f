"""The fields of the Batch dock; it holds choices and decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QSpinBox, QVBoxLayout, QWidget

from napari_tileseg.batch.job import BatchJob
from napari_tileseg.job import SegmentOptions
from napari_tileseg.widgets.batch.choices import ALL_LAYERS, SELECTED_LAYERS, Choices, format_choices, save_words, text_of
from napari_tileseg.widgets.parts import Browse, Combo, Edit, Elided, Fields, Fold, Links, MessageBox, PathEdit, Tick
from napari_tileseg.widgets.parts.fields import tame
from napari_tileseg.widgets.states import Action, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qtpy.QtGui import QShowEvent

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["AS_SEGMENT", "FROM_FILE", "BatchForm"]

AS_SEGMENT, FROM_FILE = "segment", "file"
"""Values of the field Settings besides the paths of saved jobs."""


def _tip(name: str) -> str:
    """Return a field's tooltip: the one place where its words stand is `BatchJob`."""
    return str(BatchJob.model_fields[name].description)


class BatchForm(QWidget):
    """Images, settings, where to, and four folds.

    Signals
    -------
    changed
        A field changed.
    output_edited
        The field Save in changed by the user's hand.
    settings_chosen
        Another entry of the field Settings was chosen; its value comes along.
    acted
        A link was chosen.
    """

    changed = Signal()
    output_edited = Signal()
    settings_chosen = Signal(object)
    acted = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self._folder = ""
        self._make_fields()
        self._make_folds()
        self._lay_out()
        self._connect()
        self.tell_folds()

    def _make_fields(self) -> None:
        self.images = PathEdit("Images", "Folder, OME-Zarr plate, files, or layers.")
        deeds = (
            ("Folder...", self._ask_folder),
            ("Files...", self._ask_files),
            (ALL_LAYERS, lambda: self.images.write(ALL_LAYERS)),
            (SELECTED_LAYERS, lambda: self.images.write(SELECTED_LAYERS)),
        )
        self.browse_images = Browse("Choose the images", deeds)
        self.pattern = Edit("Files", f"{_tip('pattern')} For example *.tif; several with ; between.")
        self.pattern.setPlaceholderText("every image")
        self.recursive = Tick("Subfolders too", _tip("recursive"))
        self.settings = Combo("Settings", "Model and options: what Segment holds, or a job that was saved.")
        self.settings.fill([("As in Segment now", AS_SEGMENT), ("From a saved job...", FROM_FILE)])
        self.about = Elided("What the settings are")
        self.output = PathEdit("Save in", "Folder for the results; it mirrors the input.")
        self.browse_output = Browse("Choose the folder for the results", (("Folder...", self._ask_output),))
        self.format = Combo("Format", _tip("format"))
        self.format.fill(format_choices())
        self.problems = {name: MessageBox(f"Problem with {name}") for name in ("images", "settings", "output")}
        self.top, self.middle, self.bottom = Fields(), Fields(), Fields()
        self.top.add("Images", self.images, self.browse_images)
        self.top.add("Files", self.pattern)
        self.top.add_wide(self.recursive)
        self.middle.add("Settings", self.settings)
        self.bottom.add("Save in", self.output, self.browse_output)
        self.bottom.add("Format", self.format)

    def _make_folds(self) -> None:
        self.others = QWidget()
        self.others.setObjectName("plain")
        QVBoxLayout(self.others).setContentsMargins(8, 0, 0, 0)
        self.ticks: dict[str, Tick] = {}
        self.axes = Edit("Axes", _tip("axes"))
        self.channels = Edit("Channels", _tip("channels"))
        self.series = Edit("Series", _tip("series"))
        self.series.setText("0")
        self.level = _spin("Level", _tip("level"), 0, 99)
        self.exclude = Edit("Leave out", f"{_tip('exclude')} Several with ; between.")
        for edit in (self.axes, self.channels):
            edit.setPlaceholderText("as each file says")
        self.exclude.setPlaceholderText("nothing")
        self.reading = Fields(indent=8)
        for field in (self.axes, self.channels, self.series, self.level, self.exclude):
            self.reading.add(field.accessibleName(), field)
        self.scores = Tick("Scores", str(SegmentOptions.model_fields["scores"].description))
        self.objects, self.overlays, self.report = (
            Tick(str(BatchJob.model_fields[name].title), _tip(name)) for name in ("objects", "overlays", "report")
        )
        self.report.setChecked(True)
        self.template = Edit("Names", _tip("template"))
        self.template.setText("{stem}")
        self.saving = Fields(indent=8)
        for tick in (self.scores, self.objects, self.overlays, self.report):
            self.saving.add_wide(tick)
        self.saving.add("Names", self.template)
        self.workers = _spin("Workers", "Processes at once, each with a model of its own.", 1, 256)
        self.cluster = Edit("Cluster", "Address of a Dask scheduler: tcp://host:8786.")
        self.cluster.setPlaceholderText("none")
        self.links = Links()
        self.links.show_links((Action.COMMAND, Action.EXPORT))
        self.running = Fields(indent=8)
        self.running.add("Workers", self.workers)
        self.running.add("Cluster", self.cluster)
        self.running.add_wide(self.links)
        self.others_fold = Fold("Also with", self.others)
        self.reading_fold = Fold("Reading", self.reading)
        self.saving_fold = Fold("Also save", self.saving)
        self.running_fold = Fold("Run on", self.running)
        self.folds = (self.others_fold, self.reading_fold, self.saving_fold, self.running_fold)

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        rows = (self.top, self.problems["images"], self.middle, self.about, self.problems["settings"], self.bottom, self.problems["output"])
        for widget in (*rows, *self.folds):
            layout.addWidget(widget)

    def _connect(self) -> None:
        for edit in (self.images, self.pattern, self.axes, self.channels, self.series, self.exclude, self.template, self.cluster):
            edit.textEdited.connect(self._on_field)
        self.output.textEdited.connect(self._on_output)
        for tick in (self.recursive, self.scores, self.objects, self.overlays, self.report):
            tick.toggled.connect(self._on_field)
        self.format.currentIndexChanged.connect(self._on_field)
        self.settings.currentIndexChanged.connect(self._on_settings)
        for spin in (self.level, self.workers):
            spin.valueChanged.connect(self._on_field)
        for box in self.problems.values():
            box.chosen.connect(self.acted)
        self.links.chosen.connect(self.acted)
        for fold in self.folds:
            fold.toggled.connect(self.updateGeometry)

    def offer_models(self, specs: Sequence[ModelSpec], but: str = "") -> None:
        """List the models that an image may be segmented with besides."""
        wanted = [spec for spec in specs if spec.name != but]
        if [spec.name for spec in wanted] == list(self.ticks):
            return
        ticked = {name for name, tick in self.ticks.items() if tick.isChecked()}
        layout = self.others.layout()
        assert layout is not None
        for tick in self.ticks.values():
            layout.removeWidget(tick)
            tick.deleteLater()
        self.ticks = {spec.name: Tick(spec.label, spec.description) for spec in wanted}
        before: QWidget = self.others_fold.header
        for name, tick in self.ticks.items():
            tick.setChecked(name in ticked)
            tick.toggled.connect(self._on_field)
            layout.addWidget(tick)
            QWidget.setTabOrder(before, tick)
            before = tick
        QWidget.setTabOrder(before, self.reading_fold.header)
        self.tell_folds()

    def choices(self) -> Choices:
        """Return what the fields hold."""
        return Choices(
            images=self.images.text().strip(),
            pattern=self.pattern.text(),
            exclude=self.exclude.text(),
            recursive=self.recursive.isChecked(),
            output=self.output.text(),
            format=self.format.value,
            template=self.template.text(),
            others=tuple(name for name, tick in self.ticks.items() if tick.isChecked()),
            axes=self.axes.text(),
            channels=self.channels.text(),
            series=self.series.text(),
            level=self.level.value(),
            scores=self.scores.isChecked(),
            objects=self.objects.isChecked(),
            overlays=self.overlays.isChecked(),
            report=self.report.isChecked(),
            workers=self.workers.value(),
            cluster=self.cluster.text().strip(),
        )

    def take(self, choices: Choices) -> None:
        """Write into the fields what a saved batch says."""
        blocked = self.blockSignals(True)
        for name in ("images", "pattern", "exclude", "output", "template", "axes", "channels", "series"):
            getattr(self, name).setText(getattr(choices, name))
        for name in ("recursive", "scores", "objects", "overlays", "report"):
            getattr(self, name).setChecked(getattr(choices, name))
        self.format.fill(format_choices(choices.format))
        self.format.choose(choices.format)
        self.level.setValue(choices.level)
        for name, tick in self.ticks.items():
            tick.setChecked(name in choices.others)
        self.blockSignals(blocked)
        self._on_field()

    def complain(self, place: str, sentence: str) -> None:
        """Put a sentence at the field that causes it: images, settings or output; an empty one takes all away."""
        for name, box in self.problems.items():
            box.show_message(Message("error", sentence) if sentence and name == place else None)

    def set_theme(self, theme: str, color: str) -> None:
        """Take arrows and icons from another theme; `color` is its icon colour."""
        for fold in self.folds:
            fold.set_theme(theme)
        for box in self.problems.values():
            box.set_theme(theme, color)

    def tell_folds(self) -> None:
        """Say in the folded headers what is inside."""
        choices = self.choices()
        others = [tick.text() for tick in self.ticks.values() if tick.isChecked()]
        self.others_fold.say(", ".join(others) or "no other model")
        reading = [f"axes {' '.join(choices.axes.replace(' ', '').upper())}"] if choices.axes.strip() else []
        reading += [f"channels {choices.channels.strip()}"] if choices.channels.strip() else []
        reading += [f"series {choices.series.strip()}"] if choices.series.strip() not in ("", "0") else []
        reading += [f"level {choices.level}"] if choices.level else []
        reading += [f"without {choices.exclude.strip()}"] if choices.exclude.strip() else []
        self.reading_fold.say(", ".join(reading) or "as each file says")
        self.saving_fold.say(save_words(choices))
        many = f"{choices.workers} processes here" if choices.workers > 1 else "this computer"
        self.running_fold.say(f"the cluster at {choices.cluster}" if choices.cluster else many)

    def align(self) -> None:
        """Line all fields up."""
        for group in ((self.top, self.middle, self.bottom), (self.reading, self.saving, self.running)):
            width = max(fields.label_width for fields in group)
            for fields in group:
                fields.align(width)

    def showEvent(self, event: QShowEvent | None) -> None:
        if event is not None:
            super().showEvent(event)
        self.align()  # only now the style sheet's fonts are in force

    def widgets_in_order(self) -> list[Any]:
        """Return the fields from top to bottom, as Tab takes them."""
        return [
            *(self.images, self.browse_images, self.pattern, self.recursive, self.settings),
            *(self.output, self.browse_output, self.format),
            *(self.others_fold.header, *self.ticks.values()),
            *(self.reading_fold.header, self.axes, self.channels, self.series, self.level, self.exclude),
            *(self.saving_fold.header, self.scores, self.objects, self.overlays, self.report, self.template),
            *(self.running_fold.header, self.workers, self.cluster),
        ]

    def _ask_folder(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Images", self._start(self.images))
        if chosen:
            self.images.write(chosen)

    def _ask_files(self) -> None:
        chosen, _ = QFileDialog.getOpenFileNames(self, "Images", self._start(self.images))
        if chosen:
            self.images.write(text_of(chosen))

    def _ask_output(self) -> None:
        chosen = QFileDialog.getExistingDirectory(self, "Save in", self._start(self.output))
        if chosen:
            self.output.write(chosen)

    def _start(self, field: PathEdit) -> str:
        text = str(field.text())
        return "" if text in (ALL_LAYERS, SELECTED_LAYERS) else text

    def _on_field(self) -> None:
        self.tell_folds()
        self.changed.emit()

    def _on_output(self) -> None:
        self.output_edited.emit()
        self.changed.emit()

    def _on_settings(self) -> None:
        self.settings_chosen.emit(self.settings.value)


def _spin(name: str, tip: str, least: int, most: int) -> QSpinBox:
    spin = QSpinBox()
    spin.setRange(least, most)
    tame(spin, name)
    spin.setToolTip(tip)
    return spin
