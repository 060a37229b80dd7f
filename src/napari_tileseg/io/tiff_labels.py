"""Labels, scores and images written as OME-TIFF."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_tileseg.io.mapped import allocate
from napari_tileseg.io.ome import NAMESPACE, SCORES_NAMESPACE, annotation
from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import smallest_dtype, survey
from napari_tileseg.io.units import TIMES, is_length, length_factor, symbol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from napari_tileseg.volume import Volume

__all__ = ["write_image_tiff", "write_scores_tiff", "write_tiff"]

_DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32")
_TILE = 256
_UNTILED_SIDE = 1024
_CLASSIC_BYTES = 2**32 - 2**25
_READ_BYTES = 2**28
"""Most labels of several planes that are read at once, as a store holds them in chunks of many planes; fewer are read several times."""

_IN_MEMORY_BYTES = 2**28
"""A half resolution up to this size (256 MB) is held in memory while the finest is written."""


def write_tiff(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as OME-TIFF: zlib, axes in the order ``TCZYX``, spacing and units in the OME-XML and in the tags.

    Planes with a side above 1024 are tiled (256 x 256) and have coarser resolutions (SubIFDs) of every second, fourth, ... pixel,
    down to a side of 1024; BigTIFF from 4 GB of raw values on. Classes, colours,
    the provenance and the whole affine stand in a MapAnnotation in the namespace ``napari-tileseg/labels/1``.
    Equal labels with equal provenance give equal files.

    Raises
    ------
    OutputError
        If a label does not fit in 32 bits, the most that OME-XML knows.
    """
    canonical = ordered(labels, "TCZYX")
    found = survey(canonical)
    dtype = smallest_dtype(found, _DTYPES, "OME-TIFF")
    names = labels.channel_names or classes
    note = annotation(canonical, classes=classes, colors=colors, provenance=provenance)
    metadata = _metadata(canonical, names) | {
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, found.digest + repr(sorted(note.items())))),
        "MapAnnotation": {"Namespace": NAMESPACE, "Description": "Labels made with napari-tileseg.", "Value": note},
    }
    _write(canonical, path, dtype, metadata, pyramid=True)


def write_scores_tiff(scores: Volume, path: Path, *, provenance: Mapping[str, Any] | None, what: str = "Raw scores") -> None:
    """Write raw scores (float32, one channel for each name in ``channel_names``), or uncertainty, as OME-TIFF like labels."""
    canonical = ordered(scores, "TCZYX")
    note = {"provenance": json.dumps(dict(provenance or {}), ensure_ascii=False, sort_keys=True)}
    metadata = _metadata(canonical, scores.channel_names) | {
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, repr((canonical.axes, canonical.shape, note)))),
        "MapAnnotation": {"Namespace": SCORES_NAMESPACE, "Description": f"{what} from napari-tileseg.", "Value": note},
    }
    _write(canonical, path, np.dtype(np.float32), metadata)


def write_image_tiff(image: Volume, path: Path) -> None:
    """Write an image of any numbers as OME-TIFF like labels, with its channel names, spacing and units."""
    canonical = ordered(image, "TCZYX")
    metadata = _metadata(canonical, image.channel_names) | {
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, repr((canonical.axes, canonical.shape, image.name))))
    }
    _write(canonical, path, np.dtype(np.uint8) if image.dtype == bool else image.dtype, metadata)


