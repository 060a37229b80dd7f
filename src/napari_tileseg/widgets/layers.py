"""Layer <-> Volume: where an image layer's array lies in the world, and how a result is laid over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Shapes
from napari.utils.colormaps import DirectLabelColormap

from napari_tileseg.errors import AxesError, InputError
from napari_tileseg.volume import ArrayLike, Volume
from napari_tileseg.widgets.choices import ImageFacts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_tileseg.models.spec import ModelSpec

__all__ = [
    "Placement",
    "array_of",
    "class_features",
    "facts_of",
    "image_layers",
    "label_colors",
    "layer_matrix",
    "other_layers",
    "place",
    "place_over",
    "stack",
    "volume_from_layer",
]


def image_layers(layers: Sequence[Layer]) -> list[Image]:
    """Return the layers that can be segmented, the topmost first."""
    return [layer for layer in reversed(list(layers)) if isinstance(layer, Image)]


def other_layers(layers: Sequence[Layer]) -> str:
    """Say what is open where no image is: ``"points" is a Points layer; ...`` (empty when nothing is open)."""
    if not layers:
        return ""
    layer = list(layers)[-1]
    kind = type(layer).__name__
    return f'"{layer.name}" is a {kind} layer; images can be segmented. Open an image.'


def array_of(layer: Image) -> ArrayLike:
    """Return the layer's array at full resolution."""
    data: ArrayLike = layer.data[0] if layer.multiscale else layer.data
    return data


def facts_of(layer: Image) -> ImageFacts:
    """Return what must be known of a layer before anything of it is read."""
    return ImageFacts(
        name=layer.name,
        shape=tuple(int(size) for size in array_of(layer).shape),
        rgb=bool(layer.rgb),
        axis_labels=tuple(str(label) for label in layer.axis_labels),
        spacing=tuple(float(norm) for norm in np.linalg.norm(layer_matrix(layer)[:-1, :-1], axis=0)),
        units=tuple(str(unit) for unit in layer.units),
    )


def layer_matrix(layer: Layer) -> NDArray[np.float64]:
    """Return the matrix, (ndim + 1) x (ndim + 1), that takes the layer's indices to world coordinates.

    It holds scale, translation, rotation, shear and affine together.
    """
    ndim = layer.ndim
    origin = np.asarray(layer.data_to_world([0.0] * ndim), dtype=np.float64)
    matrix = np.eye(ndim + 1)
    matrix[:-1, -1] = origin
    for axis, step in enumerate(np.eye(ndim)):
        matrix[:-1, axis] = np.asarray(layer.data_to_world(list(step))) - origin
    return matrix


def volume_from_layer(layer: Image, axes: str) -> Volume:
    """Return a layer's image with named axes; nothing is copied.

    Parameters
    ----------
    layer : napari.layers.Image
    axes : str
        One letter of TCZYX per dimension of its array; the last is C for RGB.

    Raises
    ------
    AxesError
        If the letters do not fit.
    InputError
        If the image is empty.
    """
    data = array_of(layer)
    matrix, units = layer_matrix(layer), tuple(str(unit) for unit in layer.units)
    if layer.rgb:
        _check_rgb(axes)
        grown = np.eye(len(matrix) + 1)
        grown[:-2, :-2], grown[:-2, -1] = matrix[:-1, :-1], matrix[:-1, -1]
        matrix, units = grown, (*units, "pixel")
    if len(units) != len(data.shape):
        raise InputError(f'The layer "{layer.name}" has {len(data.shape)} dimensions and {len(units)} units. Open it again.')
    known = {key: value for key, value in (layer.metadata.get("tileseg_volume") or {}).items() if isinstance(key, str)}
    path = getattr(layer.source, "path", None)
    suffix = "".join(str(path).lower().partition(".")[1:]) if path else ""
    volume = Volume(data, axes, matrix, units, layer.name, metadata={**({"suffix": suffix} if suffix else {}), **known})
    return volume.with_levels(list(layer.data)[1:]) if layer.multiscale else volume


def stack(volumes: Sequence[Volume], name: str) -> Volume:
    """Put images of one shape together as channels, C first; they are read only where the stack is.

    Raises
    ------
    InputError
        If their shapes differ.
    """
    first = volumes[0]
    for volume in volumes[1:]:
        if volume.shape != first.shape:
            raise InputError(f'"{volume.name}" has shape {volume.shape}, "{first.name}" {first.shape}. Choose layers of one shape.')
    matrix = np.eye(first.ndim + 2)
    matrix[1:, 1:] = first.affine
    data = _Stack(tuple(volume.data for volume in volumes))
    return Volume(data, "C" + first.axes, matrix, ("pixel", *first.units), name, tuple(volume.name for volume in volumes), first.metadata)


@dataclass(frozen=True)
class _Stack:
    """Arrays of one shape behind one more axis."""

    parts: tuple[ArrayLike, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.parts), *self.parts[0].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(*(part.dtype for part in self.parts))

    def __getitem__(self, key: Any) -> NDArray[Any]:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if isinstance(first, slice):
            return np.stack([np.asarray(part[tuple(rest)]) for part in self.parts[first]])
        return np.asarray(self.parts[int(first)][tuple(rest)])


