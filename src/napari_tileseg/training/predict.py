"""Predict a whole prepared image, padded to what the network accepts; images in training and validation are small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from napari_tileseg.models.sides import next_side

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["whole_image_scores"]


@torch.inference_mode()
def whole_image_scores(module: nn.Module, spec: ModelSpec, image: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the raw scores of one image in a single pass.

    Parameters
    ----------
    image : ndarray, shape (C, *spatial)
        Normalised; one channel is repeated if the model has more, and the image may not have fewer.

    Returns
    -------
    ndarray of float32, shape (K, *spatial)
    """
    channels = len(image) if spec.grey == "fewer" else len(spec.channels)
    tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)).expand(channels, *image.shape[1:])
    least = spec.window if spec.spatial_ndim == 3 else (1,) * spec.spatial_ndim
    padding: list[int] = []
    for length, window, step in zip(reversed(image.shape[1:]), reversed(least), reversed(spec.multiples), strict=True):
        missing = next_side(max(window, length), step, spec.remainder) - length
        padding += [missing // 2, missing - missing // 2]
    scores: torch.Tensor = module(F.pad(tensor[None], padding))[0]
    inside = tuple(slice(padding[2 * i], padding[2 * i] + length) for i, length in enumerate(reversed(image.shape[1:])))[::-1]
    return scores[(slice(None), *inside)].float().numpy()
