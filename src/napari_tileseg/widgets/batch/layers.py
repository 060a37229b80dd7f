"""Layers as the images of a batch: by the file behind them, or saved into the output folder, so that napari is not needed later."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.batch.listing import SAVED_LAYERS
from napari_tileseg.errors import AxesError, InputError, TileSegError
from napari_tileseg.io.napari_hooks import layer_data
from napari_tileseg.io.registry import read_volume, suffix_of, write_image
from napari_tileseg.widgets.layers import facts_of, volume_from_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari.layers import Image

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["LayerImage", "Sources", "images_of", "settle"]

_COMPARED = 1 << 28
"""Images up to so many bytes are compared with their files; larger ones are not copied for a doubt."""


@dataclass(frozen=True, eq=False)
class LayerImage:
    """What a batch must know of an image layer, taken while nothing changes it.

    Parameters
    ----------
    name : str
        Of the layer.
    path : str
        The file that it was opened from; empty if there is none.
    volume : Volume
        Its array, which is not copied.
    """

    name: str
    path: str
    volume: Volume


@dataclass(frozen=True, eq=False)
class Sources:
    """Layers as inputs of a batch.

    Parameters
    ----------
    inputs : tuple of str
        Paths, those of the saved ones too.
    saved : tuple of (Path, Volume)
        What must be written first, and where.
    """

    inputs: tuple[str, ...]
    saved: tuple[tuple[Path, Volume], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of what must be written, uncompressed."""
        return sum(_bytes(volume) for _, volume in self.saved)

    def save(self, number: int) -> None:
        """Write one of them, unless it is there already, with the same content.

        Raises
        ------
        OutputError
            If it cannot be written.
        InputError
            If the layer cannot be read.
        """
        path, volume = self.saved[number]
        if not _is_saved(volume, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(volume, path, overwrite=True)


def images_of(layers: Iterable[Image], spec: ModelSpec | None, axes: str = "") -> list[LayerImage]:
    """Take what a batch needs of layers; nothing is read.

    Parameters
    ----------
    layers : iterable of napari.layers.Image
    spec : ModelSpec or None
        Settles the meaning of axes that napari does not name.
    axes : str
        Of every image, where the user has named them.

    Raises
    ------
    AxesError
        If nobody can know what an axis is.
    """
    found = []
    for layer in layers:
        facts = facts_of(layer)
        letters = axes or facts.guess(spec)
        if "?" in letters:
            raise AxesError(f'The axes of the layer "{layer.name}" are not known. Name them under Reading, Axes, one letter per dimension.')
        path = getattr(layer.source, "path", None)
        found.append(LayerImage(layer.name, str(path) if path else "", volume_from_layer(layer, letters)))
    return found


def settle(images: Sequence[LayerImage], output: str) -> Sources:
    """Decide which layers go by their files, and where the others are saved; files are opened, so not for Qt's thread.

    A layer goes by its file where that still holds the same pixels at the same size. Of a file whose channels are layers each, all
    of them must be there.
    """
    inputs: list[str] = []
    saved: list[tuple[Path, Volume]] = []
    taken: Counter[str] = Counter()
    by_path: dict[str, list[LayerImage]] = {}
    for image in images:
        by_path.setdefault(image.path, []).append(image)
    for image in images:
        if image.path and _stands_for(image.path, by_path[image.path]):
            if image.path not in inputs:
                inputs.append(image.path)
            continue
        name = _safe(image.name)
        taken[name.casefold()] += 1
        again = f"_{taken[name.casefold()]}" if taken[name.casefold()] > 1 else ""
        path = Path(output).expanduser() / SAVED_LAYERS / f"{name}{again}.ome.tif"
        inputs.append(str(path))
        saved.append((path, replace(image.volume, name=image.name)))
    return Sources(tuple(inputs), tuple(saved))


def _stands_for(path: str, images: Sequence[LayerImage]) -> bool:
    """Tell whether a file holds what its layers show."""
    if not suffix_of(path):
        return False
    try:
        volume = read_volume(path)
        if "series" in volume.metadata:
            return False
        shown = layer_data(volume)
        if len(images) == 1 and images[0].volume.shape == volume.shape:
            return _same(images[0].volume, volume.data, volume)
        return len(images) == len(shown) and all(any(_same(image.volume, data, volume) for data, _, _ in shown) for image in images)
    except (TileSegError, OSError):
        return False


def _same(one: Volume, data: Any, file: Volume) -> bool:
    """Tell whether a layer's pixels are those of a file, with the file's pixel size or none of its own."""
    if tuple(one.shape) != tuple(data.shape) or one.dtype != data.dtype:
        return False
    sizes = [(one.spacing[axis], file.spacing[axis]) for axis in one.spatial_axes if axis in file.axes]
    if not all(np.isclose(mine, 1) or np.isclose(mine, his) for mine, his in sizes):
        return False
    if not isinstance(one.data, np.ndarray) or _bytes(one) > _COMPARED:
        return True  # it is read from the file as it is looked at
    return bool(np.array_equal(one.data, np.asarray(data)))


def _is_saved(volume: Volume, path: Path) -> bool:
    """Tell whether an earlier batch has saved the same layer: a new file would be a new image to the ledger."""
    if not path.is_file() or _bytes(volume) > _COMPARED:
        return False
    try:
        there = read_volume(path)
        same_place = there.axes == volume.axes and np.allclose(there.affine, volume.affine)
        return bool(same_place and there.shape == volume.shape and np.array_equal(np.asarray(there.data[...]), np.asarray(volume.data)))
    except (InputError, OSError):
        return False


def _bytes(volume: Volume) -> int:
    return int(np.prod(volume.shape, dtype=np.int64)) * volume.dtype.itemsize


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in name).strip(" .") or "layer"