@dataclass(frozen=True)
class Placement:
    """How labels lie over an image.

    Parameters
    ----------
    arguments : dict
        What a new layer is given: scale, translate, rotate, shear, affine, units, axis_labels.
    kept : int or None
        Position of an axis of length one that stands for the channels; None where there is none.
    """

    arguments: dict[str, Any]
    kept: int | None = None

    def lay(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return a view of labels (the image's axes without C) as the layer holds them."""
        return labels if self.kept is None else np.expand_dims(labels, self.kept)

    def take(self, data: NDArray[Any]) -> NDArray[Any]:
        """Return a layer's data as labels again; the opposite of `lay`."""
        return data if self.kept is None else np.squeeze(data, self.kept)


def place(layer: Image, axes: str) -> Placement:
    """Decide how labels lie over a layer.

    napari lines layers up by their last axes. A leading C can simply go; a C in between (``TCZYX``) stays as an
    axis of length one that is stretched over all channels, else the labels' T would run along the image's C.

    Parameters
    ----------
    layer : napari.layers.Image
    axes : str
        Letters of its array.
    """
    letters = axes[:-1] if layer.rgb else axes
    arguments: dict[str, Any] = {
        "scale": np.array(layer.scale),
        "translate": np.array(layer.translate),
        "rotate": np.array(layer.rotate),
        "shear": _shear_matrix(layer),
        "affine": np.array(layer.affine.affine_matrix),
        "units": tuple(layer.units),
        "axis_labels": tuple(layer.axis_labels),
    }
    if "C" not in letters:
        return Placement(arguments)
    axis = letters.index("C")
    if axis == 0:
        return Placement(_without_first(arguments))
    channels = array_of(layer).shape[axis]
    arguments["translate"][axis] += (channels - 1) / 2 * arguments["scale"][axis]
    arguments["scale"][axis] *= channels
    return Placement(arguments, kept=axis)


def place_over(layer: Image, volume: Volume) -> Placement:
    """Decide how labels lie over a layer whose image is a volume, or over the first of several that are its channels."""
    stacked = len(volume.axes) != layer.ndim + bool(getattr(layer, "rgb", False))
    return place(layer, volume.axes[1:] if stacked else volume.axes)


def class_features(spec: ModelSpec, largest: int) -> dict[str, NDArray[Any]]:
    """Return the rows of a Labels layer's features: label and class, the background first.

    Parameters
    ----------
    spec : ModelSpec
    largest : int
        Largest label; every object of an instance model has the one foreground class.
    """
    if spec.finds_objects:
        names = [spec.classes[0], *[spec.classes[-1]] * largest]
        return {"index": np.arange(largest + 1), "class": np.array(names, dtype=object)}
    return {"index": np.arange(len(spec.classes)), "class": np.array(spec.classes, dtype=object)}


def label_colors(spec: ModelSpec, only: int | None = None) -> DirectLabelColormap | None:
    """Return the colours of classes; None for objects, which take napari's cyclic colours.

    Parameters
    ----------
    spec : ModelSpec
    only : int, optional
        The class of a layer that shows just one, as label 1.
    """
    if spec.finds_objects:
        return None
    colors = list(spec.colors) or [_SPARE[index % len(_SPARE)] for index in range(len(spec.foreground_classes))]
    shown = colors if only is None else [colors[only]]
    named: dict[int | None, str] = {None: "transparent", 0: "transparent"}
    return DirectLabelColormap(color_dict=named | {index + 1: color for index, color in enumerate(shown)})


_SPARE = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")
"""Colours for models that name none; told apart by colour-blind people (Okabe and Ito 2008)."""


def topmost_shapes(layers: Sequence[Layer], active: Layer | None) -> Shapes | None:
    """Return the Shapes layer that is meant: the active one, else the topmost."""
    if isinstance(active, Shapes):
        return active
    return next((layer for layer in reversed(list(layers)) if isinstance(layer, Shapes)), None)


def _check_rgb(axes: str) -> None:
    if not axes.replace(" ", "").upper().endswith("C"):
        raise AxesError("The last axis of an RGB image holds its colours. Name it C.", axis=len(axes.replace(" ", "")) - 1)


def _shear_matrix(layer: Image) -> NDArray[np.float64]:
    shear = np.array(layer.shear, dtype=np.float64)
    if shear.ndim == 2:
        return shear
    matrix = np.eye(layer.ndim)
    matrix[np.triu_indices(layer.ndim, k=1)] = shear
    return matrix


def _without_first(arguments: dict[str, Any]) -> dict[str, Any]:
    rest = {name: arguments[name][1:] for name in ("scale", "translate", "units", "axis_labels")}
    return {**rest, **{name: arguments[name][1:, 1:] for name in ("rotate", "shear", "affine")}}
