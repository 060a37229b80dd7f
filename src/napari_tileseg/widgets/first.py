"""``FirstLabels``: napari's first Labels layer takes about a second; that second passes beside the window, before anybody needs it."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import Any

import numpy as np
from napari.layers import Labels

__all__ = ["FirstLabels", "import_all"]

_IMPORTED = ("skimage.color.colorconv", "scipy.linalg", "pandas")
"""What napari imports with it: nearly all of that second."""


def import_all() -> bool:
    """Import what a Labels layer needs; called in another thread."""
    for name in _IMPORTED:
        with contextlib.suppress(ImportError):  # another version of napari may do without
            import_module(name)
    return True


class FirstLabels:
    """Makes a Labels layer for nobody, once that is quick: when its imports are done, and an image is there, with which units came."""

    def __init__(self) -> None:
        self._imported = self._made = False

    def on_imported(self, answer: Any, *, image: bool) -> None:
        """Take note that `import_all` has come to its end."""
        self._imported = answer is True
        self.make(image=image)

    def make(self, *, image: bool) -> None:
        """Make it if all is there."""
        if self._imported and image and not self._made:
            self._made = True
            Labels(np.zeros((1, 1), np.uint8))
