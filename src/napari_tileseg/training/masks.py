"""``open_masks``: a mask for each class, which may overlap: channels, a file for each class, polygons, or sets of the numbers in labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import AxesError, InputError, TileSegError
from napari_tileseg.image import as_volume
from napari_tileseg.io.coco import read_coco
from napari_tileseg.io.geojson import read_geojson
from napari_tileseg.io.registry import read_volume
from napari_tileseg.segmentation import label_volume
from napari_tileseg.training.items import cut, open_image, open_labels
from napari_tileseg.training.listed import Listed
from napari_tileseg.training.truth import check_place, whole_numbers
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_tileseg.training.items import Item

__all__ = ["IGNORED", "MaskRule", "holds_masks", "open_masks"]

IGNORED = -1
"""The label of what nobody has labelled, and of what lies beyond an image."""

_POLYGONS = {".geojson": read_geojson, ".coco.json": read_coco}

_BEYOND = 0.1
"""Share of an image's side by which polygons may reach beyond it."""

_COLOURS = frozenset({"red", "green", "blue", "alpha"})
"""Names of channels that are no names of classes."""


@dataclass(frozen=True)
class MaskRule:
    """How labels become masks.

    Parameters
    ----------
    classes : tuple of str
        The masks that are wanted, in this order; all there are if empty.
    regions : mapping of str to tuple of int
        Which numbers in labels make each class; empty where masks are drawn one by one.
    unlabelled : int, optional
        Value of what nobody has labelled, in each mask by itself.
    """

    classes: tuple[str, ...] = ()
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unlabelled: int | None = None


def holds_masks(items: Sequence[Item], axes: str | None) -> bool:
    """Say whether the labels of the first item that opens are surely masks: a file for each class, or channels that are no colours."""
    for item in items:
        if isinstance(item.labels, Mapping | Listed):
            return isinstance(item.labels, Mapping)  # annotations are objects, unless somebody says otherwise
        try:
            image = open_image(item, axes)
            labels = item.labels if isinstance(item.labels, Volume) else _read(item.labels, "C" + image.axes.replace("C", ""), image)
        except (TileSegError, OSError):
            continue
        return labels.sizes.get("C", 1) > 1 and (bool(_names(labels)) or labels.sizes["C"] not in (3, 4))
    return False


def open_masks(item: Item, image: Volume, rule: MaskRule) -> Volume:
    """Open the labels of an item as one mask for each class, its box only.

    Parameters
    ----------
    item : Item
    image : Volume
        Its image, its box only.
    rule : MaskRule

    Returns
    -------
    Volume of int8
        Axes ``"C"`` and those of the image without C, on its grid: 1 inside, 0 outside, `IGNORED` where nobody knows. `channel_names` are
        the rule's classes, or what the labels call them, empty where they do not.

    Raises
    ------
    AxesError, InputError
        If they do not fit the image, or there is no mask of any class.
    """
    found, names = _found(item, image, rule)
    if rule.classes:
        found = _in_order(found, names, rule.classes)
        names = rule.classes
    grid = replace(image, channel_names=(), metadata={}, levels=())
    return replace(label_volume(found, "C" + image.axes.replace("C", ""), grid), channel_names=names)


def _found(item: Item, image: Volume, rule: MaskRule) -> tuple[NDArray[np.int8], tuple[str, ...]]:
    """Return all masks there are, class first, and their names or none."""
    wanted = image.axes.replace("C", "")
    if isinstance(item.labels, Mapping):
        drawn = []
        for name, source in item.labels.items():
            try:
                drawn.append(_mask(_one(replace(item, labels=source), image, wanted), rule.unlabelled))
            except TileSegError as error:
                raise InputError(f'of the class "{name}", {error}'.rstrip(".")) from error
        return np.stack(drawn), tuple(item.labels)
    if rule.regions:
        numbers = _one(item, image, wanted)
        unknown = np.zeros(numbers.shape, bool) if rule.unlabelled is None else numbers == rule.unlabelled
        made = [np.where(unknown, IGNORED, np.isin(numbers, values)) for values in rule.regions.values()]
        return np.stack(made).astype(np.int8), tuple(rule.regions)
    volume = _read(item.labels, "C" + wanted, image)
    channels = _channels_first(volume, wanted)
    channels = cut(channels, item.box)
    check_place(image, channels)
    return _mask(_whole(channels), rule.unlabelled), _names(channels)


