"""``Above`` and ``Anomalies``: what is abnormal in an image, where a model gives one score that grows with how strange a pixel is.

The model's card says which score is too high: ``decoder_parameters["threshold"]``. The option `threshold`, from 0 to 1, turns this up and
down: the limit is twice the option times the card's threshold, so that one half means what the card says. ``median``, an odd number of
pixels, smooths the scores first; ``min_size``, pixels, leaves out smaller places. Where neither is asked for, every pixel is decided by
itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from napari_tileseg.engine.decode import PerPixel
from napari_tileseg.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from napari_tileseg.engine.tiles import Tile

__all__ = ["Above", "Anomalies", "Smooth", "limit_of", "whole"]


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


class Above(PerPixel):
    """Class 1 where the score is at least a limit, pixel by pixel."""

    normalized = True

    def __init__(self, classes: list[str], limit: float) -> None:
        super().__init__(classes)
        self._limit = limit

    def labels(self, shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.uint8, device=device)

    def decode(self, scores: torch.Tensor, out: torch.Tensor) -> None:
        out.copy_(scores[0] >= self._limit)

    def take(self, region: Tile, labels: torch.Tensor) -> Iterator[tuple[Tile, NDArray[Any]]]:
        self._counts += torch.bincount(labels.flatten(), minlength=2).cpu().numpy()
        yield region, labels.cpu().numpy()


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


class Anomalies(Objects):
    """Places found while the scores arrive, equal to those of the whole image; given as class 1, not by number."""

    @property
    def objects(self) -> None:
        """Places are not counted."""
        return

    def _emit(self, frontier: int) -> Iterator[tuple[Tile, NDArray[Any]]]:
        for region, labels in super()._emit(frontier):
            yield region, (labels > 0).astype(np.uint8)


def whole(
    scores: NDArray[np.float32], parameters: Mapping[str, float], *, threshold: float = 0.5, min_size: float = 0
) -> NDArray[np.uint8]:
    """Return the labels of a whole image at once, shape (*spatial), from scores of shape (1, *spatial)."""
    return (Smooth().decode(scores, parameters, threshold=threshold, min_size=min_size) > 0).astype(np.uint8)
