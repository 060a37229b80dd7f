"""Where the windows of a model lie on an image: pure geometry, no pixels.

An image that is longer than the window is covered by overlapping windows (tiles). Tiles that start at the same place on
the first axis form a *row*; rows are visited from the top, tiles of a row in scan order. ::

    first axis
      |    0                                  W        blended ("gaussian", "constant", "nnunet"):
      v    +-------------+- - - - - - +-------+        every tile gives its whole window, overlaps are averaged
      0    | tile 0      | tile 1     | ...   |  row 0
           |             |            |       |
      s    +- - - - - - -+- - - - - - +- - - -+  <- the second row starts here: what lies above can change no more,
           | row 0 and 1 overlap              |     it is *finished* after row 0
           +-------------+- - - - - - +-------+
           |             |            |       |  row 1
           +-------------+- - - - - - +-------+

    "crop": the border (halo) of each tile is thrown away, the parts that are kept lie side by side

           . . . . . . . . . .
           .  +-----+-----+  .        . seen by the network; beyond the image it sees a mirror image
           .  | kept| kept|  .        + kept: tiles the image exactly, the last part is cut where it would overlap
           .  +-----+-----+  .
           . . . . . . . . . .

    "seam": overlapping windows as in the first figure, but each gives only what lies on its side of the middle of the overlaps

A network with valid convolutions returns less than it sees: ``output_offset`` pixels are missing at each side. Windows then
reach that far beyond the image, and "window" above means what is returned.

Where such a network pools, neighbouring windows agree to the last bit only if they begin a multiple of its strides apart. With steps
"aligned" they do, and the last one reaches out of the image instead of being cut or moved.

All coordinates are the image's own; they are negative, or beyond its end, where a window is larger than the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.engine.places import (
    Step,
    aligned_steps,
    crop_steps,
    reversed_steps,
    seams,
    steps_cellpose,
    steps_even,
    steps_fixed,
    steps_inside,
)
from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Placed", "Row", "Tile", "TilePlan", "mirror", "plan_tiles"]

_CELLPOSE = ("cellpose3", "cellpose4")


@dataclass(frozen=True)
class Tile:
    """A box on the pixel grid: `start` belongs to it, `stop` does not."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(stop - start for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(slice(start, stop) for start, stop in zip(self.start, self.stop, strict=True))

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """``(start, stop)`` of each axis."""
        return tuple(zip(self.start, self.stop, strict=True))

    def overlaps(self, other: Tile) -> bool:
        """Whether the two boxes share a pixel."""
        return all(max(a, c) < min(b, d) for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True))

    def moved(self, by: tuple[int, ...]) -> Tile:
        """Return the same box further on along each axis."""
        return self.relative_to(tuple(-step for step in by))

    def relative_to(self, origin: tuple[int, ...]) -> Tile:
        """Return the same box in coordinates that start at `origin`."""
        return Tile(
            tuple(value - by for value, by in zip(self.start, origin, strict=True)),
            tuple(value - by for value, by in zip(self.stop, origin, strict=True)),
        )

    def clipped(self, shape: tuple[int, ...]) -> Tile:
        """Return the part inside an image of that shape."""
        return Tile(
            tuple(max(value, 0) for value in self.start),
            tuple(min(value, size) for value, size in zip(self.stop, shape, strict=True)),
        )


@dataclass(frozen=True)
class Placed:
    """A tile of a plan: `seen` is what the network gets, `kept` is where its scores go (inside `seen`)."""

    seen: Tile
    kept: Tile


@dataclass(frozen=True)
class Row:
    """The tiles that start at the same place on the first axis.

    Parameters
    ----------
    index : int
        Number of the row, from 0.
    seen : tuple of int
        Start and stop, on the first axis, of what the network sees.
    kept : tuple of int
        Start and stop, on the first axis, of where the scores go.
    finished : tuple of int
        Start and stop, on the first axis, of what can change no more once this row is done (and could before).
    """

    index: int
    seen: tuple[int, int]
    kept: tuple[int, int]
    finished: tuple[int, int]


