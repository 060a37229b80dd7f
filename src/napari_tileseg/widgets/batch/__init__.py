"""The Batch dock: a folder of images becomes a folder of labels, past bad files, and resumable."""

from __future__ import annotations

from napari_tileseg.widgets.batch.dock import BatchWidget

__all__ = ["BatchWidget"]
