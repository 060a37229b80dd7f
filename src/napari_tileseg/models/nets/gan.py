"""Generators, which make images of noise, and discriminators, which tell them from real ones.

Images are scaled to [-1, 1]. Discriminators return raw scores; that of the last but one layer are their ``features``.

Sources: I. Goodfellow et al., Generative adversarial nets, NeurIPS 2014 (arXiv:1406.2661); X. Mao et al., Least squares generative
adversarial networks, ICCV 2017 (arXiv:1611.04076), which has the same layers; A. Radford et al., Unsupervised representation learning
with deep convolutional GANs, ICLR 2016 (arXiv:1511.06434), with pooling and fully connected layers here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DCGANDiscriminator", "DCGANGenerator", "GANDiscriminator", "GANGenerator"]

_SIZE = (28, 28)
_NOISE = 96


class _Discriminator(nn.Module):
    trunk: nn.Sequential
    head: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) to features (B, width of the last but one layer)."""
        found: Tensor = self.trunk(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) to raw scores (B, 1), high for what looks real."""
        score: Tensor = self.head(self.features(x))
        return score


class _Generator(nn.Module):
    layers: nn.Sequential
    image_shape: tuple[int, ...]
    noise: int

    def forward(self, noise: Tensor) -> Tensor:
        """Map noise (B, noise), uniform on [-1, 1], to images (B, C, Y, X)."""
        image: Tensor = self.layers(noise)
        return image.reshape(-1, *self.image_shape)


class GANDiscriminator(_Discriminator):
    """Two fully connected hidden layers.

    Parameters
    ----------
    in_channels : int
    size : pair of int
        Height and width, which are fixed.
    features : int
        Width of the hidden layers.
    """

    def __init__(self, *, in_channels: int = 1, size: Sequence[int] = _SIZE, features: int = 256) -> None:
        super().__init__()
        pixels = in_channels * math.prod(size)
        self.trunk = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, features), nn.LeakyReLU(0.2), nn.Linear(features, features), nn.LeakyReLU(0.2)
        )
        self.head = nn.Linear(features, 1)


class GANGenerator(_Generator):
    """Two fully connected hidden layers.

    Parameters
    ----------
    out_channels : int
    size : pair of int
        Height and width.
    noise : int
        Numbers that an image is made of.
    features : int
        Width of the hidden layers.
    """

    def __init__(self, *, out_channels: int = 1, size: Sequence[int] = _SIZE, noise: int = _NOISE, features: int = 1024) -> None:
        super().__init__()
        self.noise = noise
        self.image_shape = (out_channels, *size)
        self.layers = nn.Sequential(
            nn.Linear(noise, features),
            nn.ReLU(),
            nn.Linear(features, features),
            nn.ReLU(),
            nn.Linear(features, math.prod(self.image_shape)),
            nn.Tanh(),
        )


class DCGANDiscriminator(_Discriminator):
    """Two convolutions with pooling, and one hidden layer.

    Parameters
    ----------
    in_channels : int
    size : pair of int
        Height and width, at least 16, which are fixed.

    Raises
    ------
    ValueError
        If a side is too short for two convolutions.
    """

    def __init__(self, *, in_channels: int = 1, size: Sequence[int] = _SIZE) -> None:
        super().__init__()
        left = [((side - 4) // 2 - 4) // 2 for side in size]
        if min(left) < 1:
            raise ValueError("sides must have 16 pixels or more")
        width = 64 * math.prod(left)
        hidden = 1024  # as many as the paper's 28 x 28 pixels leave; larger images do not need more
        self.trunk = nn.Sequential(
            nn.Conv2d(in_channels, 32, 5),
            nn.LeakyReLU(0.01),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5),
            nn.LeakyReLU(0.01),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(width, hidden),
            nn.LeakyReLU(0.01),
        )
        self.head = nn.Linear(hidden, 1)


class DCGANGenerator(_Generator):
    """Two fully connected layers to a quarter of the size, and two transposed convolutions.

    Parameters
    ----------
    out_channels : int
    size : pair of int
        Height and width, multiples of 4.
    noise : int
        Numbers that an image is made of.

    Raises
    ------
    ValueError
        If a side is no multiple of 4.
    """

    def __init__(self, *, out_channels: int = 1, size: Sequence[int] = _SIZE, noise: int = _NOISE) -> None:
        super().__init__()
        if any(side < 4 or side % 4 for side in size):
            raise ValueError("sides must be multiples of 4")
        self.noise = noise
        self.image_shape = (out_channels, *size)
        start = (128, *(side // 4 for side in size))
        self.layers = nn.Sequential(
            nn.Linear(noise, 1024),
            nn.ReLU(),
            nn.BatchNorm1d(1024),
            nn.Linear(1024, math.prod(start)),
            nn.ReLU(),
            nn.BatchNorm1d(math.prod(start)),
            nn.Unflatten(1, start),
            nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(64),
            nn.ConvTranspose2d(64, out_channels, 4, stride=2, padding=1),
            nn.Tanh(),
        )
