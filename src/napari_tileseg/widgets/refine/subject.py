"""What a labels layer tells of itself: along which axes its objects lie, how large its pixels are, why it cannot be corrected."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels

from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.widgets.layers import layer_matrix
from napari_tileseg.widgets.refine.states import ONLY_READ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_tileseg.refine.index import Position

__all__ = [
    "canvas_of",
    "channels_of",
    "class_of",
    "classes_of",
    "has_classes",
    "image_beside",
    "labels_layers",
    "only_read",
    "origin_in",
    "pixels_of",
    "position_of",
    "scores_of",
    "space_of",
    "trouble_with",
    "writable",
]

_NO_SPACE = {"t": "time", "time": "time", "frame": "time", "c": "channel", "channel": "channel", "class": "channel"}
"""What layers call axes over which no object extends."""

_BY_PLANES = "→ model Y X."
"""Words of the provenance (`AxisMap.sentence`) where a model has seen planes only."""


def labels_layers(layers: Sequence[Layer]) -> list[Labels]:
    """Return the labels layers, the topmost first."""
    return [layer for layer in reversed(list(layers)) if isinstance(layer, Labels) and not layer.metadata.get("tileseg_preview")]


def space_of(layer: Labels) -> tuple[int, ...]:
    """Return the axes over which objects extend: the last three that are neither time nor channel.

    Where a model of planes found them, as the layer's provenance tells, each plane stands for itself.
    """
    names = [str(name).lower() for name in layer.axis_labels]
    axes = [axis for axis, name in enumerate(names) if name not in _NO_SPACE]
    if len(axes) < 2:
        axes = list(range(layer.ndim))
    told = str((layer.metadata.get("tileseg") or {}).get("axes", ""))
    return tuple(axes[-2:] if _BY_PLANES in told else axes[-3:])


def has_classes(layer: Labels) -> bool:
    """Whether a label is a class: its table names one for each label, all different."""
    try:
        names = [str(name) for name in layer.features["class"]]
    except (KeyError, TypeError, IndexError):
        return False
    return len(names) > 1 and len(set(names)) == len(names)


def classes_of(layer: Labels) -> dict[str, int]:
    """Return the value of each class of labels that are classes."""
    table = layer.features
    values = table["index"] if "index" in table else range(len(table))
    return {str(name): int(value) for name, value in zip(table["class"], values, strict=True)}


def class_of(layer: Labels, label: int) -> str:
    """Return the class of an object; empty if the layer's table knows of none."""
    table = layer.features
    if "class" not in table or "index" not in table:
        return ""
    found = table["class"][table["index"] == label]
    return str(found.iloc[0]) if len(found) else ""


def canvas_of(layer: Labels) -> Canvas:
    """Return the layer's labels to work on.

    Raises
    ------
    InputError
        If objects cannot be looked for in them.
    """
    steps = np.linalg.norm(layer_matrix(layer)[:-1, :-1], axis=0)
    space = space_of(layer)
    units = {str(layer.units[axis]) for axis in space}
    known = len(units) == 1 and all(math.isfinite(step) and step > 0 for step in steps)
    spacing = tuple(float(step) for step in steps) if known else None
    return Canvas(layer.data, spacing=spacing, space=space, unit=units.pop() if known else "", classes=has_classes(layer))


def position_of(canvas: Canvas, point: Sequence[float]) -> Position:
    """Return where the view is along the axes over which no object extends.

    Parameters
    ----------
    canvas : Canvas
    point : sequence of float
        The place that is looked at, in pixels of the labels.
    """
    return tuple(min(max(round(float(point[axis])), 0), canvas.shape[axis] - 1) for axis in canvas.outer)


