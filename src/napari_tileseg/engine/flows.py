"""The decoder "cellpose": pixels follow the flow that a network predicts, and those that meet in one place are one object.

Scores are the logit of the probability of a cell, and the flow along each axis of space, in order, times `FLOW_SCALE`. Every pixel
of a cell walks along the flow, a fifth of its value per step; where many end, an object has its middle (Stringer et al., Nature
Methods 18 (2021), 100). Objects whose own flow, that of heat from their middle, differs from the network's are dropped.

Walks are followed in displacements from where they begin, so that objects do not depend on where a component lies, or on what
lies beside it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from napari_tileseg.engine.heat import flow_errors
from napari_tileseg.errors import ModelError, OptionsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["DEFAULTS", "FLOW_SCALE", "decode", "foreground", "margin", "placed"]

DEFAULTS: dict[str, float] = {
    "cellprob_threshold": 0.0,
    "flow_threshold": 0.4,
    "steps": 200.0,
    "min_size": 15.0,
    "touching": 1.0,
    "aside": 0.0,
}
"""What each parameter is where the model does not say; the names are Cellpose's, but for ``steps`` (there: niter).

``cellprob_threshold``: what the logit of a cell must be above, where the threshold of the run is one half. ``flow_threshold``:
largest mean square between the network's flow and an object's own; 0 keeps all. ``steps``: how often every pixel moves.
``min_size``: fewest pixels. ``touching``: 0 where an object's own flow is that of Cellpose 3 on a processor, see `flow_errors`.
``aside``: 1 where flows are looked up as Cellpose 4 does it, half a pixel towards the border of the image at most: it gives `torch`'s
``grid_sample`` places for which corners are aligned, and does not say so.
"""

placed = True
"""Whether the decoder asks for the place of what it decodes: version 4 needs it."""

FLOW_SCALE = 5.0
"""Networks predict unit vectors times this."""

_REACH = 2
"""Pixels around cells in which walks may end, and middles meet."""

_SUMMIT, _SLOPE = 10, 2
"""How many walks must end in a pixel for a middle, and in one beside it for belonging to it; both excluded."""

_EXTENT = 5
"""Pixels by which a middle grows."""


def margin(parameters: Mapping[str, float]) -> int:
    """Return how many pixels around a component can change its objects: none, its surroundings are part of it."""
    return 0


def foreground(scores: NDArray[np.float32], parameters: Mapping[str, float], threshold: float = 0.5) -> NDArray[np.bool_]:
    """Return where objects can be, with the pixels around them that walks can reach.

    Parameters
    ----------
    scores : ndarray of float32, shape (D + 1, *spatial), D axes of space
        The logit of a cell, and flows.
    parameters : mapping of str to float
        See `DEFAULTS`.
    threshold : float
        Least probability of a cell, 0 to 1.

    Returns
    -------
    ndarray of bool, shape (*spatial)
    """
    cells = _cells(scores, parameters, threshold)
    grown: NDArray[np.bool_] = ndimage.binary_dilation(cells, np.ones((3,) * cells.ndim, bool), iterations=_REACH)
    return grown


def decode(
    scores: NDArray[np.float32], parameters: Mapping[str, float], *, threshold: float = 0.5, min_size: float = 0
) -> NDArray[np.int32]:
    """Turn scores into objects.

    Parameters
    ----------
    scores : ndarray of float32, shape (D + 1, *spatial)
        As for `foreground`, 2D or 3D.
    parameters : mapping of str to float
        See `DEFAULTS`.
    threshold : float
        Least probability of a cell, 0 to 1.
    min_size : float
        Fewest pixels of an object, if more than the parameters say.

    Returns
    -------
    ndarray of int32, shape (*spatial)
        Objects from 1 to n in the order in which a scan of the array meets them; 0 is background.

    Raises
    ------
    ModelError
        If the scores are not one for cells, and one flow for each axis.
    """
    shape = scores.shape[1:]
    if len(scores) != len(shape) + 1:
        raise ModelError(
            f'The decoder "cellpose" needs {len(shape) + 1} score channels (cells, a flow for each axis); the model has {len(scores)}.'
        )
    values = {**DEFAULTS, **parameters}
    cells = _cells(scores, parameters, threshold)
    if not cells.any():
        return np.zeros(shape, np.int32)
    flows = (np.where(cells, scores[1:], 0) / FLOW_SCALE).astype(np.float32)
    sizes = [int(values.get(f"size_{axis}", size)) for axis, size in enumerate(shape)] if values["aside"] else None
    ends = _follow(flows, cells, max(1, int(values["steps"])), [int(values.get(f"origin_{axis}", 0)) for axis in range(len(shape))], sizes)
    labels = np.zeros(shape, np.int32)
    labels[cells] = _meet(ends, shape)
    smallest = max(float(values["min_size"]), min_size)
    labels = _numbered(labels)
    if values["flow_threshold"] > 0 and len(shape) == 2:
        errors = flow_errors(labels, flows, touching=values["touching"] != 0)
        labels = _without(labels, errors > values["flow_threshold"])
    return _filled(_large(labels, smallest), smallest)


def _cells(scores: NDArray[np.float32], parameters: Mapping[str, float], threshold: float) -> NDArray[np.bool_]:
    if not 0 <= threshold <= 1:
        raise OptionsError(f"threshold = {threshold} is not accepted: give a number from 0 to 1.")
    if threshold in (0, 1):  # the logit of these is infinite
        return np.full(scores.shape[1:], threshold == 0)
    least = math.log(threshold / (1 - threshold)) + parameters.get("cellprob_threshold", DEFAULTS["cellprob_threshold"])
    result: NDArray[np.bool_] = scores[0] > np.float32(least)
    return result


def _follow(
    flows: NDArray[np.float32], cells: NDArray[np.bool_], steps: int, origin: list[int], sizes: list[int] | None
) -> NDArray[np.intp]:
    """Return the pixel in which the walk from each cell's pixel ends, shape (D, n).

    `sizes` of the image are given where flows are looked up aside; `origin` is where the flows begin in it.
    """
    shape, ndim = cells.shape, cells.ndim
    starts = np.stack(np.nonzero(cells))
    field = torch.from_numpy(np.ascontiguousarray(flows)).reshape(ndim, -1)
    strides = [math.prod(shape[axis + 1 :]) for axis in range(ndim)]
    begin = torch.from_numpy(starts)
    moved = torch.zeros(starts.shape, dtype=torch.float32)
    # A walk stays inside: the lowest and the highest displacement of each pixel along each axis.
    low = -begin.to(torch.float32)
    high = torch.tensor(shape).reshape(-1, 1) - 1 - begin
    last, ceiling = torch.where(torch.tensor(shape).reshape(-1, 1) > 1, high - 1, high), high.to(torch.float32)
    strided = torch.tensor(strides).reshape(-1, 1)
    home = (begin * strided).sum(0)
    # What is looked up of a pixel at p of n is the flow at p * n / (n - 1) - 1 / 2, zero beyond the border.
    slope = torch.tensor([1 / max(size - 1, 1) for size in sizes or ()], dtype=torch.float32).reshape(-1, 1)
    beside = (begin + torch.tensor(origin).reshape(-1, 1)) * slope - 0.5 if sizes else None
    for _ in range(steps):
        looked = moved if beside is None else moved + (beside + moved * slope)
        whole = torch.maximum(torch.minimum(looked.floor().to(torch.int64), last), -begin)
        part = looked - whole
        corner = home + (whole * strided).sum(0)
        moved += _between(field, corner, part, strides, shape)
        torch.minimum(torch.maximum(moved, low, out=moved), ceiling, out=moved)
    # Truncated, as indices are; where walks begin is whole, so only displacements are rounded.
    return (begin + moved.floor().to(torch.int64)).numpy()


def _between(field: torch.Tensor, corner: torch.Tensor, part: torch.Tensor, strides: list[int], shape: tuple[int, ...]) -> torch.Tensor:
    """Interpolate a field, shape (D, pixels), linearly between the corners of the boxes in which walks are."""
    total: torch.Tensor | None = None
    for choice in np.ndindex(*(2,) * len(strides)):
        share = torch.ones((), dtype=part.dtype)
        for axis, side in enumerate(choice):
            # As large as the pixel's box at the place; beyond the border, where nothing is, a place is beside both corners.
            share = share * (1 - (part[axis] - side).abs()).clamp_min(0)
        step = sum(side * stride for side, stride, size in zip(choice, strides, shape, strict=True) if size > 1)
        value = field.index_select(1, corner + step).mul_(share)
        total = value if total is None else total.add_(value)
    assert total is not None  # a box has corners
    return total


def _meet(ends: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return the number of the middle that each walk has reached; 0 where it has reached none."""
    room = _EXTENT
    padded = tuple(size + 2 * room for size in shape)
    flat = np.ravel_multi_index(tuple(ends + room), padded)
    visits = np.bincount(flat, minlength=math.prod(padded)).reshape(padded)
    middles = np.argwhere((visits > _SUMMIT) & (visits == ndimage.maximum_filter(visits, size=5, mode="constant")))
    if not len(middles):
        return np.zeros(ends.shape[1], np.int32)
    # The most visited come last and so take what several claim.
    middles = middles[np.argsort(visits[tuple(middles.T)], kind="stable")]
    window = np.stack(np.meshgrid(*[np.arange(-room, room + 1)] * len(shape), indexing="ij"))
    owner = np.zeros(padded, np.int32)
    chunk = max(1, (1 << 24) // window[0].size)
    for first in range(0, len(middles), chunk):
        some = middles[first : first + chunk]
        places = some.T.reshape(len(shape), -1, *(1,) * len(shape)) + window[:, None]
        open_ = visits[tuple(places)] > _SLOPE
        grown = np.zeros(open_.shape, bool)
        middle: Any = (slice(None), *(room,) * len(shape))
        grown[middle] = True
        for _ in range(_EXTENT):
            grown = ndimage.binary_dilation(grown, np.ones((1, *(3,) * len(shape)), bool)) & open_
        which, *_ = np.nonzero(grown)
        np.maximum.at(owner, tuple(place[grown] for place in places), (first + 1 + which).astype(np.int32))
    found: NDArray[np.int32] = owner.reshape(-1)[flat]
    return found


def _numbered(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give objects the numbers from 1 on in the order in which a scan meets them."""
    numbers, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    table = np.zeros(len(numbers), np.int32)
    order = np.argsort(first)
    order = order[numbers[order] > 0]
    table[order] = np.arange(1, len(order) + 1, dtype=np.int32)
    return table[inverse].reshape(labels.shape)


def _without(labels: NDArray[np.int32], bad: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Drop objects: `bad` has one entry for each, from 1 on; the others keep their numbers."""
    table = np.arange(len(bad) + 1, dtype=np.int32)
    table[1:][bad] = 0
    return table[labels]


def _large(labels: NDArray[np.int32], smallest: float) -> NDArray[np.int32]:
    return _without(labels, np.bincount(labels.reshape(-1))[1:] < smallest)


def _filled(labels: NDArray[np.int32], smallest: float) -> NDArray[np.int32]:
    """Fill holes, object after object; drop what that has left too small of others."""
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            labels[box][ndimage.binary_fill_holes(labels[box] == number)] = number
    return _numbered(_large(labels, smallest))
