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
from napari_tileseg.widgets.parts import Fields, Fold
from napari_tileseg.widgets.parts.fields import tame

if TYPE_CHECKING:
    from magicgui.widgets.bases import ValueWidget

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["OptionsPage", "make_field"]

_WORDS = {False: "Nothing", "nnunet": "nnU-Net", "auto": "Fast", "reflect": "Mirror image", "rotations": "Flips and turns"}
"""Choices that are not simply written with a capital."""

_RANGES = {"sigma": (0.01, 1.0, 0.025)}
"""Least, most and step of numbers that are no plain shares."""

_ADVANCED = ("tta", "sigma", "padding", "adaptive", "skip_background")
"""Fields that most runs leave to the model; in a fold of their own."""

_ALWAYS_DECIDED = "The class with the highest score wins; no threshold is needed."
_NO_SCORES = "The model gives labels itself; no threshold is needed."


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
        return ComboBox(choices=_choices(kind), **words)
    if kind is bool:
        return CheckBox(**words)
    if kind is float:
        most = _most(field.metadata)
        least, most, step = _RANGES.get(name, (0.0, most, 0.05 if most <= 1 else 1.0))
        return FloatSpinBox(min=least, max=most, step=step, **words)
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
        self.fields, self.advanced_fields = Fields(indent=8), Fields(indent=8)
        self.advanced_fold = Fold("Advanced", self.advanced_fields)
        for name, widget in self.widgets.items():
            tame(widget.native, widget.label)
            group = self.advanced_fields if name in _ADVANCED else self.fields
            if isinstance(widget, CheckBox):
                group.add_wide(widget.native)
            else:
                group.add(widget.label, widget.native)
            widget.changed.connect(self._tell)
        self.fields.add_wide(self.advanced_fold)
        self.fields.add_wide(self.reset_button)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.addWidget(self.fields)
        self.widgets["sigma"].native.setDecimals(3)
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
        natives = {name: widget.native for name, widget in self.widgets.items()}
        advanced = [natives.pop(name) for name in _ADVANCED]
        return [*natives.values(), self.advanced_fold.header, *advanced, self.reset_button]

    def set_spec(self, spec: ModelSpec) -> None:
        """Take a model's values; what the user changed himself stays, the window apart."""
        old, now = asdict(self._defaults), asdict(self.settings)
        kept = {name: value for name, value in now.items() if name != "window" and value != old[name]} if old["window"] else {}
        self._defaults = default_settings(spec)
        turns = self.widgets["tta"]
        offered = [choice for choice in _choices(_kind(SegmentOptions.model_fields["tta"].annotation)) if choice[1] != "rotations"]
        assert isinstance(turns, ComboBox)
        with turns.changed.blocked():
            turns.choices = [*offered, (_WORDS["rotations"], "rotations")] if spec.spatial_ndim == 2 else offered
        if kept.get("tta") == "rotations" and spec.spatial_ndim == 3:
            kept["tta"] = "flips"  # turns are for planes
        self._fill(replace(self._defaults, **kept))
        threshold, rescale = self.widgets["threshold"], self.widgets["rescale"]
        decided = {"softmax": _ALWAYS_DECIDED, "labels": _NO_SCORES}.get(spec.output, "")
        threshold.enabled = not decided
        threshold.tooltip = decided or SegmentOptions.model_fields["threshold"].description
        rescale.native.setVisible(spec.spacing is not None or spec.zoom is not None)

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


def _choices(kind: Any) -> list[tuple[str, str]]:
    """Return words and value of each choice; a choice of nothing has the value ``""``, as in `Settings`."""
    return [(_WORDS.get(value) or str(value).capitalize(), value or "") for value in get_args(kind)]


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
