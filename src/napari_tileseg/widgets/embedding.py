"""``show_embedding``: tiles or objects as points, where they lie in the image and where in the space of codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points

from napari_tileseg.errors import InputError
from napari_tileseg.widgets.layers import layer_matrix

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_tileseg.training.unsupervised.embedding import Embedding

__all__ = ["show_embedding"]

_GREY = (0.75, 0.75, 0.75, 1.0)
_GAP = 0.1


def show_embedding(viewer: ViewerModel, embedding: Embedding, *, layer: Layer | None = None) -> tuple[Points, Points]:
    """Add two Points layers, both coloured as the labels are (by score, where there are none).

    Parameters
    ----------
    viewer : napari viewer
    embedding : Embedding
        As `embed` returns it.
    layer : napari layer, optional
        The image or the labels that it is of, without an axis of channels: points lie on it, and codes beside it.

    Returns
    -------
    places, codes : napari.layers.Points
        Where the tiles or objects lie; and their codes, to the right of the image and as high. Row n is the same in both: a click on a
        code moves the viewer to its place.

    Raises
    ------
    InputError
        If the layer has other axes than the points.
    """
    ndim = embedding.positions.shape[1]
    if layer is not None and layer.ndim != ndim:
        raise InputError(f'"{layer.name}" has {layer.ndim} axes, the points {ndim}. Choose the labels, or one channel of the image.')
    looks: dict[str, Any] = {"features": _features(embedding), "border_width": 0, **_colours(embedding, layer)}
    grid: dict[str, Any] = {} if layer is None else {"affine": layer_matrix(layer), "units": layer.units, "axis_labels": layer.axis_labels}
    places = Points(embedding.positions, name=f"{_name(layer)} places", size=_step(embedding.positions) / 4, **grid, **looks)
    low, high = _box(places if layer is None else layer)
    points = _beside(embedding.points, low[-2:], high[-2:])
    units = {} if layer is None else {"units": layer.units[-points.shape[1] :]} if ndim >= points.shape[1] else {}
    codes = Points(points, name=f"{_name(layer)} codes", size=float(high[-2] - low[-2]) / 40, **units, **looks)
    for made in (places, codes):
        viewer.add_layer(made)
    codes.mouse_drag_callbacks.append(lambda layer, event: _go(viewer, places, layer, event))
    return places, codes


def _go(viewer: ViewerModel, places: Points, codes: Points, event: Any) -> None:
    """Move the viewer to the place of the code that was clicked, and select it."""
    number = codes.get_value(event.position, view_direction=event.view_direction, dims_displayed=event.dims_displayed, world=True)
    if number is None or places not in viewer.layers:
        return
    where = [0.0] * (viewer.dims.ndim - places.ndim) + [float(place) for place in places.data_to_world(places.data[number])]
    hidden = [axis for axis in range(viewer.dims.ndim) if axis not in viewer.dims.displayed]
    viewer.dims.set_point(hidden, [where[axis] for axis in hidden])
    camera = getattr(viewer, "scene", viewer).camera  # newer napari keeps it in the scene
    camera.center = tuple(where[axis] for axis in viewer.dims.displayed)
    places.selected_data = {int(number)}


def _name(layer: Layer | None) -> str:
    return "embedding" if layer is None else str(layer.name)


def _features(embedding: Embedding) -> dict[str, NDArray[Any]]:
    codes = {f"code {number + 1}": column for number, column in enumerate(embedding.points.T)}
    return {"label": embedding.labels, "score": embedding.scores, **codes}


def _colours(embedding: Embedding, layer: Layer | None) -> dict[str, Any]:
    if not embedding.labels.any():
        return {"face_color": "score", "face_colormap": "viridis"}
    shown = layer if isinstance(layer, Labels) else Labels(np.zeros((1, 1), np.int64))
    colours = np.asarray(shown.colormap.map(embedding.labels), float)
    colours[embedding.labels == 0] = _GREY  # napari shows the background as nothing at all
    return {"face_color": colours}


def _step(positions: NDArray[np.float64]) -> float:
    """Return about how far points lie apart: the side of a square of its own for each."""
    sides = np.ptp(positions[:, -2:], axis=0) + 1
    return float(max(4.0, np.sqrt(sides.prod() / len(positions))))


def _box(layer: Layer) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the corners of a layer in the world."""
    low, high = np.asarray(layer.extent.world, float)
    return low, np.maximum(high, low + 1)


def _beside(points: NDArray[np.float32], low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring codes (N, 2 or 3) to the right of a box and to its height; shapes are kept, the first code grows to the right."""
    found = points[:, ::-1].astype(float)  # world coordinates have X last
    found[:, -2] *= -1  # and Y grows downwards
    factor = (high[0] - low[0]) / max(float(np.ptp(found, axis=0).max()), 1e-9)
    found = (found - found.min(0)) * factor
    found[:, -1] += high[1] + _GAP * (high[1] - low[1])
    found[:, -2] += low[0] + (high[0] - low[0] - found[:, -2].max()) / 2
    return np.asarray(found)
