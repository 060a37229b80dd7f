"""``Slab``: scores of overlapping tiles, summed for the part of the image that is still open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_tileseg.engine.tiles import Tile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_tileseg.engine.tiles import Placed, Row, TilePlan

__all__ = ["RowNorm", "Slab", "add_scores"]


class Slab:
    """One buffer as deep as a window that rolls down the first axis of the image.

    Tiles of a row are added to it; then `finish` gives the pixels that no later tile touches, and `advance` moves the rest
    up. Nothing here grows with the first axis. ::

        row 0   +--------+  finish -> pixels 0 to s, normalised
                |////////|  advance: the rest moves up, zeros follow
                |        |
        row 1   |........|  the sum of weights needs no such buffer: every row of tiles adds the same pattern,
                +--------+  only shifted, so it is built once and summed for the finished part alone

    Parameters
    ----------
    plan : TilePlan
        Where the tiles lie.
    weights : ndarray of float32, shape plan.output
        How much each pixel of a tile counts.
    channels : int
        Number of score channels K.
    device : str
        Where the buffer lives.
    normalized : bool
        Whether `finish` divides by the sum of weights; an argmax does not need it.
    """

    def __init__(
        self, plan: TilePlan, weights: NDArray[np.float32], channels: int, *, device: str = "cpu", normalized: bool = True
    ) -> None:
        self._plan = plan
        rest = plan.canvas.shape[1:]
        self._sums = torch.zeros((channels, plan.depth, *rest), dtype=torch.float32, device=device)
        self._weights = None if plan.blending == "crop" else torch.tensor(weights, device=device)
        self._norm = RowNorm(plan, self._weights) if normalized and self._weights is not None else None

    @property
    def device(self) -> torch.device:
        return self._sums.device

    def move(self, device: str) -> None:
        """Take all buffers to another device."""
        self._sums = self._sums.to(device)
        if self._weights is not None:
            self._weights = self._weights.to(device)
        if self._norm is not None:
            self._norm.move(device)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers."""
        own = sum(buffer.numel() * buffer.element_size() for buffer in (self._sums, self._weights) if buffer is not None)
        return own + (self._norm.nbytes if self._norm else 0)

    def add(self, tile: Placed, scores: torch.Tensor, row: Row, *, skip: int = 0) -> None:
        """Add one tile of a row.

        Parameters
        ----------
        tile : Placed
            Where it lies.
        scores : torch.Tensor of a floating type, shape (K, *plan.output)
            On the slab's device.
        row : Row
            The row of the tile.
        skip : int
            Of no use here; `Strips` need it.
        """
        place = tile.kept.relative_to((row.kept[0], *self._plan.canvas.start[1:]))
        target = self._sums[(slice(None), *place.slices)]
        if self._weights is None:
            scores = scores[(slice(None), *self._plan.within(tile).slices)]
        add_scores(target, scores, self._weights)

    def finish(self, row: Row, *, skip: int = 0) -> tuple[Tile, torch.Tensor] | None:
        """Return what is final after a row of tiles.

        Parameters
        ----------
        row : Row
            The row that was added last.
        skip : int
            Pixels above this on the first axis are not wanted.

        Returns
        -------
        region : Tile
            Which part of the image it is.
        scores : torch.Tensor of float32, shape (K, *region.shape)
            A view of the buffer: use it before `advance`, and change it at will. Weighted averages, or weighted sums where
            `normalized` is False.
        None where the row finishes no pixel of the image.
        """
        shape = self._plan.shape
        start, stop = max(row.finished[0], 0, skip), min(row.finished[1], shape[0])
        if start >= stop:
            return None
        region = Tile((start, *(0 for _ in shape[1:])), (stop, *shape[1:]))
        inside = region.relative_to((row.kept[0], *self._plan.canvas.start[1:])).slices
        scores = self._sums[(slice(None), *inside)]
        if self._norm is not None:
            scores.div_(self._norm.of(row, start, stop)[(slice(None), *inside[1:])])
        return region, scores

    def advance(self, row: Row) -> None:
        """Make room for the next row: drop what is finished, move the rest up, clear what follows."""
        by = row.finished[1] - row.finished[0]
        if by == 0:
            return  # even steps of less than a pixel visit a row twice
        depth = self._sums.shape[1]
        # Steps of at most `by` pixels never overlap their target, so no copy of the buffer is needed.
        for start in range(0, depth - by, by):
            stop = min(start + by, depth - by)
            self._sums[:, start:stop].copy_(self._sums[:, start + by : stop + by])
        self._sums[:, max(depth - by, 0) :].zero_()


class RowNorm:
    """The sum of the weights of all tiles, for the pixels that one row finishes.

    Every row of tiles adds the same pattern, only shifted: it is built once.

    Parameters
    ----------
    plan : TilePlan
        Where the tiles lie.
    weights : torch.Tensor of float32, shape plan.output
        How much each pixel of a tile counts.
    """

    def __init__(self, plan: TilePlan, weights: torch.Tensor) -> None:
        self._plan = plan
        self._pattern = _row_pattern(plan, weights)
        self._sums = torch.empty_like(self._pattern)
        self._held: tuple[int, int, int] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of both buffers."""
        return 2 * self._pattern.numel() * self._pattern.element_size()

    def move(self, device: str) -> None:
        """Take both buffers to another device."""
        self._pattern, self._sums = self._pattern.to(device), self._sums.to(device)

    def of(self, row: Row, start: int, stop: int) -> torch.Tensor:
        """Sum the weights of all rows of tiles up to `row` that touch the pixels from `start` to `stop` of the first axis.

        Returns
        -------
        torch.Tensor of float32, shape (stop - start, *rest of the canvas)
            Valid until the next call.
        """
        norm = self._sums[: stop - start]
        if self._held == (row.index, start, stop):
            return norm
        norm.zero_()
        for index in range(row.index, -1, -1):
            top, bottom = self._plan.row(index).kept
            if bottom <= start:
                break
            end = min(stop, bottom)
            norm[: end - start].add_(self._pattern[start - top : end - top])
        self._held = (row.index, start, stop)
        return norm


def add_scores(target: torch.Tensor, scores: torch.Tensor, weights: torch.Tensor | None) -> None:
    """Add weighted scores to sums, or put them there where nothing overlaps.

    Parameters
    ----------
    target : torch.Tensor of float32, shape (K, *size)
        Changed in place.
    scores : torch.Tensor of a floating type, shape (K, *size)
        Of one tile. Shorter types are widened channel by channel: the whole tile in float32 never exists.
    weights : torch.Tensor of float32, shape (*size), or None
        None: nothing overlaps.
    """
    if weights is None:
        target.copy_(scores)
    elif scores.dtype == target.dtype:
        target.addcmul_(scores, weights)
    else:
        wide = torch.empty(scores.shape[1:], dtype=target.dtype, device=target.device)
        for channel, sums in zip(scores, target, strict=True):
            sums.addcmul_(wide.copy_(channel), weights)


def _row_pattern(plan: TilePlan, weights: torch.Tensor) -> torch.Tensor:
    """Return the sum of the weights of one row of tiles, shape (depth, *rest of the canvas)."""
    pattern = torch.zeros((plan.depth, *plan.canvas.shape[1:]), dtype=torch.float32, device=weights.device)
    origin = (plan.row(0).kept[0], *plan.canvas.start[1:])
    for tile in plan.tiles(0):
        pattern[tile.kept.relative_to(origin).slices].add_(weights)
    return pattern
