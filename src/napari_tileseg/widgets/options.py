"""``OptionsPage``: the fields under Options, which magicgui makes from the types and words of ``SegmentOptions``."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from magicgui.widgets import CheckBox, ComboBox, FloatSpinBox, LineEdit
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QPushButton, QVBoxLayout, QWidget

from napari_tileseg.job import SegmentOptions
from napari_tileseg.widgets.choices import Settings, changes, default_settings
from napari_tileseg.widgets.parts import Fields
from napari_tileseg.widgets.parts.fields import tame

if TYPE_CHECKING:
    from magicgui.widgets.bases import ValueWidget

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["OptionsPage", "make_field"]

_WORDS = {"nnunet": "nnU-Net", "auto": "Fast"}
"""Choices that are not simply written with a capital."""

_ALWAYS_DECIDED = "The class with the highest score wins; no threshold is needed."


def make_field(name: str) -> ValueWidget[Any]:
    """Return the widget for an option: its type decides the kind, its limits the range, its title and description the words.

    Parameters
    ----------
    name : str
        A field of `SegmentOptions`.
    """
    field = SegmentOptions.model_fields[name]
    kind = _kind(field.annotation)
    words: dict[str, Any] = {"name": name, "label": field.title, "tooltip": field.description}
    if get_origin(kind) is Literal:
        return ComboBox(choices=[(_WORDS.get(value, value.capitalize()), value) for value in get_args(kind)], **words)
    if kind is bool:
        return CheckBox(**words)
    if kind is float:
        most = _most(field.metadata)
        return FloatSpinBox(min=0.0, max=most, step=0.05 if most <= 1 else 1.0, **words)
    return LineEdit(**words)


class OptionsPage(QWidget):
    """The fields under Options, in the order of `Settings`."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self.widgets = {item.name: make_field(item.name) for item in fields(Settings)}
        self.reset_button = QPushButton("Reset to the model's values")
        self.reset_button.setAccessibleName("Reset to the model's values")
        self.fields = Fields(indent=8)
        for widget in self.widgets.values():
            tame(widget.native, widget.label)
            if isinstance(widget, CheckBox):
                self.fields.add_wide(widget.native)
            else:
                self.fields.add(widget.label, widget.native)
            widget.changed.connect(self._tell)
        self.fields.add_wide(self.reset_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.addWidget(self.fields)
        self.widgets["min_size"].tooltip = "Smaller objects go."  # in the image's unit, here
        self._defaults = Settings("", 0.5, "gaussian")
        self.reset_button.clicked.connect(self.reset)

    @property
    def settings(self) -> Settings:
        """What the fields hold."""
        return Settings(**{name: widget.value for name, widget in self.widgets.items()})

    @property
    def words(self) -> str:
        """What the folded header says."""
        return changes(self.settings, self._defaults, unit=self.widgets["min_size"].native.suffix().strip() or "px")

    @property
    def natives(self) -> list[QWidget]:
        """The Qt widgets from top to bottom, as Tab takes them."""
        return [*(widget.native for widget in self.widgets.values()), self.reset_button]

    def set_spec(self, spec: ModelSpec) -> None:
        """Take a model's values; what the user changed himself stays, the window apart."""
        old, now = asdict(self._defaults), asdict(self.settings)
        kept = {name: value for name, value in now.items() if name != "window" and value != old[name]} if old["window"] else {}
        self._defaults = default_settings(spec)
        self._fill(replace(self._defaults, **kept))
        threshold, rescale = self.widgets["threshold"], self.widgets["rescale"]
        threshold.enabled = spec.output != "softmax"
        threshold.tooltip = SegmentOptions.model_fields["threshold"].description if threshold.enabled else _ALWAYS_DECIDED
        rescale.native.setVisible(spec.spacing is not None)

    def set_window(self, text: str) -> None:
        """Write a window, as a user would."""
        self.widgets["window"].value = text

    def set_unit(self, unit: str) -> None:
        """Say in which unit sizes are."""
        self.widgets["min_size"].native.setSuffix(f" {unit}")
        self.widgets["min_size"].native.setDecimals(0 if unit == "px" else 2)

    def reset(self) -> None:
        """Take the model's values everywhere."""
        self._fill(self._defaults)
        self.changed.emit()

    def _fill(self, settings: Settings) -> None:
        for name, value in asdict(settings).items():
            with self.widgets[name].changed.blocked():
                self.widgets[name].value = value

    def _tell(self) -> None:
        self.changed.emit()


def _most(rules: list[Any]) -> float:
    """Return the largest value that the rules of a field allow; a share stops a step short of what it must stay below."""
    for rule in rules:
        if hasattr(rule, "le"):
            return float(rule.le)
        if hasattr(rule, "lt"):
            return float(rule.lt) - 0.05
    return 1e9


def _kind(annotation: Any) -> Any:
    """Return a type without its None."""
    if get_origin(annotation) in (Union, UnionType):
        return next(part for part in get_args(annotation) if part is not NoneType)
    return annotation