def _names(labels: Volume) -> tuple[str, ...]:
    """Return what labels call the classes of their channels; nothing where they do not, or name colours."""
    count = labels.sizes["C"]
    told = tuple(labels.channel_names) or tuple(str(name) for name in labels.metadata.get("classes") or ())
    names = told if len(told) == count else told[1:] if len(told) == count + 1 else ()
    return () if {name.lower() for name in names} <= _COLOURS else names


def _one(item: Item, image: Volume, wanted: str) -> NDArray[Any]:
    labels = open_labels(item, wanted)
    check_place(image, labels)
    return _whole(labels)


def _whole(labels: Volume) -> NDArray[Any]:
    numbers = whole_numbers(np.asarray(labels.data))
    if numbers is None:
        raise InputError(f"the labels are {labels.dtype} with fractions; they must be whole numbers")
    return numbers


def _mask(numbers: NDArray[Any], unlabelled: int | None) -> NDArray[np.int8]:
    inside: NDArray[np.int8] = (numbers != 0).astype(np.int8)
    if unlabelled is not None:
        inside[numbers == unlabelled] = IGNORED
    return inside


def _read(labels: Any, axes: str, image: Volume) -> Volume:
    if isinstance(labels, Volume):
        return labels
    if isinstance(labels, Listed):
        return _as_large(labels.open(overlapping=True), image)
    if not isinstance(labels, str | Path):
        array = np.asarray(labels)
        return as_volume(array, axes=axes if array.ndim == len(axes) else axes[1:])
    path = Path(labels)
    for suffix, read in _POLYGONS.items():
        if path.name.lower().endswith(suffix):
            return _as_large(read(path, overlapping=True), image)
    return read_volume(path)


def _as_large(masks: Volume, image: Volume) -> Volume:
    """Bring what polygons cover to the size of the image: a file of them does not always say how large that is."""
    data = np.asarray(masks.data)
    for axis in "YX":
        place, have, size = masks.axes.index(axis), masks.sizes[axis], image.sizes[axis]
        if have > size * (1 + _BEYOND):
            raise InputError(f"its polygons reach {have} pixels far along {axis}, the image {size}; are they in pixels of the image?")
        data = data.take(range(min(have, size)), axis=place)
        data = np.pad(data, [(0, max(0, size - have) if number == place else 0) for number in range(data.ndim)])
    return replace(masks, data=data, levels=())


def _channels_first(volume: Volume, wanted: str) -> Volume:
    """Name and order the axes of masks as C and those of the image; one axis that the image lacks is that of the classes."""
    needless = [axis for axis, size in volume.sizes.items() if size == 1 and axis not in wanted + "C"]
    kept = [axis for axis in volume.axes if axis not in needless]
    data = np.asarray(volume.data).reshape([volume.sizes[axis] for axis in kept])
    further = [axis for axis in kept if axis not in wanted]
    if not further:
        raise AxesError("the labels hold no mask for each class: give channels, a folder or file for each class, or regions of numbers")
    if len(further) > 1 or len(kept) != len(wanted) + 1:
        raise AxesError(f"the labels have the axes {volume.axes}, where C{wanted} is needed")
    order = [kept.index(axis) for axis in (*further, *wanted)]
    places = [volume.axes.index(kept[place]) for place in order]
    affine = volume.affine[np.ix_([*places, -1], [*places, -1])]
    units = tuple(volume.units[place] for place in places)
    return Volume(data.transpose(order), "C" + wanted, affine, units, volume.name, volume.channel_names, volume.metadata)


def _in_order(found: NDArray[np.int8], names: Sequence[str], classes: Sequence[str]) -> NDArray[np.int8]:
    if names and set(names) & set(classes):
        unknown = np.full(found.shape[1:], IGNORED, np.int8)
        return np.stack([found[names.index(name)] if name in names else unknown for name in classes])
    if len(found) != len(classes):
        raise InputError(f"the labels hold {len(found)} masks, where there are {len(classes)} classes")
    return found
