"""Where the windows of a model begin on one axis of an image, and what each of them keeps: the grids of other programs, and ours."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Step", "aligned_steps", "crop_steps", "reversed_steps", "seams", "steps_cellpose", "steps_even", "steps_fixed", "steps_inside"]

_PAD, _EVERY = 8, 16
"""Pixels that Cellpose adds at each side at least, and what it pads longer axes to a multiple of."""


@dataclass(frozen=True)
class Step:
    """One position of the window on one axis: where it starts, and which part of the axis its scores are for."""

    start: int
    keep: tuple[int, int]


def steps_fixed(length: int, window: int, overlap: float) -> list[int]:
    """Return the starts of windows at a fixed distance, the last one moved inside (MONAI's grid).

    Parameters
    ----------
    length : int
        Length of the axis, at least `window`.
    window : int
        Length of the window.
    overlap : float
        Share of the window that the next one covers too, in [0, 1); the distance is
        ``int(window * (1 - overlap))``, at least 1.

    Returns
    -------
    list of int
        Starts in growing order; they cover the axis.
    """
    interval = max(1, int(window * (1 - overlap)))
    last = length - window
    return [*range(0, last, interval), last]


def steps_even(length: int, window: int, overlap: float) -> list[int]:
    """Return the starts of the fewest windows at most ``window * (1 - overlap)`` apart, evenly spread (nnU-Net's grid).

    Parameters
    ----------
    length : int
        Length of the axis, at least `window`.
    window : int
        Length of the window.
    overlap : float
        Share of the window that the next one covers at least, in [0, 1).

    Returns
    -------
    list of int
        Starts in growing order, rounded half to even; they cover the axis.
    """
    last = length - window
    count = math.ceil(last / (window * (1 - overlap))) + 1
    return [round(last / (count - 1) * index) for index in range(count)] if count > 1 else [0]


def steps_inside(length: int, window: int, overlap: float, multiple: int) -> tuple[Step, ...]:
    """Return windows that do not reach beyond the start of an axis, and beyond its end only up to the next multiple.

    A network whose pixels see no further than half of the overlap gives what it would give for the whole axis at once: every pixel
    is taken from the window in whose middle it lies, the image's border is the border of a window, and all windows lie alike on the
    grid of its pooling.

    Parameters
    ----------
    length, window : int
        Of the axis and the window; the window is a multiple of `multiple`, and no longer than the axis rounded up to one.
    overlap : float
        Share of a window that its neighbour covers too, at least.
    multiple : int
        What places must be multiples of.
    """
    padded = -(-length // multiple) * multiple
    interval = max(multiple, int(window * (1 - overlap)) // multiple * multiple)
    starts = [*range(0, padded - window, interval), padded - window]
    cuts = [0, *((later + first + window) // 2 for first, later in pairwise(starts)), length]
    return tuple(Step(start, (low, high)) for start, (low, high) in zip(starts, pairwise(cuts), strict=True))


def steps_cellpose(length: int, window: int, overlap: float, *, early: bool) -> tuple[Step, ...]:
    """Return the windows of Cellpose: the axis is padded at both ends, and windows are spread evenly over it.

    Parameters
    ----------
    length, window : int
        Of the axis and the window.
    overlap : float
        Taken as from 0.05 to 0.5.
    early : bool
        As version 3 has it, where the window is no longer than the padded axis; version 4 pads short axes to one window.
    """
    if early or length >= window:
        more = -length % _EVERY
    else:
        more = max(0, window - length - 2 * _PAD)
    before, padded = _PAD + more // 2, length + 2 * _PAD + more
    window = min(window, padded)
    count = math.ceil((1 + 2 * min(0.5, max(0.05, overlap))) * padded / window) if padded > window else 1
    starts = np.linspace(0, padded - window, count).astype(int) - before
    return tuple(Step(int(start), (int(start), int(start) + window)) for start in starts)


def reversed_steps(steps: tuple[Step, ...], length: int, window: int) -> tuple[Step, ...]:
    """Return the mirror image of positions on an axis."""
    return tuple(Step(length - step.start - window, (length - step.keep[1], length - step.keep[0])) for step in reversed(steps))


def seams(starts: list[int], output: int) -> list[tuple[int, int]]:
    """Return which part of an axis each window keeps: up to the middle of what it shares with its neighbours."""
    middles = [(start + output + following) // 2 for start, following in pairwise(starts)]
    return list(pairwise([starts[0], *middles, starts[-1] + output]))


def crop_steps(length: int, core: int, border: int, place: Callable[[int, int, float], list[int]]) -> tuple[Step, ...]:
    """Lay cores side by side; one that would overlap its forerunner, or reach out of the image, is cut."""
    before = max(core - length, 0) // 2
    steps: list[Step] = []
    done = 0
    for start in place(max(length, core), core, 0.0):
        stop = min(start - before + core, length)
        steps.append(Step(start - before - border, (done, stop)))
        done = stop
    return tuple(steps)


def aligned_steps(length: int, output: int, lost: int, halo: int, stride: int) -> tuple[Step, ...]:
    """Lay cores side by side that are multiples of the stride; the last one reaches out of the image, and is cut there."""
    if output < stride:
        raise OptionsError(
            f"The network returns {output} pixels of a side of {output + 2 * lost}, and tiles must lie {stride} apart. "
            f"Use a window of {2 * lost + stride + output} or more."
        )
    halo = min(halo, (output - stride) // 2) // stride * stride  # so that windows of any size meet the same pixels
    core = (output - 2 * halo) // stride * stride
    return tuple(Step(start - lost - halo, (start, min(start + core, length))) for start in range(0, length, core))
