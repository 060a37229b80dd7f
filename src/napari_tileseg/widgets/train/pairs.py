"""``PairsField``: which image goes with which labels, of those that are open; and these as files for the model's process.

Several Labels layers of one image are a mask for each class, named after its layer; classes may overlap.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels

from napari_tileseg.errors import AxesError, InputError
from napari_tileseg.io.registry import write_image
from napari_tileseg.segmentation import label_volume
from napari_tileseg.training.colours import RGB
from napari_tileseg.volume import Volume
from napari_tileseg.widgets.layers import array_of, facts_of, volume_from_layer
from napari_tileseg.widgets.train.rows import OURS, LayerRows
from napari_tileseg.worker.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari.layers import Layer

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["UNKNOWN", "Example", "LayerFiles", "PairsField", "examples_of", "images_of", "natural_pairs", "possible_pairs"]

Pair = tuple[Image, Labels]

UNKNOWN = 255
"""What is in a mask where nobody has labelled anything."""


def possible_pairs(layers: Sequence[Layer]) -> list[Pair]:
    """Return every image with every labels layer of its shape, those that lie on top first."""
    images = [layer for layer in reversed(list(layers)) if isinstance(layer, Image) and OURS not in layer.metadata]
    labels = [layer for layer in reversed(list(layers)) if isinstance(layer, Labels) and OURS not in layer.metadata]
    return [(image, truth) for truth in labels for image in images if _fit(image, truth)]


def natural_pairs(layers: Sequence[Layer]) -> list[Pair]:
    """Return each labels layer with its image: the one whose name it begins with, else the next one below it."""
    found: dict[int, Pair] = {}
    listed = list(layers)
    for image, truth in possible_pairs(layers):
        before = found.get(id(truth))
        if before is None or _closeness(image, truth, listed) > _closeness(before[0], truth, listed):
            found[id(truth)] = (image, truth)
    taken: set[int] = set()
    pairs = []
    for image, truth in found.values():
        if id(image) not in taken:  # of several labels of one image the topmost counts
            taken.add(id(image))
            pairs.append((image, truth))
    return pairs


def _closeness(image: Layer, truth: Layer, layers: list[Layer]) -> tuple[bool, int, int]:
    distance = layers.index(truth) - layers.index(image)
    named = truth.name.startswith(image.name)
    return named, len(image.name) if named else 0, -distance if distance > 0 else -1000 + distance


def _fit(image: Image, truth: Labels) -> bool:
    shape, wanted = _shape(image), tuple(int(size) for size in array_of(truth).shape)
    if image.rgb:
        return shape[:-1] == wanted
    without = [shape[:axis] + shape[axis + 1 :] for axis in range(len(shape) - 2)]
    return wanted == shape or wanted in without


def _shape(image: Image) -> tuple[int, ...]:
    return tuple(int(size) for size in array_of(image).shape)


class PairsField(LayerRows):
    """Images, each with its labels."""

    noun = "a pair"
    tip = "An image and its labels. Several labels of one image are classes that may overlap, named after their layers."
    missing = "Open images, and Labels layers of their size."

    def possible(self, layers: Sequence[Layer]) -> list[Pair]:
        return possible_pairs(layers)

    def natural(self, layers: Sequence[Layer]) -> list[Pair]:
        return natural_pairs(layers)

    def told(self, choice: tuple[Layer, ...]) -> str:
        image, truth = choice
        return f"{image.name} + {_short(image.name, truth.name)}"


def _short(image: str, labels: str) -> str:
    rest = labels.removeprefix(image).strip(" _-")
    return rest or labels


def _class_name(image: str, labels: str) -> str:
    return re.sub(r" \[\d+\]$", "", _short(image, labels))  # what napari appends where a name is there already


@dataclass(frozen=True, eq=False)
class Example:
    """A pair, or an image alone, taken while nothing changes it.

    Parameters
    ----------
    name : str
        Of the image; no other example has it.
    image : Volume
        The array of the layer, which is not copied.
    truth : Volume or None
        That of its labels; where classes may overlap the array of each layer, whose names are those of the channels.
    layers : tuple of Layer
        What they were taken from.
    """

    name: str
    image: Volume
    truth: Volume | None = None
    layers: tuple[Layer, ...] = ()

    @property
    def overlapping(self) -> bool:
        """Whether there is a mask for each class."""
        return self.truth is not None and "C" in self.truth.axes


class _Masks:
    """Arrays of one shape along a new first axis, put together when they are read: 1 inside, `UNKNOWN` where there is no array.

    Parameters
    ----------
    arrays : sequence of array or None
    shape : tuple of int
        Of each.
    unlabelled : int, optional
        Number in them of what nobody has labelled.
    """

    def __init__(self, arrays: Sequence[Any], shape: tuple[int, ...], unlabelled: int | None) -> None:
        self._arrays, self._unlabelled = tuple(arrays), unlabelled
        self.shape = (len(self._arrays), *shape)
        self.ndim = len(self.shape)
        self.dtype = np.dtype(np.uint8)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        masks = np.full(self.shape, UNKNOWN, self.dtype)
        for mask, array in zip(masks, self._arrays, strict=True):
            if array is not None:
                numbers = np.asarray(array)
                mask[...] = np.where(numbers == self._unlabelled, UNKNOWN, numbers != 0)
        return masks.astype(dtype or self.dtype)


def examples_of(pairs: Sequence[Pair], spec: ModelSpec | None, axes: str = "", *, unlabelled: int | None = None) -> list[Example]:
    """Take what a training needs of layers; nothing is read.

    Parameters
    ----------
    pairs : sequence of (Image, Labels)
    spec : ModelSpec or None
        Settles the meaning of axes that napari does not name.
    axes : str
        Of every image, where the user has named them.
    unlabelled : int, optional
        Number in labels of what nobody has labelled; in masks of classes that is `UNKNOWN`, as is each class without a layer.

    Raises
    ------
    AxesError, InputError
        If nobody can know what an axis is, or a layer is empty.
    """
    found: list[Example] = []
    images = list(dict.fromkeys(image for image, _ in pairs))
    several = len(pairs) > len(images)
    classes = tuple(dict.fromkeys(_class_name(image.name, truth.name) for image, truth in pairs)) if several else ()
    for image in images:
        volume = _taken(image, spec, axes, "Labels")
        truths = [truth for other, truth in pairs if other is image]
        wanted = tuple(size for axis, size in zip(volume.axes, volume.shape, strict=True) if axis != "C")
        for truth in truths:
            have = tuple(array_of(truth).shape)
            if have != wanted:
                raise InputError(f'"{truth.name}" has shape {_times(have)}, "{image.name}" {_times(wanted)}. Choose labels of its size.')
        drawn = (
            _masks(image, truths, volume, classes, unlabelled)
            if several
            else Volume(array_of(truths[0]), *volume.drop("C"), truths[0].name)
        )
        found.append(Example(_free(image.name, found), volume, drawn, (image, *truths)))
    return found


def _masks(image: Image, truths: Sequence[Labels], volume: Volume, classes: tuple[str, ...], unlabelled: int | None) -> Volume:
    """Return a mask for each class, along C."""
    arrays: dict[str, Any] = {}
    for truth in truths:
        name = _class_name(image.name, truth.name)
        if name in arrays:
            raise InputError(f'Two labels of "{image.name}" are called "{name}". Name each layer after the class that it shows.')
        arrays[name] = array_of(truth)
    shape = tuple(array_of(truths[0]).shape)
    masks = _Masks([arrays.get(name) for name in classes], shape, unlabelled)
    grid = replace(volume, metadata={}, levels=())
    return replace(label_volume(masks, "C" + volume.axes.replace("C", ""), grid), channel_names=classes)


def images_of(images: Sequence[Image], axes: str = "") -> list[Example]:
    """Take what a training without labels needs of layers; nothing is read.

    Raises
    ------
    AxesError, InputError
        As of `examples_of`.
    """
    found: list[Example] = []
    for image in images:
        found.append(Example(_free(image.name, found), _taken(image, None, axes, "Images"), layers=(image,)))
    return found


def _taken(image: Image, spec: ModelSpec | None, axes: str, fold: str) -> Volume:
    letters = axes.replace(" ", "").upper() or facts_of(image).guess(spec)
    if "?" in letters:
        raise AxesError(f'The axes of the layer "{image.name}" are not known. Name them under {fold}, Axes, one letter per dimension.')
    volume = volume_from_layer(image, letters)
    # Files have channels before space; their names say that these are colours. Transparency is not learnt.
    return replace(volume, data=volume.data[..., :3], channel_names=RGB, levels=()) if image.rgb else volume


def _free(name: str, examples: Sequence[Example]) -> str:
    """Return a name that is good for a file, and that no other example has."""
    found = safe = "".join(letter if letter.isalnum() or letter in "-_ " else "_" for letter in name).strip() or "image"
    while any(example.name == found for example in examples):
        found = f"{safe} {sum(example.name.startswith(safe) for example in examples) + 1}"
    return found


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


class LayerFiles:
    """Layers as files, each written again only when its pixels are others; they go with this object."""

    def __init__(self) -> None:
        self._scratch: Scratch | None = None
        self._known: dict[tuple[Any, ...], Path] = {}

    def save(self, examples: Sequence[Example]) -> tuple[tuple[Path, Path | None], ...]:
        """Write what is not there yet; not for Qt's thread.

        Raises
        ------
        OutputError, InputError, RunError
            If a layer cannot be read, or its file not be written.
        """
        if self._scratch is None:
            self._scratch = Scratch()
        return tuple(self._saved(example) for example in examples)

    def folder(self) -> Path:
        """Make a folder that goes with the files."""
        if self._scratch is None:
            self._scratch = Scratch()
        return self._scratch.folder("views")

    def close(self) -> None:
        """Delete everything."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
            self._known.clear()

    def _saved(self, example: Example) -> tuple[Path, Path | None]:
        image, truth = example.image, example.truth
        pixels = np.asarray(image.data)
        path = self._put(example.name, image, pixels, lambda: image.with_data(_plain(pixels)))
        if truth is None:
            return path, None
        numbers = np.asarray(truth.data)
        return path, self._put(f"{example.name}_labels", truth, numbers, lambda: truth.with_data(_compact(numbers)))

    def _put(self, name: str, volume: Volume, array: Any, ready: Callable[[], Volume]) -> Path:
        assert self._scratch is not None  # `save` has made it
        key = (name, volume.axes, volume.channel_names, volume.affine.tobytes(), volume.units, *_sum(array))
        if key not in self._known:
            path = self._scratch.folder("layer") / f"{name}.ome.tif"
            write_image(ready(), path)
            self._known[key] = path
        return self._known[key]


def _sum(array: Any) -> tuple[str, tuple[int, ...], int]:
    return str(array.dtype), tuple(array.shape), zlib.crc32(np.ascontiguousarray(array).tobytes())


def _plain(array: Any) -> Any:
    """Return an array in numbers that every TIFF file can hold."""
    if array.dtype in (np.int64, np.uint64, np.float16):
        return array.astype(np.float32)
    return array


def _compact(labels: Any) -> Any:
    """Return labels in the smallest whole numbers that hold them: TIFF knows none of 64 bits."""
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    return labels.astype(np.int32 if low < 0 else np.min_scalar_type(high) if high < 2**32 else np.float64)
