"""``turned``: vectors that lie in an image, as a crop of it sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["turned"]

_LEAST = 1e-3
"""Shorter vectors point nowhere."""


def turned(vectors: Tensor, matrix: NDArray[np.float64], field: Tensor | None = None) -> Tensor:
    """Turn directions along with a crop: who walks along them in the crop comes to where he would have come in the image.

    Parameters
    ----------
    vectors : Tensor of float32, shape (D, *size)
        Directions in the example, at each pixel of the crop.
    matrix : ndarray, shape (D, D)
        Maps offsets in the crop to offsets in the example.
    field : Tensor of float32, shape (*size, D), optional
        Displacements that are added to offsets in the crop before.

    Returns
    -------
    Tensor of float32, shape (D, *size)
        Of length 1, or 0 where they point nowhere.
    """
    size = vectors.shape[1:]
    back = torch.from_numpy(np.linalg.inv(matrix).astype(np.float32))
    found = torch.einsum("ij,j...->i...", back, vectors)
    if field is not None:
        ndim = len(size)
        bends = torch.stack(torch.gradient(field, dim=list(range(ndim))), dim=-1)  # of each displacement, along each axis
        bends = bends + torch.eye(ndim)
        found = torch.linalg.solve(bends, found.movedim(0, -1)[..., None])[..., 0].movedim(-1, 0)
    length = found.square().sum(0, keepdim=True).sqrt()
    shortest = vectors.square().sum(0, keepdim=True).sqrt() < _LEAST
    return torch.where(shortest | (length == 0), torch.zeros(()), found / length.clamp(min=1e-12))
