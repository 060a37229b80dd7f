"""Targets made from instance labels: distance inside each object, its area, and where objects touch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["object_maps", "touching"]


def object_maps(labels: NDArray[np.int32]) -> NDArray[np.float32]:
    """Compute, for every pixel of every object, its distance to the outside and the object's size.

    Parameters
    ----------
    labels : ndarray of int, shape (*spatial)
        Objects; 0 is background.

    Returns
    -------
    ndarray of float32, shape (2, *spatial)
        Distance divided by its largest value in the object, in (0, 1]; natural logarithm of the object's number of pixels.
        Both are 0 in the background.
    """
    result = np.zeros((2, *labels.shape), np.float32)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        mask = labels[box] == number
        distance = ndimage.distance_transform_edt(np.pad(mask, 1))[(slice(1, -1),) * mask.ndim]
        result[0][box][mask] = (distance / distance.max())[mask]
        result[1][box][mask] = np.log(mask.sum())
    return result


def touching(labels: Tensor, width: int = 3) -> Tensor:
    """Mark the pixels in whose neighbourhood two objects lie.

    Parameters
    ----------
    labels : Tensor of int64, shape (B, *spatial)
    width : int
        Odd side of the neighbourhood in pixels.

    Returns
    -------
    Tensor of bool, shape (B, *spatial)
    """
    pool = F.max_pool2d if labels.ndim == 3 else F.max_pool3d
    numbers = labels[:, None].float()
    far = numbers.max() + 1
    highest = pool(numbers, width, stride=1, padding=width // 2)
    lowest = far - pool(torch.where(numbers > 0, far - numbers, torch.zeros_like(numbers)), width, stride=1, padding=width // 2)
    return ((highest > 0) & (lowest < highest))[:, 0]
