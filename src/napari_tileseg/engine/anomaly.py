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

from napari_tileseg.engine.decode import PerPixel
from napari_tileseg.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_tileseg.engine.tiles import Tile

__all__ = ["Above", "Anomalies"]


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


class Anomalies(Objects):
    """Places found while the scores arrive, equal to those of the whole image; given as class 1, not by number."""

    @property
    def objects(self) -> None:
        """Places are not counted."""
        return

    def _emit(self, frontier: int) -> Iterator[tuple[Tile, NDArray[Any]]]:
        for region, labels in super()._emit(frontier):
            yield region, (labels > 0).astype(np.uint8)
