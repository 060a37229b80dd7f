"""The Train dock: open layers, or folders, become a model of one's own."""

from __future__ import annotations

from napari_tileseg.widgets.train.dock import TrainWidget

__all__ = ["TrainWidget"]
