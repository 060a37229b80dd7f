"""A run like an earlier one: from the provenance of a labels layer, of this session or from a file, to an order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari.layers import Labels

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.orientation import turned_spec
from napari_tileseg.errors import InputError
from napari_tileseg.models.registry import find_spec
from napari_tileseg.replay import differences, recall
from napari_tileseg.widgets.layers import array_of, image_layers, volume_from_layer
from napari_tileseg.widgets.session import Order

if TYPE_CHECKING:
    from collections.abc import Mapping

    import napari
    from napari.layers import Image, Layer

__all__ = ["made_with", "order_again", "provenance_of"]


def provenance_of(layer: Layer | None) -> dict[str, Any]:
    """Return how a labels layer was made; empty where it does not say."""
    told = layer.metadata.get("tileseg") if isinstance(layer, Labels) else None
    return dict(told) if isinstance(told, dict) and isinstance(told.get("model"), dict) and "options" in told else {}


def made_with(layer: Layer, provenance: Mapping[str, Any]) -> str:
    """Say it in a sentence."""
    return (
        f'"{layer.name}" was made from "{provenance.get("input", {}).get("name", "")}" with {provenance["model"].get("name", "a model")}.'
    )


def order_again(viewer: napari.viewer.Viewer, provenance: Mapping[str, Any]) -> tuple[Order, list[str]]:
    """Return the order that does again what a provenance tells, on the image it was made from.

    Returns
    -------
    order : Order
    notes : list of str
        What will not be as it was.

    Raises
    ------
    ModelError, OptionsError
        If the model is not here, or the provenance is damaged.
    InputError
        If the image is not open.
    AxesError
        If the image has other axes now.
    """
    again = recall(provenance)
    layer = _image(viewer, again.image, tuple(provenance["input"]["shape"]))
    spec = find_spec(again.job.model)
    volume = volume_from_layer(layer, again.job.axes or "")
    path = getattr(layer.source, "path", None)
    job = again.job.model_copy(update={"input": str(path) if path else None})
    axis_map = map_axes(volume.axes, volume.shape, turned_spec(volume, spec), channels=job.channels)
    return Order(job, volume, layer, axis_map, spec), [*again.notes, *differences(provenance, volume)]


def _image(viewer: napari.viewer.Viewer, name: str, shape: tuple[int, ...]) -> Image:
    """Return the layer of the image; one of its shape if none has its name."""
    fitting = [layer for layer in image_layers(viewer.layers) if tuple(array_of(layer).shape) == shape]
    named = [layer for layer in fitting if layer.name == name]
    if not fitting:
        raise InputError(f'The image "{name}" of shape {shape} is not open. Open it, then run again.')
    return (named or fitting)[0]
