"""``CountedSlab``: scores of tiles of which some are left out or lie between the rows, with their actual weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_tileseg.engine.tiles import Tile

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_tileseg.engine.tiles import Placed, Row, TilePlan
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["CountedSlab", "counted_depth", "empty_scores"]

_NEVER = -100.0
"""Raw score of what is certainly not there."""


def empty_scores(spec: ModelSpec) -> list[float]:
    """Return the raw scores of a pixel that no tile has seen: background, beyond doubt."""
    scores = [0.0 if spec.output == "anomaly" else _NEVER] * len(spec.score_names)
    if spec.output == "softmax":
        scores[0] = 0.0
    return scores


def counted_depth(plan: TilePlan, ends: Sequence[int], first: int = 0) -> int:
    """Return how much of the first axis is open at once; `ends` and `first` as for `CountedSlab`."""
    starts = [plan.row(first).kept[0] if first < plan.n_rows else 0, *ends[first:]]
    return max((row.kept[1] - start for row, start in zip(plan.rows(first), starts, strict=False)), default=plan.depth)


class CountedSlab:
    """As `Slab`, but the sum of weights is not known beforehand: it is counted, pixel by pixel.

    Parameters
    ----------
    plan : TilePlan
        Where the tiles of the first pass lie.
    weights : ndarray of float32, shape plan.output
        How much each pixel of a tile counts.
    channels : int
        Number of score channels.
    empty : sequence of float
        Scores where no tile lies; further channels are 0 there.
    ends : sequence of int
        For each row of tiles, where on the first axis the next ones (rows, or tiles between rows) begin.
    first : int
        The first row that is run.
    device : str
        Where the buffers live.
    """

    def __init__(
        self,
        plan: TilePlan,
        weights: NDArray[np.float32],
        channels: int,
        empty: Sequence[float],
        ends: Sequence[int],
        *,
        first: int = 0,
        device: str = "cpu",
    ) -> None:
        self._plan, self._ends = plan, ends
        self._cropped = plan.blending == "crop"
        self._top = plan.row(first).kept[0] if first < plan.n_rows else 0
        depth = counted_depth(plan, ends, first)
        rest = plan.canvas.shape[1:]
        self._sums = torch.zeros((channels, depth, *rest), dtype=torch.float32, device=device)
        self._counts = torch.zeros((depth, *rest), dtype=torch.float32, device=device)
        self._weights = torch.tensor(weights, device=device)
        self._empty = torch.tensor([*empty, *[0.0] * (channels - len(empty))], device=device)

    @property
    def device(self) -> torch.device:
        return self._sums.device

    def move(self, device: str) -> None:
        """Take all buffers to another device."""
        self._sums, self._counts = self._sums.to(device), self._counts.to(device)
        self._weights, self._empty = self._weights.to(device), self._empty.to(device)

    def add(self, tile: Placed, scores: torch.Tensor, row: Row, *, skip: int = 0) -> None:
        """Add one tile, shape (K, *plan.output); the row and what is skipped do not matter."""
        place = tile.kept.relative_to((self._top, *self._plan.canvas.start[1:])).slices
        if self._cropped:
            self._sums[(slice(None), *place)].copy_(scores[(slice(None), *self._plan.within(tile).slices)])
            self._counts[place].fill_(1.0)
        else:
            self._sums[(slice(None), *place)].addcmul_(scores, self._weights)
            self._counts[place].add_(self._weights)

    def finish(self, row: Row, *, skip: int = 0) -> tuple[Tile, torch.Tensor] | None:
        """Return what is final after a row and the tiles before it: its place, and averages of shape (K, *region.shape).

        The scores are a view of the buffer: use it before `advance`, and change it at will. None where nothing is final.
        """
        shape = self._plan.shape
        start, stop = max(self._top, 0, skip), min(self._ends[row.index], shape[0])
        if start >= stop:
            return None
        region = Tile((start, *(0 for _ in shape[1:])), (stop, *shape[1:]))
        inside = region.relative_to((self._top, *self._plan.canvas.start[1:])).slices
        scores, counts = self._sums[(slice(None), *inside)], self._counts[inside]
        holes = counts == 0
        scores.div_(counts.masked_fill_(holes, 1.0))
        if holes.device.type != "cpu" or holes.any():  # asking a GPU would mean waiting for it
            for channel, value in zip(scores, self._empty, strict=True):
                channel.masked_fill_(holes, value)
        return region, scores

    def advance(self, row: Row) -> None:
        """Drop what is finished and move the rest up."""
        by = self._ends[row.index] - self._top
        depth = len(self._counts)
        for buffer in (self._counts, *self._sums):
            for start in range(0, max(depth - by, 0), by) if by else ():  # steps that never overlap their target
                stop = min(start + by, depth - by)
                buffer[start:stop].copy_(buffer[start + by : stop + by])
            if by:
                buffer[max(depth - by, 0) :].zero_()
        self._top += by