@dataclass(frozen=True)
class TilePlan:
    """Where each tile lies. Made by `plan_tiles`.

    Parameters
    ----------
    shape : tuple of int
        Size of the image.
    window : tuple of int
        Size of what the network sees.
    offset : tuple of int
        Pixels that the network's output lacks at each side.
    blending : str
        How overlaps are joined.
    steps : tuple of tuple of Step
        Positions on each axis; the tiles are all their combinations.
    reflect : bool
        Whether a mirror image is wanted beyond the border, even where the blending needs none.
    """

    shape: tuple[int, ...]
    window: tuple[int, ...]
    offset: tuple[int, ...]
    blending: str
    steps: tuple[tuple[Step, ...], ...]
    reflect: bool = False

    @property
    def mirrored(self) -> bool:
        """Whether the network sees a mirror image beyond the border (else zeros)."""
        return self.reflect or self.blending == "crop" or any(self.offset)

    @property
    def output(self) -> tuple[int, ...]:
        """Size of what the network returns for one window."""
        return tuple(size - 2 * lost for size, lost in zip(self.window, self.offset, strict=True))

    @cached_property
    def canvas(self) -> Tile:
        """The box that all kept parts fill: the image, or more where the image is smaller than the window."""
        return Tile(tuple(axis[0].keep[0] for axis in self.steps), tuple(axis[-1].keep[1] for axis in self.steps))

    @cached_property
    def seen(self) -> Tile:
        """The box that all windows fill."""
        return Tile(
            tuple(axis[0].start for axis in self.steps),
            tuple(axis[-1].start + size for axis, size in zip(self.steps, self.window, strict=True)),
        )

    @property
    def padding(self) -> tuple[tuple[int, int], ...]:
        """Pixels before and after the image, on each axis, that the network sees but the image does not have."""
        return tuple((-start, stop - size) for (start, stop), size in zip(self.seen.bounds, self.shape, strict=True))

    @property
    def depth(self) -> int:
        """Most rows of pixels that one row of tiles gives scores for."""
        return max(step.keep[1] - step.keep[0] for step in self.steps[0])

    @property
    def open_depth(self) -> int:
        """Most rows of pixels that are open between two rows of tiles: both give scores for them."""
        return max(row.kept[1] - row.finished[1] for row in self.rows())

    @property
    def column_width(self) -> int:
        """Most pixels of the second axis that one column of tiles gives scores for."""
        return max(step.keep[1] - step.keep[0] for step in self.steps[1])

    @property
    def n_rows(self) -> int:
        return len(self.steps[0])

    @property
    def tiles_per_row(self) -> int:
        return math.prod(len(axis) for axis in self.steps[1:])

    def __len__(self) -> int:
        return self.n_rows * self.tiles_per_row

    def row(self, index: int) -> Row:
        """Return where one row lies and what it finishes."""
        step = self.steps[0][index]
        stop = self.steps[0][index + 1].keep[0] if index + 1 < self.n_rows else step.keep[1]
        return Row(index, (step.start, step.start + self.window[0]), step.keep, (step.keep[0], stop))

    def rows(self, first: int = 0) -> Iterator[Row]:
        """Yield the rows from number `first` on."""
        return (self.row(index) for index in range(first, self.n_rows))

    def tiles(self, row: int) -> Iterator[Placed]:
        """Yield the tiles of one row in scan order."""
        for steps in product((self.steps[0][row],), *self.steps[1:]):
            start = tuple(step.start for step in steps)
            seen = Tile(start, tuple(begin + size for begin, size in zip(start, self.window, strict=True)))
            yield Placed(seen, Tile(tuple(step.keep[0] for step in steps), tuple(step.keep[1] for step in steps)))

    def touching(self, box: Tile) -> tuple[TilePlan, tuple[int, ...]]:
        """Return the tiles that touch a box, as a plan of their own.

        Pixels of the box get the same tiles in the same order as in the whole plan, so that sums are equal to the last bit;
        those around it lack some.

        Parameters
        ----------
        box : Tile
            Inside the image, at least one pixel.

        Returns
        -------
        plan : TilePlan
            Of an image that is as large as the tiles reach inside this one.
        origin : tuple of int
            Where that image begins in this one.
        """
        axes = [
            tuple(step for step in steps if step.keep[0] < stop and step.keep[1] > start)
            for steps, (start, stop) in zip(self.steps, box.bounds, strict=True)
        ]
        origin = tuple(max(0, steps[0].keep[0]) for steps in axes)
        shape = tuple(min(size, steps[-1].keep[1]) - low for size, steps, low in zip(self.shape, axes, origin, strict=True))
        moved = tuple(
            tuple(Step(step.start - low, (step.keep[0] - low, step.keep[1] - low)) for step in steps)
            for steps, low in zip(axes, origin, strict=True)
        )
        return replace(self, shape=shape, steps=moved), origin

    def within(self, tile: Placed) -> Tile:
        """Return the kept part of a tile in the coordinates of the network's output."""
        origin = tuple(start + lost for start, lost in zip(tile.seen.start, self.offset, strict=True))
        return tile.kept.relative_to(origin)

    def first_row(self, skip: int) -> int:
        """Return the first row of tiles that touches the image at `skip` or deeper (`n_rows` if none does)."""
        touching = (index for index, step in enumerate(self.steps[0]) if min(step.keep[1], self.shape[0]) > skip)
        return next(touching, self.n_rows)


