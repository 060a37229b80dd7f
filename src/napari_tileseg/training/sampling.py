"""``Sampler``: draws batches of crops; batch number n is the same in every run with the same seed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_tileseg.errors import OptionsError
from napari_tileseg.training.augment import Augmentation, Crop, cut, random_field, random_matrix, recolor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.training.data import Example

__all__ = ["Batch", "Sampler"]


@dataclass(frozen=True)
class Batch:
    """Crops stacked.

    Parameters
    ----------
    image : Tensor of float32, shape (B, C, *size)
    labels : Tensor of int64, shape (B, *size), or of masks (B, K, *size)
    maps : Tensor of float32, shape (B, M, *size)
    zoom : Tensor of float32, shape (B,)
    names : tuple of str
        Which examples the crops are of.
    """

    image: Tensor
    labels: Tensor
    maps: Tensor
    zoom: Tensor
    names: tuple[str, ...] = ()


class Sampler:
    """Draws crops from examples, groups by given shares, half of them centred on an object.

    Parameters
    ----------
    examples : sequence of Example
    augmentation : Augmentation
    channels : int
        Channels of the network's input; one-channel crops are repeated. Crops have those of the images if None.
    batch : int
        Crops per batch.
    shares : mapping of str to float, optional
        Relative frequency of each group; as often as it has examples where missing altogether.
    centred : float
        Share of crops centred on a random pixel of a random object.
    by_size : float
        Within its group an image is drawn in proportion to its number of pixels to this power: 0 all equally often, 1 all pixels.
    only : sequence of int, optional
        Numbers of the crops of each batch that are drawn, where other processes draw the others; all if None.
    seed : int
    """

    def __init__(
        self,
        examples: Sequence[Example],
        augmentation: Augmentation,
        *,
        channels: int | None,
        batch: int,
        shares: Mapping[str, float] | None = None,
        centred: float = 0.5,
        by_size: float = 0.0,
        seed: int = 0,
        only: Sequence[int] | None = None,
    ) -> None:
        if not examples:
            raise OptionsError("There is nothing to train on: the list of examples is empty.")
        sizes = np.array([float(np.prod(example.image.shape[1:])) for example in examples]) ** by_size
        totals: dict[str, float] = {}
        for example, size in zip(examples, sizes, strict=True):
            totals[example.group] = totals.get(example.group, 0.0) + size
        groups = [example.group for example in examples]
        weights = sizes * [shares.get(group, 0.0) / totals[group] if shares else 1.0 for group in groups]
        if weights.sum() <= 0:
            raise OptionsError(f"No group has a share above 0. The groups are {', '.join(sorted(totals))}.")
        self.examples = list(examples)
        self.augmentation = augmentation
        self.channels = channels
        self.only = range(batch) if only is None else only
        self.centred = centred
        self.seed = seed
        self._probabilities = weights / weights.sum()

    def batch(self, number: int) -> Batch:
        """Draw batch `number`."""
        # Each crop has numbers of its own, so that it is the same whoever draws the others.
        drawn = [self._crop(np.random.default_rng([self.seed, number, crop])) for crop in self.only]
        crops = [crop for _, crop in drawn]
        images = [crop.image.expand(self.channels or len(crop.image), *crop.image.shape[1:]) for crop in crops]
        return Batch(
            torch.stack(images),
            torch.stack([crop.labels for crop in crops]),
            torch.stack([crop.maps for crop in crops]),
            torch.tensor([crop.zoom for crop in crops], dtype=torch.float32),
            tuple(name for name, _ in drawn),
        )

    def _crop(self, generator: np.random.Generator) -> tuple[str, Crop]:
        example = self.examples[generator.choice(len(self.examples), p=self._probabilities)]
        matrix, zoom = random_matrix(self.augmentation, generator)
        centre = self._centre(example, matrix, generator)
        a, field = self.augmentation, random_field(self.augmentation, generator)
        crop = cut(example, matrix, centre, a.size, zoom, field, padding=a.padding)
        return example.name, replace(crop, image=recolor(crop.image, self.augmentation, generator))

    def _centre(self, example: Example, matrix: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
        shape = np.asarray(example.image.shape[1:])
        target = generator.uniform(0, shape)
        highest = int(example.labels.max()) if example.places is None else 0
        if example.places is not None:
            target = self._drawn(example.places, target, generator)
        elif highest and generator.random() < self.centred:
            pixels = np.flatnonzero(example.labels == generator.integers(1, highest + 1))
            if len(pixels):
                target = np.array(np.unravel_index(generator.choice(pixels), example.labels.shape), dtype=float)
        return self._inside(target, shape, matrix)

    def _drawn(
        self, places: Mapping[int, NDArray[np.int32]], target: NDArray[np.float64], generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """Draw a class, and a pixel of it; where background is listed too, only listed pixels are known at all."""
        objects = [value for value in places if value]
        if objects and generator.random() < self.centred:
            chosen = places[objects[generator.integers(len(objects))]]
        elif 0 in places:
            chosen = places[list(places)[generator.integers(len(places))]]
        else:
            return target
        drawn: NDArray[np.float64] = chosen[generator.integers(len(chosen))].astype(np.float64)
        return drawn

    def _inside(self, target: NDArray[np.float64], shape: NDArray[np.int64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        # Inside the image as far as the crop allows: nothing is learnt from the void around it.
        reach = np.abs(matrix) @ ((np.asarray(self.augmentation.size) - 1) / 2)
        middle = (shape - 1) / 2
        low, high = np.minimum(reach, middle), np.maximum(shape - 1 - reach, middle)
        # The centre of an even crop lies between two pixels; so unturned crops are not blurred.
        return np.clip(np.floor(target) + (1 - np.asarray(self.augmentation.size) % 2) / 2, low, high)
