"""``limit_of``, ``Smooth`` and ``whole``: which scores are abnormal, decided with NumPy alone, so that looking again needs no torch.

See `anomaly` for what the card and the option `threshold` say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Smooth", "limit_of", "whole"]


def limit_of(parameters: Mapping[str, float], threshold: float) -> float:
    """Return the least score that is abnormal.

    Parameters
    ----------
    parameters : mapping
        ``decoder_parameters`` of the card.
    threshold : float
        The option, 0 to 1.
    """
    return 2 * threshold * parameters["threshold"]


class Smooth:
    """Decodes places as `Objects` wants it (see `decoders.ObjectDecoder`): a median, a limit, and a least size."""

    def margin(self, parameters: Mapping[str, float]) -> int:
        """Return twice how far the median reaches: where scores are cut off, the rows next to a place must be right too."""
        return 2 * (int(parameters.get("median", 1)) // 2)

    def foreground(self, scores: NDArray[np.float32], parameters: Mapping[str, float], threshold: float = 0.5) -> NDArray[np.bool_]:
        """Return where the smoothed score is at least the limit; beyond the border the image is mirrored."""
        reach = self.margin(parameters) // 2
        smooth = ndimage.median_filter(scores[0], 2 * reach + 1, mode="reflect") if reach else scores[0]
        found: NDArray[np.bool_] = smooth >= limit_of(parameters, threshold)
        return found

    def decode(
        self, scores: NDArray[np.float32], parameters: Mapping[str, float], *, threshold: float = 0.5, min_size: float = 0
    ) -> NDArray[Any]:
        """Return the connected places (corners count) that are large enough, numbered from 1."""
        found = self.foreground(scores, parameters, threshold)
        labels, count = ndimage.label(found, np.ones((3,) * found.ndim, bool))
        small = np.bincount(labels.ravel(), minlength=count + 1) < max(min_size, parameters.get("min_size", 0))
        small[0] = False
        labels[small[labels]] = 0
        return np.asarray(labels)


def whole(
    scores: NDArray[np.float32], parameters: Mapping[str, float], *, threshold: float = 0.5, min_size: float = 0
) -> NDArray[np.uint8]:
    """Return the labels of a whole image at once, shape (*spatial), from scores of shape (1, *spatial)."""
    return (Smooth().decode(scores, parameters, threshold=threshold, min_size=min_size) > 0).astype(np.uint8)
