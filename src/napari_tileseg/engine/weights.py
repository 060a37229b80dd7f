"""How much each pixel of a tile counts where tiles overlap."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d

from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["gaussian", "importance", "nnunet", "taper"]

FLOOR = 1e-3
"""Least weight of MONAI's Gaussian map."""


@lru_cache(maxsize=8)
def importance(shape: tuple[int, ...], blending: str, sigma: float = 0.125) -> NDArray[np.float32]:
    """Return the weight of each pixel of a tile.

    Parameters
    ----------
    shape : tuple of int
        Size of the network's output for one tile.
    blending : {"gaussian", "constant", "nnunet", "cellpose", "crop", "seam"}
        The recipe; the last two and "constant" count every kept pixel as one.
    sigma : float
        Width of the Gaussians as a share of the window.

    Returns
    -------
    ndarray of float32
        Positive, read-only (it is shared between calls).

    Raises
    ------
    OptionsError
        If the recipe is unknown.
    """
    match blending:
        case "gaussian":
            weights = gaussian(shape, sigma)
        case "nnunet":
            weights = nnunet(shape, sigma)
        case "cellpose":
            weights = taper(shape)
        case "constant" | "crop" | "seam":
            weights = np.ones(shape, dtype=np.float32)
        case _:
            raise OptionsError(f'Blending "{blending}" is unknown. Use gaussian, constant, nnunet, cellpose or crop.')
    weights.flags.writeable = False
    return weights


def gaussian(shape: tuple[int, ...], sigma: float = 0.125) -> NDArray[np.float32]:
    """Return MONAI's map: a Gaussian around ``(n - 1) / 2``, never below its own minimum or 0.001.

    Source: ``monai.data.utils.compute_importance_map``; equal but for the rounding of its float32 steps (2e-7 at most).
    """
    weights = np.ones((), dtype=np.float64)
    for size in shape:
        places = np.arange(size) - (size - 1) / 2
        weights = weights[..., None] * np.exp(places**2 / (-2 * (size * sigma) ** 2))
    return np.maximum(weights, FLOOR).astype(np.float32)


def nnunet(shape: tuple[int, ...], sigma: float = 0.125, scale: float = 10.0) -> NDArray[np.float32]:
    """Return nnU-Net's map: a point at ``n // 2``, blurred, its largest value made `scale`.

    nnU-Net keeps the map in half precision, where its far corners round to zero and are set to the least weight that does
    not: the values here are those, because neighbours weigh little more than the corners do.

    Source: ``nnunetv2.inference.sliding_window_prediction.compute_gaussian`` and the arguments its predictor uses.
    """
    weights = np.ones((), dtype=np.float64)
    for size in shape:
        point = np.zeros(size)
        point[size // 2] = 1
        bell = gaussian_filter1d(point, size * sigma, mode="constant", cval=0)
        weights = weights[..., None] * bell
    weights *= scale / weights.max()
    rounded = weights.astype(np.float32).astype(np.float16).astype(np.float32)
    rounded[rounded == 0] = rounded[rounded > 0].min()
    return rounded


def taper(shape: tuple[int, ...], *, width: float = 7.5, inset: float = 20.0) -> NDArray[np.float32]:
    """Return Cellpose's map: flat, falling off towards the border as a logistic function of the distance from the middle.

    One half is reached `inset` pixels from the border of a square that is as large as the longest side, 224 pixels at least; smaller
    sides lie in its middle.

    Source: Cellpose's ``transforms.average_tiles`` and Stringer et al., Nature Methods 18 (2021), 100.
    """
    size = max(224, *shape)
    places = np.abs(np.arange(size) - (size - 1) / 2)
    fall = 1 / (1 + np.exp((places - (size / 2 - inset)) / width))
    weights = np.ones((), dtype=np.float64)
    for side in shape:
        first = size // 2 - side // 2
        weights = weights[..., None] * fall[first : first + side]
    return weights.astype(np.float32)
