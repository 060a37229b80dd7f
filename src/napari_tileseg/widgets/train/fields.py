"""``FieldPage``: the fields under a fold of the Train dock, made from the types and words of a training's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_tileseg.training.config import Strengths, TrainConfig
from napari_tileseg.widgets.parts import Combo, Edit, Fields, Tick
from napari_tileseg.widgets.train.choices import LOSSES, NETWORKS, read_value, told

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

__all__ = ["FieldPage"]

_OFFERED: dict[str, Sequence[str]] = {"network": NETWORKS, "loss": LOSSES}
_WORDS = {
    "none": "Nothing",
    "auto": "Auto",
    "2": "Planes",
    "3": "Volumes",
    "instances": "Objects",
    "adamw": "AdamW",
    "bce": "Cross-entropy",
    "sgd": "SGD",
    "one_cycle": "One cycle",
    "millimeter": "mm",
    "micrometer": "µm",
    "conv_autoencoder": "Convolutional autoencoder",
    "vae": "VAE",
    "gan": "GAN",
    "lsgan": "LSGAN",
    "dcgan": "DCGAN",
    "absolute": "Difference",
    "ssim": "Structure (SSIM)",
    "kl": "Code (VAE)",
    "percentile": "Each by its own",
    "range": "One range for all",
}


class FieldPage(QWidget):
    """Fields of a config; empty ones follow from the data, and show in grey what that is.

    Parameters
    ----------
    names : sequence of str
        ``augmentation.x`` for a field of `Strengths`.
    config : type
        `TrainConfig`, or `UnsupervisedConfig`.
    """

    changed = Signal()

    def __init__(self, names: Sequence[str], config: type[BaseModel] = TrainConfig, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._config = config
        self.setObjectName("plain")
        self.fields = Fields(indent=8)
        self.widgets: dict[str, QWidget] = {}
        for name in names:
            self._add(name)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        layout.addWidget(self.fields)

    def _add(self, name: str) -> None:
        field = self._field(name)
        title, tip, default = str(field.title), field.description or "", self._default(name)
        widget: QWidget
        listed = get_origin(field.annotation) is Literal
        if name in _OFFERED or listed:
            values = get_args(field.annotation) if listed else _OFFERED[name]
            combo = Combo(title, tip)
            raw = not listed
            combo.fill([(value if raw else _WORDS.get(value, value.capitalize()), value) for value in values], default)
            combo.currentIndexChanged.connect(self._tell)
            widget = combo
            self.fields.add(title, combo)
        elif isinstance(default, bool):
            tick = Tick(title, tip)
            tick.setChecked(default)
            tick.toggled.connect(self._tell)
            widget = tick
            self.fields.add_wide(tick)
        else:
            edit = Edit(title, tip)
            edit.setText("" if default in (None, (), {}) else told(default))
            edit.textEdited.connect(self._tell)
            widget = edit
            self.fields.add(title, edit)
        self.widgets[name] = widget

    def values(self) -> dict[str, Any]:
        """Return what differs from the defaults."""
        found: dict[str, Any] = {}
        for name, widget in self.widgets.items():
            default = self._default(name)
            if isinstance(widget, Combo):
                value = widget.value
            elif isinstance(widget, Tick):
                value = widget.isChecked()
            elif isinstance(widget, Edit):
                text = widget.text().strip()
                if not text or text == told(default):
                    continue
                value = text if "." in name else read_value(name, text, self._config)
            if value != default:
                found[name] = value
        return found

    def tell_derived(self, settings: Mapping[str, Any]) -> None:
        """Show in grey what empty fields stand for."""
        for name, widget in self.widgets.items():
            if isinstance(widget, Edit) and self._default(name) in (None, (), {}):
                widget.setPlaceholderText(told(settings.get(name)) or "none")

    def enable(self, name: str, enabled: bool) -> None:
        """Let a field count, or not."""
        self.widgets[name].setEnabled(enabled)

    def _tell(self) -> None:
        self.changed.emit()

    def _field(self, name: str) -> Any:
        outer, _, inner = name.partition(".")
        return Strengths.model_fields[inner] if inner else self._config.model_fields[outer]

    def _default(self, name: str) -> Any:
        return self._field(name).get_default(call_default_factory=True)
