"""Pictures of results: one plane with the outlines of what was found, made of no more pixels than are shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.io.overlay import Panel, displayed, outlines, rgb, write_overlay

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.segmentation import Segmentation
    from napari_tileseg.volume import Volume

__all__ = ["Picture", "picture", "write_picture", "write_thumbnail"]

_SIDE = 1024
"""Pixels of the longer side of an overlay, at most."""

_SMALL = 192
"""... and of a thumbnail."""

_PLANES = 32
"""So many planes of a stack are looked at for the one with the most labels."""

_BLOCK_BYTES = 1 << 25
"""What is read at once of an image that has no coarser resolutions."""

_YELLOW = (255, 214, 10)


@dataclass(frozen=True, eq=False)
class Picture:
    """A plane of an image and of its labels.

    Parameters
    ----------
    image : ndarray of uint8, shape (Y, X, 3)
    labels : ndarray of int, shape (Y, X)
        Masks are put together: the class plus one.
    where : str
        Which plane: ``"Z 12 of 40"``; empty where there is one only.
    """

    image: NDArray[np.uint8]
    labels: NDArray[Any]
    where: str = ""


def picture(result: Segmentation, *, side: int = _SIDE) -> Picture:
    """Choose the plane with the most labels and make it as small as it is shown.

    Images with coarser resolutions are read there; of others a strip is in memory at a time.

    Parameters
    ----------
    side : int
        Pixels of the longer side, at most.
    """
    labels = result.labels_volume()
    place = _plane(labels)
    shape = _shown_shape(labels, side)
    outlined = _labels_plane(labels, place, shape)
    shown = displayed(_image_plane(result.volume, place, labels.sizes, shape, _channel(result)))
    for axis, letter in enumerate("YX"):  # images of patients are looked at with the head and the front up
        index = labels.axes.index(letter)
        if labels.affine[index, index] < 0:
            shown, outlined = np.flip(shown, axis), np.flip(outlined, axis)
    where = ", ".join(f"{axis} {index + 1} of {labels.sizes[axis]}" for axis, index in place.items() if labels.sizes[axis] > 1)
    return Picture(np.ascontiguousarray(shown), np.ascontiguousarray(outlined), where)


def write_picture(result: Segmentation, path: Path, *, title: str) -> Path:
    """Save a picture with its title and, where classes have colours, what they mean.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    made = picture(result)
    colors = _colors(result)
    legend = list(zip(_foreground(result), colors, strict=False)) if colors else []
    caption = f"{title}, {made.where}" if made.where else title
    return write_overlay(path, [[Panel(caption, made.image, made.labels, colors)]], legend=legend, overwrite=True)


