"""``Strips``: scores of overlapping tiles where each pixel is decoded by itself, kept only while a tile can still touch them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from napari_tileseg.engine.stitch import RowNorm, add_scores
from napari_tileseg.engine.tiles import Tile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_tileseg.engine.decode import PerPixel
    from napari_tileseg.engine.tiles import Placed, Row, TilePlan

__all__ = ["Strips"]


class Strips:
    """Two buffers, together smaller than a slab of whole rows of tiles; finished scores become labels strip by strip.

    Between two rows of tiles only the pixels that both of them see are open: `carried` holds them. While the tiles of a row
    are added column by column, the pixels that are new to this row are needed for the columns that are open, one window
    wide: `fresh` holds those. ::

                          second axis ->
               +---------------+-------+-----------+
        carried|  of the next  | open  |  of this  |  when a column of tiles is done: the pixels above become labels,
               |      row      |       |    row    |  the new ones below take their place
               +---------------+-------+-----------+
                               | fresh |              and this buffer moves on by one column
                               +-------+

    With overlap 0.5 that is half a row of tiles and one window, instead of a whole row; nothing grows with the first axis.

    Parameters
    ----------
    plan : TilePlan
        Where the tiles lie; at least two axes.
    weights : ndarray of float32, shape plan.output
        How much each pixel of a tile counts.
    channels : int
        Number of score channels K.
    decoder : PerPixel
        Makes the labels.
    device : str
        Where the buffers live.
    normalized : bool
        Whether the decoder needs averages; weighted sums suffice otherwise.
    """

    def __init__(
        self,
        plan: TilePlan,
        weights: NDArray[np.float32],
        channels: int,
        decoder: PerPixel,
        *,
        device: str = "cpu",
        normalized: bool = True,
    ) -> None:
        self._plan = plan
        self._decoder = decoder
        self._weights = None if plan.blending == "crop" else torch.tensor(weights, device=device)
        self._norm = RowNorm(plan, self._weights) if normalized and self._weights is not None else None
        self._held, width = plan.open_depth, plan.column_width
        _, second, *rest = plan.canvas.shape
        self._carried = torch.zeros((channels, self._held, second, *rest), dtype=torch.float32, device=device)
        self._fresh = torch.zeros((channels, plan.depth - self._held, width, *rest), dtype=torch.float32, device=device)
        self._labels: torch.Tensor | None = None
        self._per_column = math.prod(len(axis) for axis in plan.steps[2:])
        self._added = 0

    @property
    def device(self) -> torch.device:
        return self._carried.device

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers of scores and weights."""
        own = sum(buffer.numel() * buffer.element_size() for buffer in (self._carried, self._fresh, self._weights) if buffer is not None)
        return own + (self._norm.nbytes if self._norm else 0)

    def move(self, device: str) -> None:
        """Take all buffers to another device."""
        self._carried, self._fresh = self._carried.to(device), self._fresh.to(device)
        if self._labels is not None:
            self._labels = self._labels.to(device)
        if self._weights is not None:
            self._weights = self._weights.to(device)
        if self._norm is not None:
            self._norm.move(device)

    def add(self, tile: Placed, scores: torch.Tensor, row: Row, *, skip: int = 0) -> None:
        """Add one tile of a row; after the last one of a column its finished pixels become labels.

        Parameters
        ----------
        tile : Placed
            Where it lies; tiles come in scan order.
        scores : torch.Tensor of a floating type, shape (K, *plan.output)
            On the strips' device.
        row : Row
            The row of the tile.
        skip : int
            Labels above this on the first axis are not wanted.
        """
        column = self._plan.steps[1][self._added // self._per_column].keep
        if self._weights is None:
            scores = scores[(slice(None), *self._plan.within(tile).slices)]
        depth = row.kept[1] - row.kept[0]
        cut = min(self._held, depth)
        place = tile.kept.relative_to((row.kept[0], *self._plan.canvas.start[1:])).slices[1:]
        here = (slice(0, tile.kept.stop[1] - column[0]), *place[1:])
        upper, lower = (None, None) if self._weights is None else (self._weights[:cut], self._weights[cut:])
        if cut:
            add_scores(self._carried[(slice(None), slice(0, cut), *place)], scores[:, :cut], upper)
        if depth > cut:
            add_scores(self._fresh[(slice(None), slice(0, depth - cut), *here)], scores[:, cut:], lower)
        self._added += 1
        if self._added % self._per_column == 0:
            self._close(row, self._added // self._per_column - 1, skip)

    def finish(self, row: Row, *, skip: int = 0) -> tuple[Tile, torch.Tensor] | None:
        """Return the labels that are final after a row of tiles, in a buffer of their own.

        Returns
        -------
        region : Tile
            Which part of the image it is.
        labels : torch.Tensor
            As the decoder makes them, shape (*region.shape) or (K, *region.shape).
        None where the row finishes no pixel of the image.
        """
        if self._labels is None:
            return None
        start, stop = self._wanted(row, skip)
        return Tile((start, *(0 for _ in self._plan.shape[1:])), (stop, *self._plan.shape[1:])), self._labels

    def advance(self, row: Row) -> None:
        """Begin the next row."""
        self._added = 0
        self._labels = None

    def _wanted(self, row: Row, skip: int) -> tuple[int, int]:
        return max(row.finished[0], 0, skip), min(row.finished[1], self._plan.shape[0])

    def _close(self, row: Row, index: int, skip: int) -> None:
        """Decode the pixels that one column of tiles finishes, carry on those that the next row sees, move to the next column."""
        steps = self._plan.steps[1]
        first, end = steps[index].keep
        last = index + 1 == len(steps)
        until = end if last else steps[index + 1].keep[0]
        origin = self._plan.canvas.start[1]
        by = until - first
        if by:
            carried = self._carried[:, :, first - origin : until - origin]
            fresh = self._fresh[:, :, :by]
            self._decode(row, (first, until), carried, fresh, skip)
            if row.index + 1 < self._plan.n_rows:
                self._carry(carried, fresh, row.finished[1] - row.finished[0])
        if last:
            self._fresh.zero_()
        elif by:
            _move_up(self._fresh, by, axis=2)

    def _decode(self, row: Row, span: tuple[int, int], carried: torch.Tensor, fresh: torch.Tensor, skip: int) -> None:
        start, stop = self._wanted(row, skip)
        shape = self._plan.shape
        low, high = max(span[0], 0), min(span[1], shape[1])
        if start >= stop or low >= high:
            return
        if self._labels is None:
            self._labels = self._decoder.labels((stop - start, *shape[1:]), self.device)
        origin = self._plan.canvas.start[2:]
        rest = tuple(slice(-begin, size - begin) for begin, size in zip(origin, shape[2:], strict=True))
        inside = (slice(low - span[0], high - span[0]), *rest)
        middle = min(max(row.kept[0] + self._held, start), stop)  # where `fresh` begins
        for part, begin, (top, bottom) in ((carried, 0, (start, middle)), (fresh, self._held, (middle, stop))):
            if top >= bottom:
                continue
            offset = row.kept[0] + begin
            scores = part[(slice(None), slice(top - offset, bottom - offset), *inside)]
            if self._norm is not None:
                columns = slice(low - self._plan.canvas.start[1], high - self._plan.canvas.start[1])
                scores.div_(self._norm.of(row, start, stop)[(slice(top - start, bottom - start), columns, *rest)])
            place: tuple[Any, ...] = (..., slice(top - start, bottom - start), slice(low, high), *(slice(None) for _ in rest))
            self._decoder.decode(scores, self._labels[place])

    def _carry(self, carried: torch.Tensor, fresh: torch.Tensor, by: int) -> None:
        """Move the open pixels of a strip up by the rows that are finished, out of both buffers into the first one."""
        if by == 0:
            return
        held, new = self._held, fresh.shape[1]
        _move_up(carried, by, axis=1)
        top, skipped = max(held - by, 0), max(by - held, 0)
        count = min(held - top, new - skipped)
        if count > 0:
            carried[:, top : top + count].copy_(fresh[:, skipped : skipped + count])


def _move_up(buffer: torch.Tensor, by: int, *, axis: int) -> None:
    """Drop the first places of an axis, move the rest there and clear what follows, without a copy of the whole."""
    size = buffer.shape[axis]
    for start in range(0, size - by, by):
        count = min(by, size - by - start)
        buffer.narrow(axis, start, count).copy_(buffer.narrow(axis, start + by, count))
    kept = max(size - by, 0)
    buffer.narrow(axis, kept, size - kept).zero_()