def trouble_with(layer: Labels) -> str:
    """Say why a layer cannot be corrected; empty if it can."""
    data = layer.data
    if layer.multiscale:
        return ""
    if np.dtype(data.dtype).kind not in "iu":
        return f"These labels are {data.dtype}; whole numbers can be corrected. Convert the layer (right-click, Convert data type)."
    if only_read(layer):
        return ONLY_READ
    if layer.ndim < 2:
        return "Labels of one dimension cannot be corrected. Choose others."
    if not layer.editable:
        return "These labels are locked while a run writes them. They can be corrected when it is done or cancelled."
    return ""


def only_read(layer: Labels) -> bool:
    """Whether nothing can be written to some of the layer's arrays."""
    return not all(writable(level) for level in (layer.data if layer.multiscale else [layer.data]))


def writable(data: Any) -> bool:
    """Whether an array takes what is assigned to it."""
    if isinstance(data, np.ndarray):
        return bool(data.flags.writeable)
    return hasattr(data, "__setitem__") and not hasattr(data, "dask") and not getattr(data, "read_only", False)


def image_beside(labels: Labels, layers: Sequence[Layer]) -> Image | None:
    """Return the image that labels most likely belong to: of their shape, of the name that theirs begins with, the nearest below.

    Where none has their shape, one of which they are a part.
    """
    images = [layer for layer in layers if isinstance(layer, Image) and pixels_of(layer, labels) is not None]
    images = [
        layer for layer in images if not any(origin_in(layer, labels) or ())
    ] or images  # larger ones where there is none of their size
    images = [layer for layer in images if "tileseg" not in layer.metadata] or images  # scores and maps are no images
    named = [layer for layer in images if labels.name.startswith(layer.name)]
    below = [layer for layer in images if layers.index(layer) < layers.index(labels)]
    return next(iter([*sorted(named, key=lambda layer: -len(layer.name)), *reversed(below), *images]), None)


def pixels_of(image: Image, labels: Labels) -> Any:
    """Return the image's array where it lies pixel by pixel under the labels; None where it does not.

    Colours stay along a last axis; of channels along a first one the first is taken. Of an image that is larger than the labels (they
    are a region of it) the part under them.
    """
    data = image.data[0] if image.multiscale else image.data
    shape = tuple(labels.data[0].shape if labels.multiscale else labels.data.shape)
    if tuple(data.shape[: len(shape)]) == shape and (image.rgb or len(data.shape) == len(shape)):
        return data
    if len(data.shape) == len(shape) + 1 and tuple(data.shape[1:]) == shape and not image.rgb:
        return data[0]
    origin = origin_in(image, labels)
    return None if origin is None else _part(data, origin, shape, first=image.ndim - labels.ndim)


def origin_in(image: Image, labels: Labels) -> tuple[int, ...] | None:
    """Return the pixel of an image on which the first one of some labels lies; None where they do not lie inside it, pixel on pixel.

    Labels of an image's own shape begin where it does, wherever both are in the world.
    """
    data = image.data[0] if image.multiscale else image.data
    shape = tuple(labels.data[0].shape if labels.multiscale else labels.data.shape)
    first = image.ndim - labels.ndim  # an axis of channels before the others
    sizes = tuple(data.shape[first : image.ndim]) if first in (0, 1) else ()
    if sizes == shape:
        return (0,) * len(shape)
    if len(sizes) != len(shape) or any(size > most for size, most in zip(shape, sizes, strict=True)):
        return None
    own = layer_matrix(image)[first:, first:]
    if abs(np.linalg.det(own)) == 0:
        return None
    place = np.linalg.inv(own) @ layer_matrix(labels)
    start = np.round(place[:-1, -1])
    if np.abs(place[:-1, :-1] - np.eye(len(shape))).max() * max(shape) > _ASIDE or np.abs(place[:-1, -1] - start).max() > _ASIDE:
        return None
    inside = (start >= 0) & (start + shape <= sizes)
    return tuple(int(at) for at in start) if inside.all() else None


_ASIDE = 0.1
"""Pixels that a region may lie beside the pixels of its image, as matrices are rounded."""


