"""``Look``: one validation image with its labels and what the model makes of it, as layers; the next one takes their place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Layer

from napari_tileseg.errors import InputError
from napari_tileseg.io.napari_hooks import layer_data
from napari_tileseg.io.order import ordered
from napari_tileseg.training.items import Item, open_image, open_labels
from napari_tileseg.widgets.train.rows import OURS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import napari

    from napari_tileseg.io.napari_hooks import LayerData
    from napari_tileseg.volume import Volume
    from napari_tileseg.widgets.train.pairs import Example

__all__ = ["Look", "Shown", "read_shown"]

_PICTURE = ("rgb", "contrast_limits", "colormap", "blending", "channel_axis", "gamma", "opacity")


@dataclass(frozen=True, eq=False)
class Shown:
    """What is to be shown of a validation image: layers as napari's readers give them, and the example that is open already, if it is."""

    name: str
    image: list[LayerData]
    truth: list[LayerData]
    prediction: LayerData
    example: Example | None = None


def read_shown(image: Mapping[str, Any], examples: Mapping[str, Example], axes: str = "") -> Shown:
    """Open what a row stands for; not for Qt's thread.

    Parameters
    ----------
    image : mapping
        An entry of `EpochEnded.images`.
    examples : mapping of str to Example
        Those that are open as layers: their image and labels need not be opened again.
    axes : str
        Of every image of a folder, where the user has named them.

    Raises
    ------
    InputError, AxesError
        If a file cannot be read any more.
    """
    name = str(image["name"])
    try:
        labels = np.load(image["labels"])
    except (OSError, ValueError):
        raise InputError(f'What the model makes of "{name}" is not on the disk any more. Wait for the next epoch.') from None
    file = Path(image["image"]).name.removesuffix(".ome.tif")  # a region has a name of its own
    example = examples.get(file)
    if example is not None:
        grid = ordered(example.image, "TCZYX")
        return Shown(name, [], [], _labels(grid, labels, image["box"], f"{name}_prediction"), example)
    item = Item(name, Path(image["image"]), Path(image["truth"]))
    volume = open_image(item, axes or None)
    truth = np.asarray(open_labels(item, volume.axes).data)
    pictures = [(data, {**meta, "name": name}, kind) for data, meta, kind in layer_data(volume)]
    return Shown(
        name, pictures, [_labels(volume, truth, None, f"{name}_labels")], _labels(volume, labels, image["box"], f"{name}_prediction")
    )


def _labels(volume: Volume, labels: Any, box: Any, name: str) -> LayerData:
    """Return labels on an image's grid; those of a region lie where it lies."""
    axes, affine, units = volume.drop("C")
    affine = np.array(affine, dtype=float)
    if box is not None:
        starts = dict(zip(volume.spatial_axes, (start for start, _ in box), strict=True))
        affine[:-1, -1] += affine[:-1, :-1] @ np.array([starts.get(axis, 0) for axis in axes], dtype=float)
    grid = replace(volume, data=labels, axes=axes, affine=affine, units=units, name=name, channel_names=(), metadata={}, levels=())
    data, meta, _ = layer_data(grid)[0]
    return data, {key: value for key, value in meta.items() if key not in _PICTURE} | {"metadata": {OURS: name}}, "labels"


class Look:
    """The layers of one validation image.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self.name = ""
        self.layers: list[Layer] = []

    def reveal(self, example: Example, examples: Sequence[Example]) -> None:
        """Let an image and its labels be seen, and none of the others that lie in the same place."""
        for other in examples:
            for layer in other.layers:
                layer.visible = other is example

    def show(self, shown: Shown) -> None:
        """Put the layers of another image in the place of those of the last one, or renew the model's labels of the same one."""
        ours = [layer for layer in self.layers if layer in self._viewer.layers]
        data, meta, kind = shown.prediction
        if shown.name == self.name and ours and ours[-1].name == meta["name"] and np.shape(ours[-1].data) == np.shape(data):
            ours[-1].data = data
            return
        for layer in ours:
            self._viewer.layers.remove(layer)
        self.name = shown.name
        self.layers = []
        for item in (*shown.image, *shown.truth, (data, meta, kind)):
            content, given, sort = item
            marked = given | {"metadata": {**(given.get("metadata") or {}), OURS: shown.name}}
            layer = Layer.create(content, marked, sort)
            if layer.name.endswith("_prediction"):
                layer.contour = 1 if layer.ndim == 2 else 0  # both can be seen, one over the other
            self.layers.append(self._viewer.add_layer(layer))
        if shown.image:
            self._viewer.reset_view()