def _write(volume: Volume, path: Path, dtype: np.dtype[Any], metadata: dict[str, Any], *, pyramid: bool = False) -> None:
    shape = volume.shape
    raw = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    tile = _tile(shape)
    steps = _levels(shape) if pyramid and tile else 0
    settings: dict[str, Any] = {"compression": "zlib", "photometric": "minisblack"}
    with tifffile.TiffWriter(path, ome=True, bigtiff=raw * (4 if steps else 3) // 3 > _CLASSIC_BYTES) as writer:
        if tile is None:
            writer.write(np.asarray(volume.data[...]).astype(dtype), metadata=metadata, **settings, **_resolution(volume))
            return
        settings |= {"dtype": dtype, "tile": tile}
        if not steps:
            writer.write(_tiles(volume.data, dtype, tile), shape=shape, metadata=metadata, **settings, **_resolution(volume))
            return
        with _half(path, shape, dtype) as coarse:
            finest = _tiles(volume.data, dtype, tile, half=coarse)
            writer.write(finest, shape=shape, metadata=metadata, subifds=steps, **settings, **_resolution(volume))
            for step in range(steps):
                every = 2**step
                level = coarse[..., ::every, ::every]
                writer.write(_tiles(level, dtype, tile), shape=level.shape, subfiletype=1, metadata=None, **settings)


def _levels(shape: tuple[int, ...]) -> int:
    """Return how many coarser resolutions there are, until both sides are at most 1024."""
    return max(0, math.ceil(math.log2(max(shape[-2:]) / _UNTILED_SIDE)))


@contextlib.contextmanager
def _half(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Give an array for every second pixel of every second row; a large one lies in a file beside `path` meanwhile."""
    halved = (*shape[:-2], -(-shape[-2] // 2), -(-shape[-1] // 2))
    if int(np.prod(halved, dtype=np.int64)) * dtype.itemsize <= _IN_MEMORY_BYTES:
        yield np.zeros(halved, dtype)
        return
    with tempfile.TemporaryDirectory(prefix=".tileseg-", dir=path.parent, ignore_cleanup_errors=True) as folder:
        array = allocate(Path(folder) / "half.npy", halved, dtype)
        yield array
        del array  # Windows deletes no file that is mapped


def _tile(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return the size of a tile, None where whole planes are small enough and the image fits in memory twice."""
    if max(shape[-2:]) <= _UNTILED_SIDE and np.prod(shape, dtype=np.int64) <= 2**26:
        return None
    side = [min(_TILE, -(-size // 16) * 16) for size in shape[-2:]]
    return side[0], side[1]


def _tiles(data: Any, dtype: np.dtype[Any], tile: tuple[int, int], *, half: NDArray[Any] | None = None) -> Iterator[NDArray[Any]]:
    """Yield the tiles plane by plane, row by row; what is on the disk is read a row of tiles at a time, or some whole planes.

    Every second pixel of every second row goes into `half`: neighbours are never mixed, so that coarse levels are labels too.
    """
    height, width = data.shape[-2:]
    for first, part in _together(data):
        for place in np.ndindex(*part.shape[:-2]):
            plane = (first + place[0], *place[1:]) if place else ()
            for top in range(0, height, tile[0]):
                row = np.asarray(part[(*place, slice(top, min(top + tile[0], height)), slice(None))]).astype(dtype)
                if half is not None:
                    half[(*plane, slice(top // 2, top // 2 + -(-len(row) // 2)))] = row[::2, ::2]
                for left in range(0, width, tile[1]):
                    yield np.ascontiguousarray(row[:, left : left + tile[1]])
        del part


def _together(data: Any) -> Iterator[tuple[int, Any]]:
    """Yield the entries of the first axis with the number of the first one: as many as lie together on the disk, and fit, are in memory."""
    entry = math.prod(data.shape[1:]) * data.dtype.itemsize
    many = min(int(getattr(data, "depth", 1)), _READ_BYTES // max(entry, 1))
    if isinstance(data, np.ndarray) or len(data.shape) < 3 or not many or (many == 1 and len(data.shape) == 3):
        yield 0, data
        return
    for first in range(0, data.shape[0], many):
        yield first, np.asarray(data[first : first + many])


def _metadata(labels: Volume, channels: tuple[str, ...]) -> dict[str, Any]:
    """Return what OME-XML says of the grid: axes, channel names, spacing and units."""
    metadata: dict[str, Any] = {"axes": labels.axes, "Name": labels.name, "Creator": "napari-tileseg"}
    if "C" in labels.axes and len(channels) == labels.sizes["C"]:
        metadata["Channel"] = {"Name": list(channels)}
    for axis in labels.spatial_axes:
        unit = labels.unit[axis]
        if unit != "pixel" or labels.spacing[axis] != 1:
            metadata |= {f"PhysicalSize{axis}": labels.spacing[axis], f"PhysicalSize{axis}Unit": symbol(unit)}
    if "T" in labels.axes and labels.unit["T"] in TIMES:
        metadata |= {"TimeIncrement": labels.spacing["T"], "TimeIncrementUnit": symbol(labels.unit["T"])}
    return metadata


def _resolution(labels: Volume) -> dict[str, Any]:
    """Return the resolution tags, in pixels per centimetre, for programs that do not read OME-XML."""
    steps = [(labels.spacing[axis], labels.unit[axis]) for axis in "XY"]
    if any(not is_length(unit) or not step > 0 for step, unit in steps):
        return {}
    per_cm = tuple(1 / (step * length_factor(unit, "centimeter")) for step, unit in steps)
    if not all(1e-6 < value < 1e9 for value in per_cm):  # beyond what the tag's fraction of 32-bit numbers holds
        return {}
    return {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
