"""The Refine dock: labels are corrected by hand, each step undoable, and kept as they are made."""

from __future__ import annotations

from napari_tileseg.widgets.refine.dock import RefineWidget

__all__ = ["RefineWidget"]
