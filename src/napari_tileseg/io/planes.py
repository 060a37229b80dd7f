"""Labels plane by plane: where each object lies, and its mask; planes on the disk are read in bands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.output import blocks
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Box = tuple[slice, ...]

__all__ = ["boxes", "masks", "planes"]

_BAND_PIXELS = 2**26
"""Pixels of a band of rows; objects that reach beyond make theirs larger."""


def planes(labels: Volume) -> Iterator[tuple[dict[str, int], Volume]]:
    """Yield each plane (axes ``YX``) of labels, read where it is indexed, with its place along the other axes."""
    outer = [axis for axis in labels.axes if axis not in "YX"]
    for position in np.ndindex(*(labels.sizes[axis] for axis in outer)):
        at = dict(zip(outer, (int(place) for place in position), strict=True))
        yield at, _plane(labels, at)


def _plane(labels: Volume, at: dict[str, int]) -> Volume:
    turned = labels.axes.index("X") < labels.axes.index("Y")
    shape = (labels.sizes["Y"], labels.sizes["X"])

    def read(box: Box) -> NDArray[Any]:
        spans = dict(zip("YX", box, strict=True))
        part = np.asarray(labels.data[tuple(at.get(axis, spans.get(axis)) for axis in labels.axes)])
        return part.T if turned else part

    if isinstance(labels.data, np.ndarray):
        return Volume(read((slice(None), slice(None))), "YX", name=labels.name)
    return Volume(LazyArray(shape, labels.dtype, read), "YX", name=labels.name)


def boxes(labels: Volume) -> dict[int, Box]:
    """Return the box of each label but 0; slabs along the first axis are looked at one after the other.

    Returns
    -------
    dict of int to tuple of slice
        In ascending order.
    """
    from scipy import ndimage

    found: dict[int, tuple[tuple[int, int], ...]] = {}
    start = 0
    for block in blocks(labels):
        values, places = np.unique(block, return_inverse=True)
        small = places.reshape(block.shape)
        for value, box in zip(values.tolist(), ndimage.find_objects(small + 1), strict=True):
            if not value:
                continue
            spans = tuple(
                (part.start + (start if not axis else 0), part.stop + (start if not axis else 0)) for axis, part in enumerate(box)
            )
            before = found.get(value, spans)
            found[value] = tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(before, spans, strict=True))
        start += len(block)
    return {label: tuple(slice(*span) for span in found[label]) for label in sorted(found)}


def masks(labels: Volume) -> Iterator[tuple[int, Box, NDArray[np.bool_]]]:
    """Yield each label but 0, its box and its mask in it; of large labels from the top down, else in ascending order.

    Parameters
    ----------
    labels : Volume
        Of any axes; read in bands along the first one, each as large as the objects that begin in it need.
    """
    places = boxes(labels)
    rows = max(1, _BAND_PIXELS // max(1, int(np.prod(labels.shape[1:], dtype=np.int64))))
    bands: dict[int, list[int]] = {}
    for label, box in places.items():
        bands.setdefault(box[0].start // rows, []).append(label)
    for band in sorted(bands):
        first = min(places[label][0].start for label in bands[band])
        last = max(places[label][0].stop for label in bands[band])
        values = np.asarray(labels.data[first:last])
        for label in bands[band]:
            box = places[label]
            inside = (slice(box[0].start - first, box[0].stop - first), *box[1:])
            yield label, box, values[inside] == label
