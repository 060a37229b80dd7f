"""``Patchwork``: labels of overlapping tiles side by side, each on its side of the seams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_tileseg.engine.tiles import Tile

if TYPE_CHECKING:
    from napari_tileseg.engine.joined import Joined
    from napari_tileseg.engine.tiles import Placed, Row, TilePlan

__all__ = ["Patchwork"]


class Patchwork:
    """The part of a `Slab` for a model that gives labels: nothing is averaged, each tile fills its side of the seams.

    Parameters
    ----------
    plan : TilePlan
        Whose tiles keep parts that lie side by side.
    joined : Joined
        Compares the tiles; its decoder's half gets what `finish` returns.
    """

    device = torch.device("cpu")

    def __init__(self, plan: TilePlan, joined: Joined) -> None:
        self._plan, self._joined = plan, joined
        self._canvas = np.zeros((plan.depth, *plan.canvas.shape[1:]), np.int32)
        joined.begin()

    def add(self, tile: Placed, scores: torch.Tensor, row: Row, *, skip: int = 0) -> None:
        """Take the labels of one tile, shape (1, *plan.output)."""
        labels = scores[0].cpu().numpy()
        within = self._plan.within(tile)
        origin = tuple(kept - inside for kept, inside in zip(tile.kept.start, within.start, strict=True))
        box = Tile((0,) * labels.ndim, labels.shape).moved(origin)
        place = tile.kept.relative_to((row.kept[0], *self._plan.canvas.start[1:]))
        self._canvas[place.slices] = self._joined.place(box, tile.kept, labels.astype(np.int64, copy=False))

    def finish(self, row: Row, *, skip: int = 0) -> tuple[Tile, torch.Tensor] | None:
        """Return the provisional ids of what the row has filled; None where that is no pixel of the image."""
        last = row.index + 1 == self._plan.n_rows
        self._joined.end_row(None if last else self._plan.row(row.index + 1).seen[0] + self._plan.offset[0])
        shape = self._plan.shape
        start, stop = max(row.finished[0], 0, skip), min(row.finished[1], shape[0])
        if start >= stop:
            return None
        region = Tile((start, *(0 for _ in shape[1:])), (stop, *shape[1:]))
        inside = region.relative_to((row.kept[0], *self._plan.canvas.start[1:])).slices
        return region, torch.from_numpy(self._canvas[inside].copy())

    def advance(self, row: Row) -> None:
        """Begin the next row with nothing."""
        self._canvas.fill(0)

    def move(self, device: str) -> None:
        """Stay where it is: labels are compared by NumPy."""
