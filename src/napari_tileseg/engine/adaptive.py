"""Adaptive overlap: a first pass with little overlap, then a window over each seam where its two tiles disagree.

Two tiles that are neighbours along one axis share a strip, and both say what is in it. Where their labels differ, a window is
put in the middle between the two; there it counts most, and the borders of the tiles least. ::

    +-----------+ +-----------+        tiles of the first pass; the strip they share is drawn as a gap
    |      +----|-|----+      |
    |      |    |?|    |      |        a window over the seam: half a tile to either side
    |      +----|-|----+      |
    +-----------+ +-----------+

Both passes together take at most half of the windows of an overlap of one half, unless the first pass alone takes more (images
of two or three windows). Seams between rows can be judged when the lower row is there. Which windows are chosen depends on the image alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from napari_tileseg.engine.abnormal import limit_of
from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.engine.tiles import Placed, Row, Tile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_tileseg.engine.recipe import Recipe
    from napari_tileseg.engine.tiles import TilePlan
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["Refinement", "codes", "line_of"]

_WIDE = 0.4
"""Tiles that share this much of a window need no other one between them."""
_TOLERANCE = 0.02
"""Share of the pixels with anything in them, in a strip, that two tiles may call different things."""


def codes(scores: torch.Tensor, spec: ModelSpec, threshold: float) -> torch.Tensor:
    """Return a number for what each pixel would be by this tile alone; 0 is background.

    Parameters
    ----------
    scores : torch.Tensor of float32, shape (K, *output)
    spec : ModelSpec
    threshold : float
        Least probability.

    Returns
    -------
    torch.Tensor of int16, shape (*output)
        The class (softmax); one bit for each mask, those above 14 sharing bits (sigmoid); foreground, and which other heads
        are above one half inside it (instances).
    """
    if spec.output == "softmax":
        return scores.argmax(0).to(torch.int16)
    if spec.output == "instances":
        inside = find_decoder(spec.decoder).foreground(scores.cpu().numpy(), spec.decoder_parameters, threshold)
        found = torch.from_numpy(inside).to(torch.int16).to(scores.device)
        for place, head in enumerate(scores[1:]):
            found |= ((head > 0.5) & (found > 0)).to(torch.int16) << (1 + place % 13)
        return found
    if spec.output == "anomaly":
        return (scores[0] >= limit_of(spec.decoder_parameters, threshold)).to(torch.int16)
    masks = scores.sigmoid() >= threshold
    found = torch.zeros(masks.shape[1:], dtype=torch.int16, device=scores.device)
    for place, mask in enumerate(masks):
        found |= mask.to(torch.int16) << place % 14
    return found


@dataclass
class Refinement:
    """Remembers what the tiles of the last two rows say, and chooses the windows of the second pass.

    Parameters
    ----------
    plan : TilePlan
        Of the first pass; blended, not cropped.
    spec : ModelSpec
    threshold : float
    most : int
        Windows that the second pass may add in all. Every row gets its share, so that a row's windows depend on no other row.
    """

    plan: TilePlan
    spec: ModelSpec
    threshold: float
    most: int
    _said: dict[Tile, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: TilePlan, recipe: Recipe, spec: ModelSpec, threshold: float) -> Refinement:
        """Return the second pass of a plan that a recipe has laid: both together, half of the windows of an overlap of one half."""
        half = len(replace(recipe, overlap=0.5, steps=spec.steps).plan(plan.shape)) // 2
        return cls(plan, spec, threshold, max(0, half - len(plan)))

    def note(self, tile: Placed, scores: torch.Tensor) -> None:
        """Take the scores of one tile of the first pass."""
        self._said[tile.kept] = codes(scores, self.spec, self.threshold)

    def ends(self) -> list[int]:
        """Return for each row how much of the first axis can change no more when it and the windows above it are done."""
        found: list[int] = []
        for index in range(self.plan.n_rows):
            row = self.plan.row(index)
            end = row.finished[1]
            if index + 1 < self.plan.n_rows:
                below = self.plan.row(index + 1)
                if self._narrow(0, row.kept[1] - below.kept[0]):
                    end = min(end, (row.kept[0] + below.kept[0]) // 2)
            found.append(max(end, found[-1]) if found else end)
        return found

    def choose(self, row: Row) -> list[Placed]:
        """Return the windows over the worst seams inside a row, and between it and the one before it, in scan order."""
        here = list(self.plan.tiles(row.index))
        doubts: list[tuple[float, Placed]] = []
        columns = [len(steps) for steps in self.plan.steps[1:]]
        for axis in range(1, len(columns) + 1):
            stride = math.prod(columns[axis:])
            for number, tile in enumerate(here):
                if number // stride % columns[axis - 1] + 1 < columns[axis - 1]:
                    doubts += self._doubt(axis, tile, here[number + stride])
        if row.index:
            for above, below in zip(self.plan.tiles(row.index - 1), here, strict=True):
                doubts += self._doubt(0, above, below)
            for above in self.plan.tiles(row.index - 1):
                self._said.pop(above.kept, None)
        rows = self.plan.n_rows
        allowed = self.most * (row.index + 1) // rows - self.most * row.index // rows
        worst = sorted(doubts, key=lambda item: (-item[0], item[1].kept.start))[:allowed]
        return sorted((tile for _, tile in worst), key=lambda tile: tile.kept.start)

    def _narrow(self, axis: int, shared: int) -> bool:
        return 0 < shared < _WIDE * self.plan.output[axis]

    def _doubt(self, axis: int, one: Placed, other: Placed) -> Iterator[tuple[float, Placed]]:
        """Yield how much two neighbours disagree, and the window between them, if that is too much."""
        shared = one.kept.stop[axis] - other.kept.start[axis]
        if not self._narrow(axis, shared) or one.kept not in self._said or other.kept not in self._said:
            return
        strip = Tile(
            tuple(max(a, b) for a, b in zip(one.kept.start, other.kept.start, strict=True)),
            tuple(min(a, b) for a, b in zip(one.kept.stop, other.kept.stop, strict=True)),
        )
        first, second = (self._said[tile.kept][strip.relative_to(tile.kept.start).slices] for tile in (one, other))
        first = first.to(second.device)  # scores of later tiles may have gone to the host for want of memory
        anything = int(torch.count_nonzero((first > 0) | (second > 0)))
        differs = int(torch.count_nonzero(first != second))
        if differs <= _TOLERANCE * anything:
            return
        start = list(one.kept.start)
        start[axis] = (one.kept.start[axis] + other.kept.start[axis]) // 2
        kept = Tile(tuple(start), tuple(low + size for low, size in zip(start, self.plan.output, strict=True)))
        seen = tuple(low - lost for low, lost in zip(start, self.plan.offset, strict=True))
        yield (
            float(differs),
            Placed(Tile(seen, tuple(low + size for low, size in zip(seen, self.plan.window, strict=True))), kept),
        )


def line_of(tile: Placed) -> Row:
    """Return a row that holds one window between rows."""
    return Row(-1, tile.seen.bounds[0], tile.kept.bounds[0], tile.kept.bounds[0])
