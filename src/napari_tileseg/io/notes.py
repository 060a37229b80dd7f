"""What a format has no place for, as plain JSON, for formats that take JSON or text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.io.ome import OmeImage, annotation
from napari_tileseg.io.output import Survey, smallest_dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_tileseg.volume import Volume

__all__ = ["noted", "restored", "unsigned"]


def noted(labels: Volume, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return axes, shape, affine, units, classes, colours and provenance; no affine that holds what is no number, as JSON cannot."""
    told = annotation(labels, classes=classes, colors=colors, provenance=provenance)
    whole = bool(np.isfinite(labels.affine).all())
    return {key: json.loads(value) for key, value in told.items() if whole or key != "affine"}


def restored(volume: Volume, note: Mapping[str, Any]) -> Volume:
    """Return labels with what `noted` gave.

    Raises
    ------
    KeyError, TypeError, ValueError, TileSegError
        If somebody has changed the note so that it makes no sense.
    """
    return OmeImage(extra={"affine": np.eye(len(note["axes"]) + 1).tolist(), **note}).restore(volume)


def unsigned(highest: int) -> np.dtype[Any]:
    """Return the smallest type that holds labels from 0 up to one."""
    return smallest_dtype(Survey(0, highest, ""), ("uint8", "uint16", "uint32", "uint64"), "64 bits")
