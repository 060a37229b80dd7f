"""Sums, extents and intensities of labels, a block at a time: what is held does not grow with the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["Sums", "gather", "spans"]

_BLOCK_VALUES = 1 << 21
"""Pixels that are looked at together."""


@dataclass(frozen=True)
class Sums:
    """What is known of some labels; one row each.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        In ascending order, without 0.
    pixels : ndarray of int64, shape (N,)
    places : ndarray of float64, shape (N, D)
        Sums of the indices along each axis of space.
    first, last : ndarray of int64, shape (N, D)
        Least and greatest index along each axis.
    total, highest : ndarray of float64, shape (N, C)
        Sum and maximum of each channel of the image; C is 0 without an image.
    """

    labels: NDArray[np.int64]
    pixels: NDArray[np.int64]
    places: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    total: NDArray[np.float64]
    highest: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.labels)


def gather(labels: Any, channels: list[Any] | None = None, *, cancel: Callable[[], bool] | None = None) -> Sums:
    """Look through labels once.

    Parameters
    ----------
    labels : array-like of int, shape (..., Y, X)
        Anything that is read where it is indexed.
    channels : list of array-like, optional
        Images of the same shape; values that are not finite count as 0.
    cancel : callable, optional
        Asked between slabs; True stops it.

    Raises
    ------
    Cancelled
    """
    images = channels or []
    ndim = len(labels.shape)
    parts = [_empty(ndim, len(images))]
    for span in spans(labels):
        if cancel is not None and cancel():
            raise Cancelled("Measuring was cancelled.")
        block = np.asarray(labels[span])
        inside = block != 0
        if inside.any():
            values = [np.nan_to_num(np.asarray(image[span])[inside].astype(np.float64), posinf=0, neginf=0) for image in images]
            parts.append(_counted(block, inside, span.start, values))
        if len(parts) > 64:
            parts = [_merged(parts)]
    return _merged(parts)


def spans(labels: Any) -> Iterator[slice]:
    """Yield slabs along the first axis; of labels on the disk whole rows of chunks."""
    entry = int(np.prod(labels.shape[1:], dtype=np.int64))
    step = max(1, _BLOCK_VALUES // max(entry, 1), int(getattr(labels, "depth", 1)))
    for start in range(0, labels.shape[0], step):
        yield slice(start, min(start + step, labels.shape[0]))


def _empty(ndim: int, channels: int) -> Sums:
    whole, real = np.zeros((0, ndim), np.int64), np.zeros((0, channels))
    return Sums(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, ndim)), whole, whole, real, real)


def _counted(block: NDArray[Any], inside: NDArray[np.bool_], start: int, values: list[NDArray[np.float64]]) -> Sums:
    found = block[inside].astype(np.int64)
    order = np.argsort(found, kind="stable")
    found = found[order]
    edges = np.flatnonzero(np.concatenate(([True], found[1:] != found[:-1])))
    indices = [place[order] for place in np.nonzero(inside)]
    indices[0] = indices[0] + start
    return Sums(
        found[edges],
        np.diff(np.append(edges, len(found))),
        np.stack([np.add.reduceat(place.astype(np.float64), edges) for place in indices], axis=1),
        np.stack([np.minimum.reduceat(place, edges) for place in indices], axis=1),
        np.stack([np.maximum.reduceat(place, edges) for place in indices], axis=1),
        _columns([np.add.reduceat(value[order], edges) for value in values], len(edges)),
        _columns([np.maximum.reduceat(value[order], edges) for value in values], len(edges)),
    )


def _columns(values: list[NDArray[np.float64]], rows: int) -> NDArray[np.float64]:
    return np.stack(values, axis=1) if values else np.zeros((rows, 0))


def _merged(parts: list[Sums]) -> Sums:
    """Put together what several blocks know of the same labels."""
    labels = np.concatenate([part.labels for part in parts])
    if not len(labels):
        return parts[0]
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    edges = np.flatnonzero(np.concatenate(([True], labels[1:] != labels[:-1])))

    def reduced(how: np.ufunc, name: str) -> Any:
        return how.reduceat(np.concatenate([getattr(part, name) for part in parts])[order], edges, axis=0)

    return Sums(
        labels[edges],
        reduced(np.add, "pixels"),
        reduced(np.add, "places"),
        reduced(np.minimum, "first"),
        reduced(np.maximum, "last"),
        reduced(np.add, "total"),
        reduced(np.maximum, "highest"),
    )
