"""``python -m napari_tileseg.widgets.gallery DIR``: a viewer with a sample and what the demo found in it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Layer

from napari_tileseg.io.napari_hooks import layer_data
from napari_tileseg.io.registry import read_volume
from napari_tileseg.io.samples import SAMPLES, find_sample, sample

if TYPE_CHECKING:
    from napari.components import ViewerModel

__all__ = ["add_result", "main"]


def add_result(viewer: ViewerModel, folder: Path, key: str) -> None:
    """Add a sample, its hidden reference and the demo's labels to a viewer; the image becomes the active layer.

    One sample only: pixels and millimetres, planes and volumes do not share a viewer well.

    Parameters
    ----------
    viewer : napari viewer
    folder : Path
        What ``tileseg demo -o`` was given. Labels that are not there are passed over.
    key : str
        Which sample.
    """
    item = find_sample(key)
    image, reference = sample(key)
    labels = next(iter(sorted(folder.glob(f"{item.name}_labels.*"))), None)
    volumes = [reference, image, *([read_volume(labels)] if labels else [])]
    for volume in volumes:
        for data, meta, kind in layer_data(volume):
            viewer.add_layer(Layer.create(data, {**meta, "visible": volume is not reference}, kind))
    viewer.title = f"TileSeg demo: {item.title}"
    viewer.layers.selection.active = viewer.layers[item.name]
    viewer.reset_view()


def main() -> None:
    """Show a result until the window is closed."""
    keys = [item.key for item in SAMPLES]
    parser = argparse.ArgumentParser(description="Show a result of tileseg demo.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sample", choices=keys, default=keys[0])
    arguments = parser.parse_args()
    import napari

    viewer = napari.Viewer()
    add_result(viewer, arguments.folder, arguments.sample)
    viewer.window.add_plugin_dock_widget("napari-tileseg", "Segment")
    napari.run()


if __name__ == "__main__":
    main()