def write_thumbnail(result: Segmentation, path: Path) -> Path:
    """Save a small picture as JPEG.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    from PIL import Image

    from napari_tileseg.io.output import put_in_place

    made = picture(result, side=_SMALL)
    pixels = made.image.copy()
    lines = outlines(made.labels, width=1)
    palette = np.array([_YELLOW, *(rgb(color) for color in _colors(result))], np.uint8)
    pixels[lines] = palette[made.labels[lines]] if len(palette) > 1 else palette[0]
    with put_in_place(path, overwrite=True) as temporary:
        Image.fromarray(pixels).save(temporary, format="JPEG", quality=85)
    return path


def _foreground(result: Segmentation) -> tuple[str, ...]:
    return result.classes if "C" in result.axes else result.classes[1:]


def _colors(result: Segmentation) -> tuple[str, ...]:
    """Return the colour of each label; none for objects, of which there are more than colours."""
    objects = result.labels.dtype == np.int32
    return () if objects or len(result.colors) < len(_foreground(result)) else tuple(result.colors)


def _channel(result: Segmentation) -> int:
    """Return the first channel that the model saw."""
    used = result.provenance.get("channels")
    return int(used[0]) if isinstance(used, list | tuple) and used else 0


def _plane(labels: Volume) -> dict[str, int]:
    """Return which entry of T and Z is shown: of Z the one with the most labels among some, of T the middle one."""
    place = {axis: labels.sizes[axis] // 2 for axis in labels.axes if axis == "T"}
    if "Z" not in labels.axes:
        return place
    depth = labels.sizes["Z"]
    candidates = np.unique(np.linspace(0, depth - 1, min(depth, _PLANES)).round().astype(int)).tolist()
    shape = _shown_shape(labels, _SMALL)
    found = [np.count_nonzero(_labels_plane(labels, {**place, "Z": index}, shape)) for index in candidates]
    return {**place, "Z": candidates[int(np.argmax(found))] if any(found) else depth // 2}


def _shown_shape(labels: Volume, side: int) -> tuple[int, int]:
    """Return rows and columns of a picture with square pixels."""
    lengths = [labels.sizes[axis] * labels.spacing[axis] for axis in "YX"]
    finest = min(labels.spacing[axis] for axis in "YX")
    scale = min(1.0 / finest, side / max(lengths))
    rows, columns = (max(1, round(length * scale)) for length in lengths)
    return rows, columns


def _labels_plane(labels: Volume, place: dict[str, int], shape: tuple[int, int]) -> NDArray[Any]:
    data = labels.data
    for coarse in getattr(data, "pyramid", list)()[1:]:
        if max(coarse.shape[labels.axes.index(axis)] for axis in "YX") >= 2 * max(shape):
            data = coarse
    by = {axis: _scaled(index, labels.sizes[axis], data.shape[labels.axes.index(axis)]) for axis, index in place.items()}
    if "C" not in labels.axes:
        return _thinned(data, labels.axes, by, shape)
    planes = [(index + 1) * (_thinned(data, labels.axes, {**by, "C": index}, shape) > 0) for index in range(labels.sizes["C"])]
    highest: NDArray[Any] = np.max(planes, axis=0).astype(np.uint16)
    return highest


def _image_plane(image: Volume, place: dict[str, int], sizes: dict[str, int], shape: tuple[int, int], channel: int) -> NDArray[Any]:
    level = image
    for coarse in image.levels:
        if coarse.axes == image.axes and max(coarse.sizes["Y"], coarse.sizes["X"]) >= max(shape):
            level = coarse
    at = {axis: _scaled(index, sizes[axis], level.sizes[axis]) for axis, index in place.items() if axis in level.axes}
    if "C" not in image.axes:
        return _thinned(level.data, level.axes, at, shape)
    if image.sizes["C"] == 3 and image.dtype == np.uint8:
        return np.stack([_thinned(level.data, level.axes, {**at, "C": index}, shape) for index in range(3)], axis=-1)
    return _thinned(level.data, level.axes, {**at, "C": min(channel, image.sizes["C"] - 1)}, shape)


def _scaled(index: int, size: int, coarse: int) -> int:
    return min(index * coarse // max(size, 1), coarse - 1)


def _thinned(data: Any, axes: str, at: dict[str, int], shape: tuple[int, int]) -> NDArray[Any]:
    """Return the nearest pixels of a plane, reading a strip of rows at a time.

    Parameters
    ----------
    at : dict of str to int
        Place along each axis but Y and X.
    shape : tuple of int
        Rows and columns of what is returned.
    """
    sizes = dict(zip(axes, data.shape, strict=True))
    rows, columns = (((np.arange(count) + 0.5) * sizes[axis] / count).astype(np.int64) for axis, count in zip("YX", shape, strict=True))
    step = max(1, _BLOCK_BYTES // max(1, sizes["X"] * np.dtype(data.dtype).itemsize))
    strips = []
    for start in range(0, sizes["Y"], step):
        wanted = rows[(rows >= start) & (rows < start + step)]
        if not len(wanted):
            continue
        keys = {**at, "Y": slice(int(wanted[0]), int(wanted[-1]) + 1), "X": slice(None)}
        strip = np.asarray(data[tuple(keys[axis] for axis in axes)])
        strip = strip if axes.index("Y") < axes.index("X") else strip.T
        strips.append(strip[np.ix_(wanted - wanted[0], columns)])
    return np.concatenate(strips)
