"""``show_embedding``: tiles or objects as points, where they lie in the image and where in the space of codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels, Points

from napari_tileseg.errors import InputError
from napari_tileseg.widgets.layers import layer_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_tileseg.training.unsupervised.embedding import Embedding

__all__ = ["show_embedding", "show_embeddings"]

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
    if layer is not None:
        _check(embedding, layer)
    looks: dict[str, Any] = {"features": _features(embedding), "border_width": 0, **_colours(embedding, layer)}
    grid: dict[str, Any] = {} if layer is None else {"affine": layer_matrix(layer), "units": layer.units, "axis_labels": layer.axis_labels}
    places = Points(embedding.positions, name=f"{_name(layer)} places", size=_step(embedding.positions) / 4, **grid, **looks)
    low, high = _box(places if layer is None else layer)
    points = _beside(embedding.points, low[-2:], high[-2:])
    units = {} if layer is None else {"units": layer.units[-points.shape[1] :]} if ndim >= points.shape[1] else {}
    codes = Points(points, name=f"{_name(layer)} codes", size=float(high[-2] - low[-2]) / 40, **units, **looks)
    for made in (places, codes):
        viewer.add_layer(made)
    codes.mouse_drag_callbacks.append(lambda layer, event: _go(viewer, [(places, number) for number in range(len(points))], layer, event))
    return places, codes


def show_embeddings(viewer: ViewerModel, embedding: Embedding, layers: Mapping[str, Layer]) -> tuple[list[Points], Points]:
    """Add a Points layer for each of several images, and one for the codes of all, coloured by label, or by image where there are none.

    Parameters
    ----------
    viewer : napari viewer
    embedding : Embedding
        As `join` returns it.
    layers : mapping of str to napari layer
        The layer of each image that it names, without an axis of channels.

    Returns
    -------
    places : list of napari.layers.Points
        On each image, in the order of `layers`.
    codes : napari.layers.Points

    Raises
    ------
    InputError
        If a layer has other axes than the points.
    """
    names = list(layers)
    for layer in layers.values():
        _check(embedding, layer)
    features = _features(embedding) | {"image": np.array(embedding.images)}
    looks = _colours(embedding, None)
    if not embedding.labels.any():
        hues = Labels(np.zeros((1, 1), np.int64)).colormap
        looks = {"face_color": np.asarray(hues.map(np.array([names.index(image) + 1 for image in embedding.images])), float)}
    rows = [np.array([image == name for image in embedding.images]) for name in names]
    every: list[Points] = []
    where: dict[int, tuple[Points, int]] = {}
    for layer, inside in zip(layers.values(), rows, strict=True):
        positions = embedding.positions[inside]
        own = {name: column[inside] for name, column in features.items()}
        colours = looks["face_color"][inside] if not isinstance(looks["face_color"], str) else looks["face_color"]
        grid = {"affine": layer_matrix(layer), "units": layer.units, "axis_labels": layer.axis_labels}
        look = {**looks, "face_color": colours, "features": own, "border_width": 0}
        made = Points(positions, name=f"{layer.name} places", size=_step(positions) / 4, visible=layer.visible, **grid, **look)
        where |= {int(number): (made, place) for place, number in enumerate(np.flatnonzero(inside))}
        every.append(made)
    boxes = np.array([_box(layer) for layer in layers.values()])
    low, high = boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)
    points = _beside(embedding.points, low[-2:], high[-2:])
    units = {"units": layers[names[0]].units[-points.shape[1] :]} if embedding.positions.shape[1] >= points.shape[1] else {}
    codes = Points(points, name="codes", size=float(high[-2] - low[-2]) / 40, features=features, border_width=0, **units, **looks)
    for made in (*every, codes):
        viewer.add_layer(made)
    codes.mouse_drag_callbacks.append(lambda layer, event: _go(viewer, [where[number] for number in range(len(points))], layer, event))
    return every, codes


def _go(viewer: ViewerModel, where: Sequence[tuple[Points, int]], codes: Points, event: Any) -> None:
    """Move the viewer to the place of the code that was clicked, and select it.

    Parameters
    ----------
    where : sequence of (Points, int)
        For each code the layer of its place, and the place's number there.
    """
    clicked = codes.get_value(event.position, view_direction=event.view_direction, dims_displayed=event.dims_displayed, world=True)
    if clicked is None:
        return
    places, number = where[int(clicked)]
    if places not in viewer.layers:
        return
    world = [0.0] * (viewer.dims.ndim - places.ndim) + [float(place) for place in places.data_to_world(places.data[number])]
    hidden = [axis for axis in range(viewer.dims.ndim) if axis not in viewer.dims.displayed]
    viewer.dims.set_point(hidden, [world[axis] for axis in hidden])
    camera = getattr(viewer, "scene", viewer).camera  # newer napari keeps it in the scene
    camera.center = tuple(world[axis] for axis in viewer.dims.displayed)
    places.visible = True
    places.selected_data = {number}


def _check(embedding: Embedding, layer: Layer) -> None:
    ndim = embedding.positions.shape[1]
    if layer.ndim != ndim:
        raise InputError(f'"{layer.name}" has {layer.ndim} axes, the points {ndim}. Choose the labels, or one channel of the image.')


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
