"""Saving corrected labels, in every format that labels are written in, with what was done to them by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.io import write_labels
from napari_tileseg.io.files import is_zarr
from napari_tileseg.io.napari_hooks import layer_volume
from napari_tileseg.widgets import save as saving
from napari_tileseg.widgets.refine.measured import image_under

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari.layers import Labels, Layer
    from qtpy.QtWidgets import QWidget

    from napari_tileseg.volume import Volume
    from napari_tileseg.widgets.session import Session

__all__ = ["ask", "image_of", "volume_of", "writer_of"]

_COPIED = 1 << 30
"""Labels up to this many bytes are copied before they are saved, so that they can be changed meanwhile."""


def volume_of(labels: Labels, segment: Session) -> Volume:
    """Return a layer's labels with their place in the world; those of a run on the axes of its image."""
    data, meta, _ = labels.as_layer_data_tuple()
    volume = layer_volume(data, meta)
    result = segment.result
    if result is not None and result.owns(labels) and len(result.layers) == 1:
        return replace(result.labels_volume(), metadata=volume.metadata)
    return volume


def image_of(labels: Labels, layers: Sequence[Layer], volume: Volume, segment: Session) -> Volume | None:
    """Return the image of the labels: of a run the one that it was made from, else the one that lies under them."""
    result = segment.result
    if result is not None and result.owns(labels) and len(result.layers) == 1:
        return result.volume
    return image_under(labels, layers, volume)


def ask(parent: QWidget, volume: Volume, name: str, *, large: bool) -> Path | None:
    """Let the user choose a file; None where nothing is to be written."""
    path = saving.ask_path(parent, saving.default_name(volume, name, large=large))
    if path is None or ((path.is_file() or is_zarr(path)) and not saving.confirm_overwrite(parent, path)):
        return None
    return path


def writer_of(labels: Labels, volume: Volume, path: Path, image: Volume | None, wishes: Mapping[str, Any]) -> Callable[[], Path]:
    """Return what writes the labels as they are now, to be called in another thread.

    Parameters
    ----------
    image : Volume or None
        What lies under the labels, whose intensities tables tell.
    wishes : mapping
        From `widgets.save.ask_mesh`.
    """
    if isinstance(volume.data, np.ndarray) and volume.data.nbytes <= _COPIED:
        volume = volume.with_data(volume.data.copy())
    provenance: dict[str, Any] = dict(labels.metadata.get("tileseg") or {})
    known = volume.metadata
    classes, colors = tuple(known.get("classes") or ()), tuple(known.get("colors") or ())
    facts: dict[str, Any] = {"classes": classes, "colors": colors, "provenance": provenance or None}
    return lambda: write_labels(volume, path, **facts, overwrite=True, image=image, **wishes)
