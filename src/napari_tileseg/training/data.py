"""``Pair`` and ``Example``: images with their labels, on disk and ready to be cropped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.normalize import measure, normalize
from napari_tileseg.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["Example", "Pair", "list_pairs", "prepare_image", "read_array", "read_examples"]

_SUFFIXES = (".png", ".tif", ".tiff", ".nii", ".nii.gz")


@dataclass(frozen=True)
class Pair:
    """An image file and the label file of the same name.

    Parameters
    ----------
    group : str
        What the file name says before its number (``fluorescence_012.png`` -> ``fluorescence``), for sampling and score tables.
    """

    image: Path
    label: Path
    group: str

    @property
    def name(self) -> str:
        return self.image.name.split(".")[0]


@dataclass(frozen=True)
class Example:
    """One normalised image with its labels, and maps that are made from the labels once.

    Parameters
    ----------
    image : ndarray of float16, shape (C, *spatial)
        Normalised as the model wants it; C is 1 for grey images of a model that repeats grey.
    labels : ndarray of int32, shape (*spatial), or of int8, shape (K, *spatial)
        Objects or classes, 0 is background; or a mask for each of K overlapping classes.
    maps : ndarray of float16, shape (M, *spatial)
        Further targets that are interpolated along with the image.
    places : mapping of int to ndarray of int, shape (n, D), optional
        Where pixels of each class are, or of objects at 1: enough to draw from. Found in the labels for each crop if None.
    outside : int
        The label of what a crop sees beyond the image.
    vectors : bool
        Whether the maps begin with a vector, one map for each axis of space, which turns with a crop.
    """

    name: str
    group: str
    image: NDArray[np.float16]
    labels: NDArray[np.int32] | NDArray[np.int8]
    maps: NDArray[np.float16]
    places: Mapping[int, NDArray[np.int32]] | None = None
    outside: int = 0
    vectors: bool = False


def list_pairs(folder: Path | str, part: str) -> list[Pair]:
    """List the pairs of ``folder/part/images`` and ``folder/part/labels``, by name.

    Raises
    ------
    InputError
        If there is none, or an image has no label.
    """
    root = Path(folder) / part
    images = sorted(path for path in (root / "images").glob("*") if path.name.lower().endswith(_SUFFIXES))
    if not images:
        raise InputError(f"{root / 'images'} holds no images. Give a folder with {part}/images and {part}/labels ({', '.join(_SUFFIXES)}).")
    pairs = []
    for image in images:
        label = root / "labels" / image.name
        if not label.is_file():
            raise InputError(f"{image} has no label: {label} is missing. Image and label must have the same file name.")
        pairs.append(Pair(image, label, image.name.rsplit("_", 1)[0]))
    return pairs


def read_array(path: Path) -> NDArray[Any]:
    """Read a PNG, TIFF or NIfTI file as (*spatial) or (Y, X, C); NIfTI's axes are reversed to Z Y X."""
    suffix = path.name.lower()
    if suffix.endswith((".nii", ".nii.gz")):
        import nibabel

        volume: Any = nibabel.load(path)
        return np.ascontiguousarray(np.asarray(volume.dataobj).T)
    if suffix.endswith((".tif", ".tiff")):
        import tifffile

        return np.asarray(tifffile.imread(path))
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image)


def prepare_image(array: NDArray[Any], spec: ModelSpec) -> NDArray[np.float32]:
    """Normalise a whole image as the engine does before it cuts tiles.

    Parameters
    ----------
    array : ndarray, shape (*spatial) or (*spatial, C)
        As `read_array` returns it.

    Returns
    -------
    ndarray of float32, shape (C, *spatial)
        Grey images keep one channel, also where the model repeats it.
    """
    channels_first = array[np.newaxis] if array.ndim == spec.spatial_ndim else np.moveaxis(array, -1, 0)
    statistics = measure([channels_first], spec.normalization, len(channels_first), channels_first.dtype)
    return normalize(channels_first, statistics, spec.normalization)


def read_examples(
    pairs: Iterable[Pair], spec: ModelSpec, *, make_maps: Callable[[NDArray[np.int32]], NDArray[np.float32]] | None = None
) -> list[Example]:
    """Read, normalise and keep pairs in memory.

    Parameters
    ----------
    make_maps : callable, optional
        Makes float maps (M, *spatial) from the labels (*spatial).
    """
    examples = []
    for pair in pairs:
        labels = read_array(pair.label).astype(np.int32)
        image = prepare_image(read_array(pair.image), spec).astype(np.float16)
        if image.shape[1:] != labels.shape:
            raise InputError(f"{pair.image} has the shape {image.shape[1:]}, its label {labels.shape}. They must be equal.")
        maps = make_maps(labels) if make_maps else np.zeros((0, *labels.shape), np.float32)
        examples.append(Example(pair.name, pair.group, image, labels, maps.astype(np.float16)))
    return examples
