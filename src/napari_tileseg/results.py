"""Where the labels of a run lie, in memory or on the disk, and how they are looked through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from napari_tileseg.io.own_labels import is_label_place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.io.zarr_store import ZarrLabels
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.volume import Volume

__all__ = [
    "IN_MEMORY_BYTES",
    "count",
    "count_objects",
    "finish",
    "highest",
    "is_zarr_name",
    "make_labels",
    "make_maps",
    "on_disk",
    "stands_at",
    "waits_for",
]

IN_MEMORY_BYTES = 2 * 10**9
"""Larger labels go to the disk, unless `SegmentOptions.memory_limit` says otherwise."""

_BLOCK = 1 << 22
"""Values that are counted at once."""


def on_disk(axis_map: AxisMap, options: SegmentOptions) -> bool:
    """Say whether the labels of a run are too many for the memory."""
    size = math.prod(axis_map.result_shape) * axis_map.result_dtype.itemsize
    return size > (options.memory_limit or IN_MEMORY_BYTES)


def make_labels(axis_map: AxisMap, image: Volume, options: SegmentOptions) -> Any:
    """Make the array that a run without a journal fills.

    Returns
    -------
    ndarray or ZarrLabels
        An array in memory, or a scratch store where that would be too large.

    Raises
    ------
    OutputError
        If the store cannot be made.
    """
    shape, dtype, axes = axis_map.result_shape, axis_map.result_dtype, axis_map.result_axes
    if not on_disk(axis_map, options):
        return np.zeros(shape, dtype)
    from napari_tileseg.io.zarr_store import ZarrLabels

    return ZarrLabels.scratch(shape, dtype, axes, spatial=axis_map.spatial, spacing=image.spacing)


def make_maps(axis_map: AxisMap, options: SegmentOptions, channels: int = 0) -> Any:
    """Make the array for raw scores, or for one more map of a run, that has no journal.

    Parameters
    ----------
    axis_map : AxisMap
    options : SegmentOptions
    channels : int
        Length of a first axis before those of the labels; none if 0.

    Returns
    -------
    ndarray or ZarrLabels of float32
        An array in memory, or a scratch store where that would be too large.

    Raises
    ------
    OutputError
        If the store cannot be made.
    """
    shape, axes = axis_map.grid_shape, axis_map.grid_axes
    if channels:
        shape, axes = (channels, *shape), f"C{axes}"
    if 4 * math.prod(shape) <= (options.memory_limit or IN_MEMORY_BYTES):
        return np.zeros(shape, np.float32)
    from napari_tileseg.io.zarr_store import ZarrLabels

    return ZarrLabels.scratch(shape, np.float32, axes, spatial=axis_map.spatial, pyramid=False)


def is_zarr_name(path: Path | None) -> TypeGuard[Path]:
    """Say whether labels that are to end at a path are streamed into a store."""
    if path is None or is_label_place(path):
        return False
    return path.name.lower().endswith(".zarr") and not path.name.lower().endswith(".0.4.ome.zarr")  # streamed as Zarr v3


def waits_for(labels: Any, path: Path) -> TypeGuard[ZarrLabels]:
    """Say whether labels are a store that only has to be finished to stand at `path`."""
    return _is_store(labels) and not labels.finished and labels.target == path


def stands_at(labels: Any, path: Path) -> bool:
    """Say whether labels are a store that an earlier run has put at `path`."""
    return _is_store(labels) and labels.finished and labels.path == path


def finish(
    labels: ZarrLabels, volume: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any]
) -> Path:
    """Put a store in its place, with what the run knows of it."""
    from napari_tileseg.io.ome_zarr_labels import finish_labels

    return finish_labels(labels, volume, classes=classes, colors=colors, provenance=provenance, path=path)


def highest(labels: Any) -> int:
    """Return the largest label."""
    return max(int(block.max(initial=0)) for block in _blocks(labels))


def count(labels: Any, classes: int, *, masks: bool) -> list[int]:
    """Count the pixels of each class, a block at a time.

    Parameters
    ----------
    labels : array-like
        Class indices; or, with `masks`, one mask per class along the first axis.
    """
    totals = np.zeros(classes, np.int64)
    for block in _blocks(labels):
        if masks:
            totals += [np.count_nonzero(mask) for mask in block]
        else:
            flat = np.ravel(block)
            for start in range(0, flat.size, _BLOCK):  # counting makes 64-bit copies
                totals += np.bincount(flat[start : start + _BLOCK], minlength=classes)
    return [int(total) for total in totals]


def count_objects(labels: Any, most: int) -> int:
    """Count the ids that there are, none above `most`, a block at a time: what lies around a region has ids too, and is not there."""
    found = np.zeros(most + 1, np.bool_)
    for block in _blocks(labels):
        flat = np.ravel(block)
        for start in range(0, flat.size, _BLOCK):
            found[flat[start : start + _BLOCK]] = True
    return int(np.count_nonzero(found[1:]))


def _blocks(labels: Any) -> Iterator[NDArray[Any]]:
    return labels.blocks() if _is_store(labels) else iter([labels])


def _is_store(labels: Any) -> TypeGuard[ZarrLabels]:
    if isinstance(labels, np.ndarray):
        return False
    from napari_tileseg.io.zarr_store import ZarrLabels

    return isinstance(labels, ZarrLabels)
