"""What happens to a viewer's layers, told in three signals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Image
from qtpy.QtCore import QObject, QTimer, Signal

if TYPE_CHECKING:
    import napari

__all__ = ["LayerWatch"]

_EVENTS = ("data", "scale", "units", "axis_labels", "rgb")
"""Events of an image after which a run would be another one."""


class LayerWatch(QObject):
    """Follows the layer list.

    What happens to images is told at once. What happens to other layers changes little for a run and is told a moment later, because
    the window stands still while a layer is put into it.

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
        self._selection = layers.selection
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._tell)
        layers.events.inserted.connect(self._on_inserted)
        layers.events.removed.connect(self._on_removed)
        layers.events.reordered.connect(self._on_listed)
        layers.selection.events.active.connect(self._on_active)
        for layer in layers:
            self._follow(layer)

    def _on_inserted(self, event: Any) -> None:
        self._follow(event.value)
        self._on_removed(event)

    def _on_removed(self, event: Any) -> None:
        if isinstance(event.value, Image):
            self.listed.emit()
        else:
            self._soon.start()

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
        if isinstance(self._selection.active, Image):
            self.activated.emit()
        else:
            self._soon.start()

    def _tell(self) -> None:
        self.listed.emit()
        self.activated.emit()

    def _on_altered(self, event: Any = None) -> None:
        self.altered.emit()
