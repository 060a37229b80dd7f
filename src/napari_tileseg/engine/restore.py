"""``Restorer``: scores brought back to the image's grid, a few rows at a time, before they are decoded.

A slab of finished scores gives those rows of the image whose neighbours on the model's grid are all there. What the next rows need
of it, two rows at most, is kept. ::

    model   rows 0 ........... | 1 row kept |          scores of all classes exist on the image's grid
    image   rows given .... | piece | piece | ...      for one piece only
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_tileseg.engine.grid import taps
from napari_tileseg.engine.tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_tileseg.engine.interpolate import Return

__all__ = ["Restorer"]

_PIECE = 1 << 22
"""Scores on the image's grid that exist at once, unless one row or line has more."""


class Restorer:
    """Takes slabs in order along the first axis.

    Parameters
    ----------
    back : Return
        Grids and orders, axes as in the slabs.
    skip : int
        Rows of the model's grid that an earlier run has delivered, as `kept` said.
    by_lines : bool
        Whether pieces may be parts of rows.
    """

    def __init__(self, back: Return, *, skip: int = 0, by_lines: bool = True) -> None:
        self._shape = back.grid.image
        self._by_lines = by_lines
        self._activation = back.activation
        way = back.grid.reversed()
        self._taps = [taps(order, 0, size, way, axis) for axis, (order, size) in enumerate(zip(back.orders, self._shape, strict=True))]
        self._first, self._last = self._taps[0][0][:, 0], self._taps[0][0][:, -1]
        self._given = int(np.searchsorted(self._first, skip)) if skip else 0
        self._held: torch.Tensor | None = None
        self._start = skip

    def kept(self, stop: int) -> int:
        """Return how many rows of the model need not be computed again once all before `stop` were taken."""
        ready = self._ready(stop)
        return min(stop, int(self._first[ready])) if ready < self._shape[0] else stop

    def take(self, region: Tile, scores: torch.Tensor) -> Iterator[tuple[Tile, torch.Tensor]]:
        """Give what a slab allows.

        Parameters
        ----------
        region : Tile
            Whole rows of the model's grid; they follow those of the last call.
        scores : torch.Tensor of float32, shape (K, *region.shape)
            Averages.

        Yields
        ------
        region : Tile
            A piece of the image, in order.
        scores : torch.Tensor of float32, shape (K, *region.shape)
            To be changed at will.
        """
        stop = region.stop[0]
        scores = scores.softmax(0) if self._activation == "softmax" else scores.sigmoid() if self._activation else scores
        if self._held is None:
            self._start = region.start[0]
        held = 0 if self._held is None else self._held.shape[1]
        ready = self._ready(stop)
        row = len(scores) * int(np.prod(self._shape[1:]))
        rows = max(1, _PIECE // row)
        lines = self._shape[1] if not self._by_lines or row <= _PIECE else max(1, _PIECE * self._shape[1] // row)
        for top in range(self._given, ready, rows):
            bottom = min(top + rows, ready)
            low, high = int(self._first[top]), int(self._last[bottom - 1]) + 1
            inner = scores[:, max(low - self._start - held, 0) : high - self._start - held]
            parts = [inner] if self._held is None or low >= self._start + held else [self._held[:, low - self._start :], inner]
            block = self._mix(torch.cat(parts, 1) if len(parts) > 1 else inner, 0, top, bottom, low)
            for left in range(0, self._shape[1], lines):
                right = min(left + lines, self._shape[1])
                yield Tile((top, left, *(0 for _ in self._shape[2:])), (bottom, right, *self._shape[2:])), self._plane(block, left, right)
        self._given = ready
        keep = self.kept(stop)
        if keep < stop:
            part = scores[:, max(keep - self._start - held, 0) :]
            if self._held is not None and keep < self._start + held:
                part = torch.cat([self._held[:, keep - self._start :], part], 1)
            self._held = part.clone()
        else:
            self._held = scores[:, :0].clone()
        self._start = keep

    def _ready(self, stop: int) -> int:
        """Return how many rows of the image need nothing from row `stop` of the model on."""
        return int(np.searchsorted(self._last, stop))

    def _plane(self, block: torch.Tensor, left: int, right: int) -> torch.Tensor:
        places = self._taps[1][0]
        low, high = int(places[left].min()), int(places[right - 1].max()) + 1
        block = self._mix(block[:, :, low:high], 1, left, right, low)
        for axis in range(2, len(self._shape)):
            block = self._mix(block, axis, 0, self._shape[axis], 0)
        if self._activation == "softmax":
            return block.clamp_min_(1e-30).log_()
        return block.logit_(eps=1e-7) if self._activation else block

    def _mix(self, block: torch.Tensor, axis: int, start: int, stop: int, origin: int) -> torch.Tensor:
        """Interpolate along one axis of a block that begins at `origin` of the model's grid; always a new tensor."""
        places, weights = self._taps[axis]
        return _weighted(block, axis + 1, places[start:stop] - origin, weights[start:stop])


def _weighted(block: torch.Tensor, axis: int, places: NDArray[np.intp], weights: NDArray[np.float64]) -> torch.Tensor:
    along = (-1, *(1,) * (block.ndim - axis - 1))
    total: torch.Tensor | None = None
    for column, share in zip(places.T, weights.T, strict=True):
        part = block.index_select(axis, torch.from_numpy(np.ascontiguousarray(column)).to(block.device))
        if len(weights.T) > 1:
            part.mul_(torch.from_numpy(share.astype(np.float32)).to(block.device).reshape(along))
        total = part if total is None else total.add_(part)
    assert total is not None  # every order takes at least one value
    return total
