"""The building blocks of every dock."""

from __future__ import annotations

from napari_tileseg.widgets.parts.bar import ProgressBar
from napari_tileseg.widgets.parts.button import MainButton, ThemedIcon
from napari_tileseg.widgets.parts.combo import Combo
from napari_tileseg.widgets.parts.dock import Dock
from napari_tileseg.widgets.parts.fields import Edit, Fields, Note, Tick
from napari_tileseg.widgets.parts.fold import Fold
from napari_tileseg.widgets.parts.message import Box, Links, MessageBox
from napari_tileseg.widgets.parts.place import Browse, Elided, PathEdit
from napari_tileseg.widgets.parts.scroll import Scroll

__all__ = [
    "Box",
    "Browse",
    "Combo",
    "Dock",
    "Edit",
    "Elided",
    "Fields",
    "Fold",
    "Links",
    "MainButton",
    "MessageBox",
    "Note",
    "PathEdit",
    "ProgressBar",
    "Scroll",
    "ThemedIcon",
    "Tick",
]