def _part(data: Any, origin: Sequence[int], shape: Sequence[int], *, first: int) -> LazyArray:
    """Return the part of an array under labels, read where it is indexed; colours stay along the last axis."""
    colours = tuple(int(size) for size in data.shape[first + len(shape) :])

    def read(box: Sequence[slice]) -> Any:
        inside = [slice(part.start + at, part.stop + at) for part, at in zip(box, origin, strict=False)]
        return np.asarray(data[(*(0,) * first, *inside, *box[len(inside) :])])

    return LazyArray((*shape, *colours), data.dtype, read)


def channels_of(image: Image | None, labels: Labels, layers: Sequence[Layer]) -> dict[str, Any]:
    """Return what is measured of the image under labels: an array of the labels' shape for each of its channels, by name.

    Channels lie along a first axis, in colours, or in layers of one shape, as napari opens them; those are taken together if they come
    from the same file.
    """
    if image is None:
        return {}
    shape = tuple(labels.data[0].shape if labels.multiscale else labels.data.shape)
    data = image.data[0] if image.multiscale else image.data
    if image.rgb:
        colours = ("red", "green", "blue")
        return {name: _Channel(data, (..., number)) for number, name in enumerate(colours)} if tuple(data.shape[:-1]) == shape else {}
    if len(data.shape) == len(shape) + 1 and tuple(data.shape[1:]) == shape:
        known = [str(name) for name in (image.metadata.get("tileseg_volume") or {}).get("channel_names") or ()]
        names = tuple(known) if len(known) == data.shape[0] else tuple(f"channel {number}" for number in range(min(data.shape[0], _MOST)))
        return {name: _Channel(data, (number,)) for number, name in enumerate(names)}
    if tuple(data.shape) != shape:
        return {}
    beside = [layer for layer in layers if isinstance(layer, Image) and layer is not image and _together(layer, image)][: _MOST - 1]
    return {"" if not beside else image.name: data, **{layer.name: layer.data for layer in beside}}


_MOST = 16
"""Most channels that are measured."""


def _together(layer: Image, image: Image) -> bool:
    """Whether two layers are channels of one image."""
    if layer.rgb or layer.multiscale or image.multiscale or tuple(layer.data.shape) != tuple(image.data.shape):
        return False
    path = getattr(image.source, "path", None)
    return path is not None and getattr(layer.source, "path", None) == path


class _Channel:
    """One channel of an array, read where it is indexed."""

    def __init__(self, data: Any, where: tuple[Any, ...]) -> None:
        self._data, self._where = data, where
        self.shape = tuple(data.shape[:-1]) if where[0] is ... else tuple(data.shape[1:])
        self.dtype = np.dtype(data.dtype)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        return np.asarray(self._data[(*key, *self._where)] if self._where[0] is ... else self._data[(*self._where, *key)])


def scores_of(labels: Labels, layers: Sequence[Layer]) -> Any:
    """Return how sure the model was that something is there, as an array of the labels' shape; None where no scores were kept."""
    for layer in layers:
        if not isinstance(layer, Image) or layer.name != f"{labels.name}_scores" or layer.multiscale:
            continue
        shape = tuple(layer.data.shape)
        if shape[1:] == tuple(labels.data.shape):
            names = [str(name) for name in layer.metadata.get("classes", ())]
            return _Foreground(layer.data, 1 if names[:1] == ["background"] and shape[0] > 1 else 0)
    return None


class _Foreground:
    """The score of the likeliest class that is no background, computed where it is read."""

    def __init__(self, scores: Any, first: int) -> None:
        self._scores = scores
        self._first = first
        self.shape = tuple(scores.shape[1:])
        self.dtype = np.dtype(scores.dtype)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        part = np.asarray(self._scores[(slice(self._first, None if self._first else 1), *key)])
        likeliest: NDArray[Any] = part.max(axis=0)
        return likeliest
