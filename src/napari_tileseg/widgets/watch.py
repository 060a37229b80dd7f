"""What happens to a viewer's layers, told in three signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QObject, Signal

if TYPE_CHECKING:
    import napari

__all__ = ["LayerWatch"]

_EVENTS = ("data", "scale", "units", "axis_labels", "rgb")
"""Events of an image after which a run would be another one."""


class LayerWatch(QObject):
    """Follows the layer list.

    Signals
    -------
    listed
        Layers came, went, moved or were renamed.
    activated
        Another layer is active.
    altered
        An image's array or its place changed.
    """

    listed = Signal()
    activated = Signal()
    altered = Signal()

    def __init__(self, viewer: napari.viewer.Viewer, parent: QObject | None = None) -> None:
        super().__init__(parent)
        layers = viewer.layers
        layers.events.inserted.connect(self._on_inserted)
        layers.events.removed.connect(self._on_listed)
        layers.events.reordered.connect(self._on_listed)
        layers.selection.events.active.connect(self._on_active)
        for layer in layers:
            self._follow(layer)

    def _on_inserted(self, event: Any) -> None:
        self._follow(event.value)
        self.listed.emit()

    def _follow(self, layer: Any) -> None:
        layer.events.name.connect(self._on_listed)
        if isinstance(layer, Image):
            for name in _EVENTS:
                emitter = getattr(layer.events, name, None)  # not every napari has them all
                if emitter is not None:
                    emitter.connect(self._on_altered)

    def _on_listed(self, event: Any = None) -> None:
        self.listed.emit()

    def _on_active(self, event: Any = None) -> None:
        self.activated.emit()

    def _on_altered(self, event: Any = None) -> None:
        self.altered.emit()
