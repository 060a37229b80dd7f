"""``Facts``: what one look at an image and its labels tells; everything a training is planned by."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_tileseg.errors import InputError, TileSegError
from napari_tileseg.image import check_dtype
from napari_tileseg.training.items import open_image, open_labels
from napari_tileseg.training.listed import Listed
from napari_tileseg.training.masks import open_masks
from napari_tileseg.training.truth import check_place, lengths, whole_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.training.items import Item
    from napari_tileseg.training.masks import MaskRule
    from napari_tileseg.volume import Volume

__all__ = ["Facts", "divide", "look_at", "number_of_values", "state_of"]

_MOST_VALUES = 4096
"""Of more values than this only these many are counted: they are objects."""

_LARGEST_GAP = 0.25
"""Share of an image's side that may be left out between two regions, so that no object lies in both."""


@dataclass(frozen=True)
class Facts:
    """What is known of an item.

    Parameters
    ----------
    item : Item
    problem : str
        Why it cannot be used, without its name; empty if it can.
    axes : str
        Of the image.
    shape : tuple of int
        Of the image.
    channels : int
    channel_names : tuple of str
    spacing : dict of str to float
        Micrometres along each axis of space; empty if unknown.
    dtype : str
    low, high : float
        Least and greatest intensity.
    values : dict of int to int
        Pixels of each value in the labels; of masks, those outside of all of them (0) and the others (1).
    names : tuple of str
        What the labels call their classes.
    masks : tuple of (int, int)
        Of overlapping classes: pixels inside each mask, and those of which somebody knows.
    several : int
        Pixels of several classes.
    components : int
        Connected pieces of the values, counted in the first plane or volume where there are few values.
    medical : bool
        Whether the format is one of medicine.
    depth_known : bool
        Whether Z is Z because the file says so.
    digest : str
        Of the image's values.
    state : tuple
        Sizes and dates of the files.
    """

    item: Item
    problem: str = ""
    axes: str = ""
    shape: tuple[int, ...] = ()
    channels: int = 1
    channel_names: tuple[str, ...] = ()
    spacing: dict[str, float] = field(default_factory=dict)
    dtype: str = ""
    low: float = 0.0
    high: float = 1.0
    values: dict[int, int] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    masks: tuple[tuple[int, int], ...] = ()
    several: int = 0
    components: int = 0
    medical: bool = False
    depth_known: bool = True
    digest: str = ""
    state: tuple[Any, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(self.axes, self.shape, strict=True))


def look_at(item: Item, axes: str | None = None, rule: MaskRule | None = None) -> Facts:
    """Read an item once, and say what it is, or why it cannot be used.

    Parameters
    ----------
    item : Item
    axes : str, optional
        Of the image.
    rule : MaskRule, optional
        How labels become masks, where classes overlap.
    """
    try:
        image = open_image(item, axes)
        check_dtype(image)
        drawn = _of_masks(item, image, rule) if rule else _of_numbers(item, image)
    except (TileSegError, OSError) as error:
        return Facts(item, str(error).rstrip("."))
    pixels = np.asarray(image.data)
    finite = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
    return Facts(
        item,
        axes=image.axes,
        shape=image.shape,
        channels=image.sizes.get("C", 1),
        channel_names=image.channel_names,
        spacing=lengths(image),
        dtype=str(image.dtype),
        low=float(finite.min()) if finite.size else 0.0,
        high=float(finite.max()) if finite.size else 0.0,
        medical=str(image.metadata.get("format", "")).lower() in ("nifti", "nrrd", "metaimage", "dicom", "analyze"),
        depth_known="Z" in image.axes and "Z" not in str(image.metadata.get("guessed_axes", "")),
        digest=hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=12).hexdigest(),
        state=state_of(item),
        **drawn,
    )


