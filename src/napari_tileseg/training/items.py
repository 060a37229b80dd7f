"""``Item``: an image with its labels, before anything was read; and which of them are kept for validation."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import AxesError, InputError, OptionsError
from napari_tileseg.image import as_volume
from napari_tileseg.io.files import zarr_root
from napari_tileseg.io.registry import read_volume
from napari_tileseg.training.class_folders import match_class_folders
from napari_tileseg.training.colours import colours_last
from napari_tileseg.training.listed import Listed, is_list, match_listed
from napari_tileseg.training.matching import list_files, match, stem
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.training.config import TrainConfig

__all__ = ["Found", "Item", "cut", "find_items", "keep_apart", "open_image", "open_labels"]


@dataclass(frozen=True)
class Item:
    """An image and its labels.

    Parameters
    ----------
    name : str
        Without folder and suffix.
    image, labels : Path, Volume or ndarray
        Labels also as what a COCO file says of the image, or as a mapping from the names of classes to all these: a mask for each, which
        may overlap.
    group : str
        What the name says before its last number: ``mouse_012`` -> ``mouse``.
    held_out : bool
        Whether it came as validation.
    box : tuple of (start, stop), optional
        The part of space, in the order of the image's axes, that counts; all if None.
    """

    name: str
    image: Any
    labels: Any
    group: str = ""
    held_out: bool = False
    box: tuple[tuple[int, int], ...] | None = field(default=None)


@dataclass(frozen=True)
class Found:
    """What there is to learn from.

    Parameters
    ----------
    items : tuple of Item
    unmatched : tuple of str
        Names of images without labels, and of labels without an image.
    """

    items: tuple[Item, ...]
    unmatched: tuple[str, ...] = ()


def find_items(config: TrainConfig, data: Sequence[tuple[Any, Any]] | None = None) -> Found:
    """List images with their labels; nothing is opened.

    Parameters
    ----------
    config : TrainConfig
    data : sequence of (image, labels), optional
        Instead of the config's folders: paths, volumes or arrays.

    Raises
    ------
    InputError
        If a folder is missing or empty, or nothing fits together.
    OptionsError
        If neither folders nor data were given.
    """
    if data is not None:
        items = tuple(_given(number, image, labels) for number, (image, labels) in enumerate(data, start=1))
        if not items:
            raise InputError("There is nothing to train on: the list of images is empty.")
        return Found(items)
    if not config.images or not config.labels:
        raise OptionsError("Say what to learn from: a folder of images and a folder of labels (images, labels).")
    certain = config.task == "overlapping"
    found = _listed(Path(config.images), Path(config.labels), certain=certain)
    if not config.val_images:
        return found
    kept = _listed(Path(config.val_images), Path(config.val_labels), held_out=True, certain=certain)
    return Found(found.items + kept.items, found.unmatched + kept.unmatched)


def open_image(item: Item, axes: str | None = None) -> Volume:
    """Open the image of an item, its box only."""
    return cut(colours_last(_opened(item.image, axes)), item.box)


def open_labels(item: Item, axes: str) -> Volume:
    """Open the labels of an item, its box only.

    Parameters
    ----------
    axes : str
        Those of the image; without C they are the labels'.

    Raises
    ------
    AxesError, InputError
        If they have other axes, or cannot be read.
    """
    wanted = axes.replace("C", "")
    if isinstance(item.labels, Listed):
        return cut(item.labels.open(), item.box)
    volume = _opened(item.labels, None if isinstance(item.labels, str | Path | Volume) else wanted)
    if volume.axes != wanted:
        squeezed = "".join(axis for axis, size in zip(volume.axes, volume.shape, strict=True) if size > 1 or axis in wanted)
        if squeezed != wanted and len(squeezed) == len(wanted) and not volume.metadata.get("guessed_axes"):
            raise AxesError(f"the labels have the axes {volume.axes}, the image {axes}")
        if len(squeezed) != len(wanted):
            kind = "colours or channels" if "C" in squeezed else f"the axes {volume.axes}"
            masks = "; if each channel is the mask of a class, say that classes overlap (--multilabel)" if "C" in squeezed else ""
            raise AxesError(f"the labels have {kind}, where {wanted} is needed{masks}")
        volume = Volume(np.asarray(volume.data).reshape([size for size in volume.shape if size > 1] or volume.shape), wanted)
    return cut(volume, item.box)


def keep_apart(items: Sequence[Item], config: TrainConfig, boxes: Sequence[tuple[Item, Item] | None]) -> tuple[list[Item], list[Item]]:
    """Divide items into those to learn from and those to validate on, the same way each time.

    Parameters
    ----------
    boxes : sequence of (Item, Item) or None
        Each item divided by region, where it can be.
    """
    given = [item for item in items if item.held_out]
    others = [item for item in items if not item.held_out]
    if given or config.val_share == 0:
        return others, given
    way = config.split if config.split != "auto" else "region" if len(others) == 1 else "file"
    if way == "region":
        pairs = [pair for item, pair in zip(items, boxes, strict=True) if not item.held_out and pair is not None]
        if not pairs:
            raise InputError("No image can be divided in two regions: each is too small. Give more images, or set val_share to 0.")
        whole = [item for item, pair in zip(items, boxes, strict=True) if pair is None]
        return [pair[0] for pair in pairs] + whole, [pair[1] for pair in pairs]
    units: dict[str, list[Item]] = {}
    for item in others:
        units.setdefault(item.group if way == "group" else item.name, []).append(item)
    if len(units) < 2:
        what = "group of images" if way == "group" else "image"
        raise InputError(f'There is only one {what}, so none can be kept for validation. Use split = "region", or set val_share to 0.')
    order = np.random.default_rng(config.seed).permutation(len(units))
    names = list(units)
    wanted, kept = max(1, round(config.val_share * len(others))), set[str]()
    for place in order:
        # Groups differ in size: one that would take far more than its share is passed over while another is left.
        count = sum(len(units[name]) for name in kept)
        if count >= wanted or len(kept) == len(units) - 1:
            break
        kept.add(names[place])
    train = [item for name, members in units.items() if name not in kept for item in members]
    return train, [item for name, members in units.items() if name in kept for item in members]


def _listed(images: Path, labels: Path, *, held_out: bool = False, certain: bool = False) -> Found:
    if not _is_folder(images) and not _is_folder(labels):
        for path in (images, labels):
            if not path.exists():
                raise InputError(f'There is no file or folder "{path}". Check the name.')
        return Found((_item(images, labels, held_out),))
    if _is_folder(images) and is_list(labels):
        listed, left = match_listed(images, labels)
        return Found(tuple(_item(image, of_image, held_out) for image, of_image in listed), left)
    of_classes = match_class_folders(images, labels, certain=certain) if _is_folder(images) else None
    if of_classes is not None and of_classes[0]:
        return Found(tuple(_item(image, masks, held_out) for image, masks in of_classes[0]), of_classes[1])
    matched = match(list_files(images), list_files(labels), root=images, other=labels)
    if not matched.pairs:
        raise InputError(
            f'No file of "{images.name}" has the name of one of "{labels.name}". Name them alike, as in cell_1.tif and cell_1_labels.png.'
        )
    unmatched = [f"{path.name} has no labels" for path in matched.first_only]
    unmatched += [f"{path.name} has no image" for path in matched.second_only]
    return Found(tuple(_item(image, label, held_out) for image, label in matched.pairs), tuple(unmatched))


def _item(image: Path, labels: Path | Listed | Mapping[str, Path], held_out: bool) -> Item:
    name = stem(image)
    return Item(name, image, labels, _group(name), held_out)


def _given(number: int, image: Any, labels: Any) -> Item:
    if isinstance(labels, Mapping):
        labels = {str(name): Path(mask) if isinstance(mask, str | Path) else mask for name, mask in labels.items()}
    if isinstance(image, str | Path):
        image, labels = Path(image), Path(labels) if isinstance(labels, str | Path) else labels
        return Item(stem(image), image, labels, _group(stem(image)))
    name = image.name if isinstance(image, Volume) and image.name != "image" else f"image {number}"
    return Item(name, image, labels, _group(name))


def _group(name: str) -> str:
    return re.sub(r"[ _.-]*\d+\D*$", "", name) or name


def _opened(item: Any, axes: str | None) -> Volume:
    if isinstance(item, str | Path):
        volume = read_volume(Path(item))
        return volume if axes is None else volume.with_axes(axes)
    return as_volume(item if isinstance(item, Volume) else np.asarray(item), axes=axes)


def cut(volume: Volume, box: tuple[tuple[int, int], ...] | None) -> Volume:
    """Return a part of space, in the order of the volume's axes; all of it if None."""
    if box is None:
        return volume
    spans = dict(zip(volume.spatial_axes, box, strict=True))
    data = volume.data[tuple(slice(*spans[axis]) if axis in spans else slice(None) for axis in volume.axes)]
    return Volume(np.asarray(data), volume.axes, volume.affine, volume.units, volume.name, volume.channel_names, volume.metadata)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and zarr_root(path) is None
