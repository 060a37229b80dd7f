"""``Samples``: what a model that learns without labels makes now, as a layer that is renewed while it learns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_tileseg.errors import InputError
from napari_tileseg.widgets.train.rows import OURS

if TYPE_CHECKING:
    import napari
    from numpy.typing import NDArray

    from napari_tileseg.training.events import SamplesMade

__all__ = ["Samples", "beside", "grid", "read_samples"]

_COLUMNS = 4
_GAP = 2
"""Pixels between two pictures."""

_APART = 0.05
"""Room between the samples and what lies left of them, as a share of its width."""


def read_samples(made: SamplesMade) -> NDArray[np.float32]:
    """Read what an event tells of, and lay it out; not for Qt's thread.

    Raises
    ------
    InputError
        If the file is not there any more.
    """
    try:
        pictures = np.load(Path(made.path))
    except (OSError, ValueError):
        raise InputError("What the model makes is not on the disk any more. Wait for the next samples.") from None
    return grid(pictures, pairs=made.pairs)


def grid(pictures: NDArray[Any], *, pairs: bool) -> NDArray[np.float32]:
    """Lay pictures out in rows of four.

    Parameters
    ----------
    pictures : ndarray, shape (N, C, Y, X)
        From 0 to 1.
    pairs : bool
        Whether every second picture came back of the one before: it lies below it then.

    Returns
    -------
    ndarray of float32
        (Y, X) of one channel, (Y, X, 3) of three, (C, Y, X) of others.
    """
    count, channels, height, width = pictures.shape
    columns = min(_COLUMNS, math.ceil(count / (2 if pairs else 1)))
    rows = math.ceil(count / columns)
    rows += rows % 2 if pairs else 0
    sheet = np.zeros((channels, rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP), np.float32)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        if pairs:
            row, column = 2 * (number // 2 // columns) + number % 2, number // 2 % columns
        top, left = row * (height + _GAP), column * (width + _GAP)
        sheet[:, top : top + height, left : left + width] = picture
    if channels == 1:
        return np.ascontiguousarray(sheet[0])
    return np.ascontiguousarray(np.moveaxis(sheet, 0, -1)) if channels == 3 else sheet


class Samples:
    """The layers of one training: pictures that are made up, and tiles above what came back of them.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    name : str
        Of the model.
    """

    def __init__(self, viewer: napari.viewer.Viewer, name: str) -> None:
        self._viewer = viewer
        self._name = name
        self._layers: dict[bool, Image] = {}

    def show(self, sheet: NDArray[np.float32], *, pairs: bool) -> None:
        """Show newer pictures in the place of the last ones; a layer that the user has removed stays away."""
        layer = self._layers.get(pairs)
        if layer is not None and layer in self._viewer.layers:
            layer.data = sheet
        elif layer is None:
            self._layers[pairs] = self._add(sheet, pairs=pairs)

    def _add(self, sheet: NDArray[np.float32], *, pairs: bool) -> Image:
        rgb = sheet.ndim == 3 and sheet.shape[-1] == 3
        kind = "reconstruction" if pairs else "samples"
        place = beside(self._viewer, sheet.shape[:2] if rgb else sheet.shape[-2:], extra=sheet.ndim - 2 - rgb)
        selected = set(self._viewer.layers.selection)
        first = not self._viewer.layers
        layer = Image(
            sheet,
            name=f"{self._name}_{kind}",
            rgb=rgb,
            contrast_limits=(0, 1),
            metadata={OURS: self._name} | ({} if pairs else {"synthetic": True}),
            **place,
        )
        self._viewer.add_layer(layer)
        if not first:
            self._viewer.layers.selection = selected  # the image that is worked on stays the active one
        self._viewer.reset_view()
        return layer


def beside(viewer: napari.viewer.Viewer, shape: tuple[int, ...], *, extra: int = 0) -> dict[str, Any]:
    """Return where pictures are put: right of all that is open, and no larger than it.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    extra : int
        Axes before these.

    Returns
    -------
    dict
        Arguments of a layer; none where nothing is open.
    """
    others = [layer for layer in viewer.layers if layer.ndim >= 2]
    if not others:
        return {}
    corners = np.array([np.asarray(layer.extent.world, float)[:, -2:] for layer in others])
    low, high = np.nanmin(corners[:, 0], axis=0), np.nanmax(corners[:, 1], axis=0)
    size = np.maximum(high - low, 1e-9)
    side = float(min(size[0] / shape[0], size[1] / shape[1]))
    return {
        "scale": [*([1] * extra), side, side],
        "translate": [*([0] * extra), low[0], high[1] + _APART * size[1]],
        "units": [*(["pixel"] * extra), *others[0].units[-2:]],
    }
