"""Scores to classes: the most likely one of each pixel, or one mask per class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_tileseg.engine.tiles import Tile

__all__ = ["Classes", "Decoder", "Masks", "argmax", "masks"]


def argmax(scores: torch.Tensor) -> torch.Tensor:
    """Return the channel with the largest score; of equal ones the first.

    A running maximum over the channels: ten times faster than ``torch.argmax`` over a leading axis.

    Parameters
    ----------
    scores : torch.Tensor of float32, shape (K, ...)
        ``scores[0]`` is overwritten.

    Returns
    -------
    torch.Tensor of uint8 (int32 above 256 channels), shape (...)
    """
    best = scores[0]
    labels = torch.zeros(best.shape, dtype=torch.uint8 if len(scores) <= 256 else torch.int32, device=scores.device)
    larger = torch.empty(best.shape, dtype=torch.bool, device=scores.device)
    for index in range(1, len(scores)):
        torch.gt(scores[index], best, out=larger)
        labels.masked_fill_(larger, index)
        if index + 1 < len(scores):
            torch.maximum(best, scores[index], out=best)
    return labels


def masks(scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return where the sigmoid of each score is at least `threshold`.

    Parameters
    ----------
    scores : torch.Tensor of float32, shape (K, ...)
        Raw scores; overwritten with their sigmoid.
    threshold : float
        From 0 to 1.

    Returns
    -------
    torch.Tensor of bool, shape (K, ...)
    """
    return scores.sigmoid_().ge(threshold)


class Decoder(Protocol):
    """Takes finished scores in order along the first axis and gives finished labels, sooner or later."""

    @property
    def normalized(self) -> bool:
        """Whether the scores must be averages; weighted sums suffice otherwise."""
        ...

    @property
    def objects(self) -> int | None:
        """Number of objects given so far; None where there are none."""
        ...

    @property
    def voxels(self) -> dict[str, int]:
        """Pixels of each class given so far."""
        ...

    def add(self, region: Tile, scores: torch.Tensor) -> Iterator[tuple[Tile, NDArray[Any]]]:
        """Take scores of shape (K, *region.shape), which may be overwritten; yield what is final now."""
        ...

    def finish(self) -> Iterator[tuple[Tile, NDArray[Any]]]:
        """Yield what was held back; nothing follows."""
        ...

    def warnings(self) -> list[str]:
        """Return what the user should know and has not been told yet."""
        ...


class _PerPixel:
    """What decoders that look at one pixel at a time have in common."""

    objects: int | None = None

    def __init__(self, classes: list[str]) -> None:
        self._classes = classes
        self._counts = np.zeros(len(classes), dtype=np.int64)

    @property
    def voxels(self) -> dict[str, int]:
        return {name: int(count) for name, count in zip(self._classes, self._counts, strict=True)}

    def finish(self) -> Iterator[tuple[Tile, NDArray[Any]]]:
        return iter(())

    def warnings(self) -> list[str]:
        return []


class Classes(_PerPixel):
    """The most likely class of each pixel (softmax models)."""

    normalized = False  # every channel of a pixel has the same sum of weights

    def add(self, region: Tile, scores: torch.Tensor) -> Iterator[tuple[Tile, NDArray[Any]]]:
        labels = argmax(scores)
        self._counts += torch.bincount(labels.flatten(), minlength=len(self._classes)).cpu().numpy()
        array = labels.cpu().numpy()
        yield region, array if array.dtype == np.uint8 else array.astype(np.uint16)


class Masks(_PerPixel):
    """One mask per class (sigmoid models); they may overlap."""

    normalized = True

    def __init__(self, classes: list[str], threshold: float) -> None:
        super().__init__(classes)
        self._threshold = threshold

    def add(self, region: Tile, scores: torch.Tensor) -> Iterator[tuple[Tile, NDArray[Any]]]:
        found = masks(scores, self._threshold)
        self._counts += found.flatten(1).sum(1).cpu().numpy()
        yield region, found.cpu().numpy()
