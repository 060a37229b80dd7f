"""The Models dock: find, bring, check, trust and remove models."""

from __future__ import annotations

from napari_tileseg.widgets.models.dock import ModelsWidget

__all__ = ["ModelsWidget"]
