"""Pixels of an image in the place of labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.refine.blocks import shape_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas, Place

__all__ = ["pixels_of"]


def pixels_of(image: Any, canvas: Canvas, place: Place, box: Box, *, grey: bool = False) -> NDArray[np.float64]:
    """Read a box of an image.

    Parameters
    ----------
    image : array-like
        Of the labels' shape, or with one more, last axis of colours.
    canvas : Canvas
    place : Place
    box : Box
        In the place.
    grey : bool
        Whether to return the mean of the colours.

    Returns
    -------
    ndarray of float64, of the box's shape; colours along a last axis
        Values that are not finite are 0.

    Raises
    ------
    InputError
        If the image lies on another grid.
    """
    shape = tuple(int(size) for size in image.shape)
    if shape[: canvas.ndim] != canvas.shape or len(shape) > canvas.ndim + 1:
        raise InputError(f"The image has shape {shape}, the labels {canvas.shape}. Choose an image on the same grid.")
    values = np.nan_to_num(np.asarray(image[place.full(box)], dtype=np.float64), posinf=0, neginf=0)
    values = values.reshape(*shape_of(box), *shape[canvas.ndim :])
    return values.mean(axis=-1) if grey and len(shape) > canvas.ndim else values
