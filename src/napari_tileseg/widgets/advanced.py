"""The fields under Options, Advanced: what most runs leave to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal

from napari_tileseg.job import SegmentOptions
from napari_tileseg.widgets.parts import Combo, Fields, Spin, Tick

if TYPE_CHECKING:
    from qtpy.QtWidgets import QWidget

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.widgets.choices import Settings

__all__ = ["AdvancedFields", "titled"]

_FIELDS = ("sigma", "padding", "tta", "adaptive", "skip_background")


def titled(name: str) -> tuple[str, str]:
    """Return an option's label and tooltip: the one place where its words stand is `SegmentOptions`."""
    field = SegmentOptions.model_fields[name]
    return str(field.title), str(field.description)


class AdvancedFields(Fields):
    """Sigma, padding, averaged views, adaptive overlap, skipped background."""

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(indent=8, parent=parent)
        self.sigma = Spin(*titled("sigma"), most=1.0, step=0.025)
        self.sigma.setMinimum(0.01)
        self.sigma.setDecimals(3)
        self.padding = Combo(*titled("padding"))
        self.padding.fill([("Zeros", "zeros"), ("Mirror image", "reflect")])
        self.tta = Combo(*titled("tta"))
        self.adaptive = Tick(*titled("adaptive"))
        self.skip_background = Tick(*titled("skip_background"))
        for field in (self.sigma, self.padding, self.tta):
            self.add(field.accessibleName(), field)
        for tick in (self.adaptive, self.skip_background):
            self.add_wide(tick)
            tick.toggled.connect(self._tell)
        self.sigma.valueChanged.connect(self._tell)
        for combo in (self.padding, self.tta):
            combo.currentIndexChanged.connect(self._tell)
        self._offer(2)

    @property
    def values(self) -> dict[str, object]:
        """What the fields hold, by the names of `Settings`."""
        return {
            "sigma": self.sigma.value(),
            "padding": self.padding.value,
            "tta": self.tta.value,
            "adaptive": self.adaptive.isChecked(),
            "skip_background": self.skip_background.isChecked(),
        }

    def set_spec(self, spec: ModelSpec) -> None:
        """Offer what the model can do: turns are for planes."""
        self._offer(spec.spatial_ndim)

    def fill(self, settings: Settings) -> None:
        """Show settings without a signal."""
        blocked = [getattr(self, name).blockSignals(True) for name in _FIELDS]
        self.sigma.setValue(settings.sigma)
        self.padding.choose(settings.padding)
        if not self.tta.choose(settings.tta):
            self.tta.choose("flips")
        self.adaptive.setChecked(settings.adaptive)
        self.skip_background.setChecked(settings.skip_background)
        for name, was in zip(_FIELDS, blocked, strict=True):
            getattr(self, name).blockSignals(was)

    def _offer(self, ndim: int) -> None:
        turns = [("Flips and turns", "rotations")] if ndim == 2 else []
        self.tta.fill([("Nothing", ""), ("Flips", "flips"), *turns], self.tta.value)

    def _tell(self) -> None:
        self.changed.emit()
