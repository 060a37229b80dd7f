"""The flow of heat out of the middle of each object, which tells whether a network's flow belongs to it.

One unit of heat comes to the pixel nearest to an object's middle in every step, and every pixel takes the mean of itself and its
eight neighbours; outside of the object it is cold. The direction in which it gets warmer is the object's flow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["flow_errors", "flows_of"]

_ROUND = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (-1, -1), (-1, 1), (1, -1), (1, 1)]
"""A pixel and its neighbours."""


def flow_errors(labels: NDArray[np.int32], flows: NDArray[np.float32], *, touching: bool = True) -> NDArray[np.float64]:
    """Return how far a network's flow is from that of each object: the mean square of their difference.

    Parameters
    ----------
    labels : ndarray of int32, shape (Y, X)
        Objects from 1 to n, each with a pixel at least.
    flows : ndarray of float32, shape (2, Y, X)
        Vectors of length 1, or what the network takes for such.
    touching : bool
        See `flows_of`.

    Returns
    -------
    ndarray of float64, shape (n,)
    """
    inside = labels > 0
    apart = ((flows_of(labels, touching=touching)[:, inside] - flows[:, inside]) ** 2).sum(0)
    numbers = labels[inside]
    sums, sizes = np.bincount(numbers, apart), np.bincount(numbers)
    return sums[1:] / sizes[1:]


def flows_of(labels: NDArray[np.int32], *, touching: bool = True) -> NDArray[np.float64]:
    """Return the flow of each object, from heat that has spread for twice its width and height.

    Parameters
    ----------
    labels : ndarray of int32, shape (Y, X)
        Objects from 1 on; 0 is background.
    touching : bool
        Whether, at a border between two objects, the warmth of the other one counts for the direction (Cellpose 4, and 3 on a GPU),
        or it is as cold as the background (Cellpose 3 on a processor).

    Returns
    -------
    ndarray of float64, shape (2, Y, X)
        Vectors of length 1 in objects, 0 where there is no warmth to tell, and outside.
    """
    padded = np.pad(labels, 1)
    boxes = ndimage.find_objects(padded)
    steps = np.array([0, *(2 * (sum(side.stop - side.start for side in box) + 4) if box else 0 for box in boxes)])
    pixels = np.flatnonzero(padded)
    # Objects that need most steps come first: those that are done are cut off at the end.
    pixels = pixels[np.argsort(-steps[padded.reshape(-1)[pixels]], kind="stable")]
    lasting = steps[padded.reshape(-1)[pixels]]
    width = padded.shape[1]
    around = np.stack([pixels + dy * width + dx for dy, dx in _ROUND])
    same = padded.reshape(-1)[around] == padded.reshape(-1)[pixels]
    # Where a neighbour is of another object, a place that is always cold stands for it.
    position = np.zeros(padded.size, np.int64)
    position[pixels] = np.arange(len(pixels))
    near = torch.from_numpy(np.where(same, position[around], len(pixels)))
    heat = torch.zeros(len(pixels) + 1, dtype=torch.float64)
    sources = torch.from_numpy(np.sort(position[_middles(padded, boxes)]))
    counts = np.searchsorted(-lasting, -np.unique(steps[steps > 0]), side="right")
    done = 0
    for step, count in zip(np.unique(steps[steps > 0]).tolist(), counts.tolist(), strict=True):
        active = near[:, :count]
        warmed = sources[: int(torch.searchsorted(sources, count))]
        for _ in range(step - done):
            heat[warmed] += 1
            heat[:count] = heat[active].sum(0).div_(9)
        done = step
    warmth = np.zeros(padded.size)
    warmth[pixels] = heat[:-1].numpy()
    beside = warmth[around[1:5]] if touching else np.where(same[1:5], warmth[around[1:5]], 0)
    field = np.stack([beside[1] - beside[0], beside[3] - beside[2]])
    field /= 1e-60 + np.sqrt((field**2).sum(0))
    result = np.zeros((2, padded.size))
    result[:, pixels] = field
    return result.reshape(2, *padded.shape)[:, 1:-1, 1:-1]


def _middles(padded: NDArray[np.int32], boxes: list[tuple[slice, ...] | None]) -> NDArray[np.int64]:
    """Return the flat index of the pixel of each object that is nearest to its centre of mass."""
    found = []
    for number, box in enumerate(boxes, start=1):
        if box is None:
            continue
        places = np.argwhere(padded[box] == number)
        nearest = places[((places - places.mean(0)) ** 2).sum(1).argmin()]
        start = (box[0].start + nearest[0], box[1].start + nearest[1])
        found.append(start[0] * padded.shape[1] + start[1])
    return np.array(found, np.int64)