def _of_numbers(item: Item, image: Volume) -> dict[str, Any]:
    labels = open_labels(item, image.axes)
    check_place(image, labels)
    numbers = whole_numbers(np.asarray(labels.data))
    if numbers is None:
        raise InputError(f"the labels are {labels.dtype} with fractions; they must be whole numbers. Are they scores, or the image?")
    found, counts = np.unique(numbers, return_counts=True)
    return {
        "values": {int(value): int(count) for value, count in list(zip(found, counts, strict=True))[:_MOST_VALUES]},
        "names": tuple(str(name) for name in labels.metadata.get("classes") or ()),
        "components": _components(numbers) if len(found) <= 64 else len(found),
    }


def _of_masks(item: Item, image: Volume, rule: MaskRule) -> dict[str, Any]:
    volume = open_masks(item, image, rule)
    masks = np.asarray(volume.data)
    classes = (masks > 0).sum(axis=0)
    return {
        "values": {0: int((classes == 0).sum()), 1: int((classes > 0).sum())},
        "names": tuple(volume.channel_names),
        "masks": tuple((int((mask > 0).sum()), int((mask >= 0).sum())) for mask in masks),
        "several": int((classes > 1).sum()),
    }


def state_of(item: Item) -> tuple[Any, ...]:
    """Return sizes and dates of an item's files; empty where it has none, or they are gone."""
    found: list[Any] = []
    labels = item.labels.values() if isinstance(item.labels, Mapping) else [item.labels]
    for file in (item.image, *labels):
        path = file.path if isinstance(file, Listed) else file
        if isinstance(path, Path):
            try:
                told = path.stat()
            except OSError:
                return ()
            found += [told.st_size, told.st_mtime_ns]
    return tuple(found)


def divide(
    facts: Facts, share: float, *, instances: bool, axes: str | None = None, rule: MaskRule | None = None
) -> tuple[Item, Item, bool] | None:
    """Divide an item along its longest axis of space so that as little as can be lies on both sides.

    Returns
    -------
    train, val : Item
    clean : bool
        Whether no object lies in both; what lies on the line is left out as far as that takes a quarter of the image.
        None instead where the image is too small.
    """
    spatial = [axis for axis in facts.axes if axis in "ZYX"]
    axis = max(spatial, key=lambda letter: facts.sizes[letter])
    length = facts.sizes[axis]
    if length < 16:
        return None
    if rule is not None:
        masks = np.asarray(open_masks(facts.item, open_image(facts.item, axes), rule).data)
        letters, numbers = facts.axes.replace("C", ""), (masks > 0).max(axis=0)
    else:
        volume = open_labels(facts.item, facts.axes)
        letters, numbers = volume.axes, whole_numbers(np.asarray(volume.data))
    if numbers is None:
        return None
    place = letters.index(axis)
    objects = np.asarray(numbers if instances else ndimage.label(numbers > 0)[0])
    across = np.moveaxis(objects, place, 0).reshape(length, -1)
    line = round(length * (1 - share))
    reach = max(1, length // 10)
    lines = range(max(4, line - reach), min(length - 4, line + reach) + 1)
    crossing = {cut: set(np.unique(across[cut - 1])) & set(np.unique(across[cut])) - {0} for cut in lines}
    best = min(lines, key=lambda cut: (len(crossing[cut]), abs(cut - line)))
    low = high = best
    if crossing[best]:
        rows = np.flatnonzero(np.isin(across, list(crossing[best])).any(axis=1))
        low, high = int(rows[0]), int(rows[-1]) + 1
        if high - low > _LARGEST_GAP * length or low < 4 or length - high < 4:
            low = high = best
    clean = not crossing[best] or low < high
    whole = {letter: (0, facts.sizes[letter]) for letter in spatial}
    boxes = [tuple((whole | {axis: span})[letter] for letter in spatial) for span in ((0, low), (high, length))]
    item = facts.item
    return replace(item, box=boxes[0]), replace(item, name=f"{item.name} (validation part)", box=boxes[1]), clean


def _components(numbers: NDArray[Any]) -> int:
    plane = numbers if numbers.ndim < 4 else numbers[0]
    return sum(int(ndimage.label(plane == value)[1]) for value in np.unique(plane) if value)


def number_of_values(facts: list[Facts]) -> Counter[int]:
    """Add up the pixels of each value over all items."""
    total: Counter[int] = Counter()
    for fact in facts:
        total.update(fact.values)
    return total
