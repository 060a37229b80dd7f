"""``Census``: which values stand in a block of labels, how many pixels each has, and where each begins and ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Census", "census", "joined"]


@dataclass(frozen=True, eq=False)
class Census:
    """What is known of the objects in a block; one row each.

    Parameters
    ----------
    ids : ndarray of the labels' type, shape (N,)
        In ascending order, without 0.
    sizes : ndarray of int64, shape (N,)
        Pixels of each.
    first, stop : ndarray of int64, shape (N, D)
        Least index along each axis, and the one after the greatest.
    """

    ids: NDArray[Any]
    sizes: NDArray[np.int64]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


def census(block: NDArray[Any], start: Sequence[int] | None = None) -> Census:
    """Count the objects of a block.

    Labels are alike along a row, so runs of equal pixels are looked at, not pixels: no table has to be as long as the largest
    id, and sorting is short.

    Parameters
    ----------
    block : ndarray of int, shape (...)
        At least one axis.
    start : sequence of int, optional
        Index of the block's first pixel in the whole; 0 by default.
    """
    shape, ndim = block.shape, block.ndim
    rows = np.ascontiguousarray(block).reshape(-1, shape[-1] if ndim else 1)
    begins = np.empty(rows.shape, np.bool_)
    begins[:, :1] = True
    np.not_equal(rows[:, 1:], rows[:, :-1], out=begins[:, 1:])
    flat = np.flatnonzero(begins)
    values = rows.ravel()[flat]
    lengths = np.diff(flat, append=rows.size)  # a run ends with its row, because every row begins one
    kept = np.flatnonzero(values != 0)
    if not len(kept):
        none = np.zeros((0, ndim), np.int64)
        return Census(np.zeros(0, block.dtype), np.zeros(0, np.int64), none, none)
    flat, values, lengths = flat[kept], values[kept], lengths[kept]
    order = np.argsort(values, kind="stable")
    values, lengths = values[order], lengths[order]
    places = [place.astype(np.int64, copy=False) for place in np.unravel_index(flat[order], shape)]
    edges = np.flatnonzero(np.concatenate(([True], values[1:] != values[:-1])))
    ends = [*places[:-1], places[-1] + lengths - 1]
    offset = np.zeros(ndim, np.int64) if start is None else np.asarray(start, np.int64)
    return Census(
        values[edges],
        np.add.reduceat(lengths, edges).astype(np.int64),
        np.stack([np.minimum.reduceat(place, edges) for place in places], axis=1) + offset,
        np.stack([np.maximum.reduceat(end, edges) for end in ends], axis=1) + 1 + offset,
    )


def joined(parts: Sequence[Census]) -> Census:
    """Put together what several blocks know of the same objects; at least one part."""
    ids = np.concatenate([part.ids for part in parts])
    if not len(ids) or len(parts) == 1:
        return parts[0]
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    edges = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    return Census(
        ids[edges],
        np.add.reduceat(np.concatenate([part.sizes for part in parts])[order], edges),
        np.minimum.reduceat(np.concatenate([part.first for part in parts])[order], edges),
        np.maximum.reduceat(np.concatenate([part.stop for part in parts])[order], edges),
    )
