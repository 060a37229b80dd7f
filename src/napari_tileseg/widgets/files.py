"""What the manifest offers to napari's Open and Save where the viewer counts: what was opened is said, what lies beside is measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import napari
from napari.layers import Labels
from napari.utils.notifications import show_info

from napari_tileseg.io import napari_hooks
from napari_tileseg.io.dicom_listing import listing
from napari_tileseg.widgets.refine.measured import image_under
from napari_tileseg.widgets.series import ask_series

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from napari_tileseg.volume import Volume

    LayerData = tuple[Any, dict[str, Any], str]

__all__ = ["get_reader", "write_labels_layer"]


def get_reader(path: str | Sequence[str]) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return the reader of `napari_hooks`, which asks here which of many series of DICOM are meant, and says what it opens."""
    return napari_hooks.get_reader(path, choose=_choose_series)


def _choose_series(folder: Path) -> list[int]:
    titles = listing(folder)
    chosen = ask_series(folder.name, titles)
    if len(titles) > 1 and chosen:
        told = "; ".join(f"{folder.name} {number + 1} ({titles[number]})" for number in chosen)
        opened = "each" if len(chosen) == len(titles) else f"{len(chosen)} of them opened, each"
        show_info(f'"{folder.name}" holds {len(titles)} series, {opened} a layer of its own: {told}.')
    return chosen


def write_labels_layer(path: str, data: Any, meta: Mapping[str, Any]) -> list[str]:
    """Save a Labels layer; a table tells the intensities of the image that lies under it."""
    return napari_hooks.write_labels_layer(path, data, meta, image=_image(data, meta) if path.lower().endswith(".csv") else None)


def _image(data: Any, meta: Mapping[str, Any]) -> Volume | None:
    viewer = napari.current_viewer()
    layers = [] if viewer is None else list(viewer.layers)
    own = next((layer for layer in layers if isinstance(layer, Labels) and layer.data is data), None)
    return None if own is None else image_under(own, layers, napari_hooks.layer_volume(data, meta))
