"""Which channel, or which layer, feeds each input of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_tileseg.widgets.choices import default_channels
from napari_tileseg.widgets.parts import Combo, Fields

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["ChannelFields"]

_ALL = -1


class ChannelFields(QWidget):
    """One combo per input of the model; hidden where there is nothing to choose."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self.fields = Fields()
        self.combos: list[Combo] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addWidget(self.fields)
        self._key: object = None
        self._layers = False
        self.hide()

    @property
    def indices(self) -> tuple[int, ...] | None:
        """Index along C for each input; None where the model takes them all as they are, or layers are chosen."""
        if not self.combos or self._layers:
            return None
        chosen = tuple(int(combo.value) for combo in self.combos)
        return None if _ALL in chosen else chosen

    @property
    def layers(self) -> list[Any]:
        """The layer for each input, where a model's inputs lie in several layers."""
        return [combo.value for combo in self.combos] if self._layers else []

    def offer_channels(self, spec: ModelSpec, count: int, names: Sequence[str] = ()) -> None:
        """Offer the channels of an image with a C axis.

        Parameters
        ----------
        spec : ModelSpec
        count : int
            Length of C.
        names : sequence of str
            Names of the channels, if known.
        """
        texts = [f"{index}: {names[index]}" if index < len(names) else str(index) for index in range(count)]
        choices: list[tuple[str, Any]] = [(text, index) for index, text in enumerate(texts)]
        single = len(spec.channels) == 1 or spec.grey in ("repeat", "fewer")
        defaults = default_channels(spec, count)
        if single and defaults is None:
            choices.insert(0, (f"All {count}", _ALL))
        labels = ["Channel"] if single else list(spec.channels)
        start = defaults or ((_ALL,) if single else tuple(range(len(labels))))
        self._fill(("C", spec.name, count, tuple(names)), labels, choices, start, layers=False)

    def offer_layers(self, spec: ModelSpec, layers: Sequence[Any], first: Any) -> None:
        """Offer other layers of the same shape, for a model that needs several inputs."""
        choices = [(layer.name, layer) for layer in layers]
        others = [layer for layer in layers if layer is not first]
        start = [first, *others, *[first] * len(spec.channels)][: len(spec.channels)]
        key = ("L", spec.name, tuple((id(layer), layer.name) for layer in layers), id(first))
        self._fill(key, list(spec.channels), choices, start, layers=True)

    def offer_nothing(self) -> None:
        """There is nothing to choose."""
        self._fill(None, [], [], (), layers=False)

    def _fill(self, key: object, labels: list[str], choices: list[tuple[str, Any]], start: Sequence[Any], *, layers: bool) -> None:
        if key == self._key:
            return
        self._key, self._layers = key, layers
        self._layout.removeWidget(self.fields)
        self.fields.hide()
        self.fields.deleteLater()
        self.fields, self.combos = Fields(), []
        for label, chosen in zip(labels, start, strict=True):
            combo = Combo(label, "Layer for it." if layers else "Channel for it.")
            combo.fill(choices, chosen)
            combo.currentIndexChanged.connect(self._tell)
            self.fields.add(label, combo)
            self.combos.append(combo)
        self._layout.addWidget(self.fields)
        self.setVisible(bool(labels))

    def _tell(self) -> None:
        self.changed.emit()