def plan_tiles(
    shape: tuple[int, ...],
    window: tuple[int, ...],
    *,
    overlap: float,
    steps: str = "fixed",
    output_offset: tuple[int, ...] | None = None,
    blending: str = "gaussian",
    reflect: bool = False,
    from_end: tuple[bool, ...] = (),
    strides: tuple[int, ...] = (),
) -> TilePlan:
    """Lay windows over an image.

    Parameters
    ----------
    shape : tuple of int
        Spatial size of the image, slowest axis first, one to three axes.
    window : tuple of int
        Size of what the network sees. Where the image is smaller, it lies in the middle of the window
        (the odd pixel of padding comes after it).
    overlap : float
        Share of a window that its neighbour covers too, in [0, 1). With "crop", half of it is thrown away at each side.
    steps : {"fixed", "even", "aligned", "inside", "cellpose3", "cellpose4"}
        See `steps_fixed`, `steps_even`, `steps_inside` and `steps_cellpose`. With "aligned" and "crop", tiles begin multiples of
        `strides` apart; otherwise it is "fixed". "inside" cuts overlaps in their middle, whatever the blending; it and "cellpose3"
        shrink windows to small images.
    output_offset : tuple of int, optional
        Pixels that the network's output lacks at each side.
    blending : {"gaussian", "constant", "nnunet", "crop", "seam"}
        How overlaps are joined.
    reflect : bool
        Whether the network sees a mirror image beyond the border instead of zeros; with "crop" and valid convolutions it
        always does.

    from_end : tuple of bool
        Along which axes tiles are laid as if the image were turned around; none by default.
    strides : tuple of int
        Product of the strides of the network along each axis; 1 by default. With "aligned" places are multiples of it, with
        "inside" places and sizes are.

    Returns
    -------
    TilePlan

    Raises
    ------
    OptionsError
        If the sizes do not fit each other.
    """
    offset = output_offset or (0,) * len(shape)
    _check_sizes(shape, window, offset, overlap)
    if steps == "inside":
        by = strides or (1,) * len(shape)
        sizes = tuple(min(size, -(-length // step) * step) for size, length, step in zip(window, shape, by, strict=True))
        inside = tuple(steps_inside(length, size, overlap, step) for length, size, step in zip(shape, sizes, by, strict=True))
        return TilePlan(tuple(shape), sizes, tuple(offset), "crop", inside, reflect=True)
    if steps in _CELLPOSE:
        early = steps == "cellpose3"
        padded = tuple(steps_cellpose(*pair, overlap, early=early) for pair in zip(shape, window, strict=True))
        sizes = tuple(step[0].keep[1] - step[0].keep[0] for step in padded)
        return TilePlan(tuple(shape), sizes, tuple(offset), blending, padded, reflect)
    axes = [
        _steps_of_axis(length, size, lost, stride, overlap=overlap, steps=steps, blending=blending)
        for length, size, lost, stride in zip(shape, window, offset, strides or (1,) * len(shape), strict=True)
    ]
    turned = from_end or (False,) * len(shape)
    steps_of = tuple(
        reversed_steps(axis, length, size) if turn else axis for axis, length, size, turn in zip(axes, shape, window, turned, strict=True)
    )
    return TilePlan(tuple(shape), tuple(window), tuple(offset), blending, steps_of, reflect)


def _check_sizes(shape: tuple[int, ...], window: tuple[int, ...], offset: tuple[int, ...], overlap: float) -> None:
    if not len(shape) == len(window) == len(offset) or not 1 <= len(shape) <= 3:
        raise OptionsError(f"A window of {len(window)} axes was given for an image of {len(shape)}. Give one size for each axis.")
    if min(shape) < 1 or not 0 <= overlap < 1:
        raise OptionsError(f"An image of {shape} pixels with overlap {overlap} cannot be tiled. The overlap must be from 0 to below 1.")
    if any(size - 2 * lost < 1 for size, lost in zip(window, offset, strict=True)):
        raise OptionsError(f"Window {window} is too small: the network loses {offset} pixels at each side. Use a larger window.")


def _steps_of_axis(length: int, size: int, lost: int, stride: int, *, overlap: float, steps: str, blending: str) -> tuple[Step, ...]:
    """Lay windows of a size along an axis of a length; the network's output lacks `lost` pixels at each side."""
    place = steps_even if steps == "even" else steps_fixed
    output = size - 2 * lost
    if blending == "crop":
        halo = min(int(output * overlap) // 2, (output - 1) // 2)
        if steps == "aligned":
            return aligned_steps(length, output, lost, halo, stride)
        return crop_steps(length, output - 2 * halo, lost + halo, place)
    before = max(output - length, 0) // 2
    starts = [start - before for start in place(max(length, output), output, overlap)]
    kept = seams(starts, output) if blending == "seam" else [(start, start + output) for start in starts]
    return tuple(Step(start - lost, keep) for start, keep in zip(starts, kept, strict=True))


def mirror(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Return which pixel of an axis is seen at each place from `start` to `stop` when the axis is mirrored at its ends.

    The pixel at the border is not repeated (``...2 1 0 1 2...``); an axis of one pixel repeats it.

    Parameters
    ----------
    start, stop : int
        Range of places, may lie outside the axis by any number of its lengths.
    length : int
        Length of the axis.

    Returns
    -------
    ndarray of intp, shape (stop - start,)
        Indices from 0 to ``length - 1``.
    """
    if length == 1:
        return np.zeros(stop - start, dtype=np.intp)
    period = 2 * (length - 1)
    folded = np.arange(start, stop) % period
    return np.minimum(folded, period - folded)
