"""What the manifest offers to napari's Open and Save where the viewer counts: what was opened is said, what lies beside is measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
from napari.layers import Labels
from napari.utils.notifications import show_info

from napari_tileseg.io import napari_hooks
from napari_tileseg.io.dicom_listing import listing
from napari_tileseg.io.registry import find_format
from napari_tileseg.widgets.refine.measured import image_under

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_tileseg.volume import Volume

    LayerData = tuple[Any, dict[str, Any], str]

__all__ = ["get_reader", "write_labels_layer"]


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return the reader of `napari_hooks`, which says here how many series of DICOM it has opened."""
    reader = napari_hooks.get_reader(path)
    if reader is None:
        return None

    def read(path: str | Sequence[str]) -> list[LayerData]:
        layers = reader(path)
        for item in [path] if isinstance(path, str) else path:
            _say_series(Path(item))
        return layers

    return read


def _say_series(path: Path) -> None:
    chosen = find_format(path)
    if chosen is None or chosen.title != "DICOM" or not path.is_dir():
        return
    series = listing(path)
    if len(series) > 1:
        told = "; ".join(f"{path.name} {number} ({title})" for number, title in enumerate(series, 1))
        show_info(f'"{path.name}" holds {len(series)} series, each a layer of its own: {told}.')


def write_labels_layer(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Save a Labels layer; a table tells the intensities of the image that lies under it."""
    return napari_hooks.write_labels_layer(path, data, meta, image=_image(data, meta) if path.lower().endswith(".csv") else None)


def _image(data: Any, meta: Mapping[str, Any]) -> Volume | None:
    viewer = napari.current_viewer()
    layers = [] if viewer is None else list(viewer.layers)
    own = next((layer for layer in layers if isinstance(layer, Labels) and layer.data is data), None)
    return None if own is None else image_under(own, layers, napari_hooks.layer_volume(data, meta))
