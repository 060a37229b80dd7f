"""``AutoEncoder``, ``ConvAutoEncoder`` and ``VariationalAutoEncoder``: images into few numbers and back.

What they have not learnt to bring back is unusual, which is how they find defects without labels. Images are scaled to [-1, 1].

Sources: G. Hinton, R. Salakhutdinov, Reducing the dimensionality of data with neural networks, Science 313, 2006; D. Kingma,
M. Welling, Auto-encoding variational Bayes, ICLR 2014 (arXiv:1312.6114).
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_tileseg.models.sides import next_side

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AutoEncoder", "ConvAutoEncoder", "VariationalAutoEncoder"]


class AutoEncoder(nn.Module):
    """Fully connected layers down to a code of three numbers and up again.

    Parameters
    ----------
    in_channels : int
    size : pair of int
        Height and width, which are fixed.
    features : sequence of int
        Widths of the layers on the way down; the last one is the code.
    """

    def __init__(self, *, in_channels: int = 1, size: Sequence[int] = (28, 28), features: Sequence[int] = (128, 64, 12, 3)) -> None:
        super().__init__()
        widths = [in_channels * math.prod(size), *features]
        self.encoder = _dense(widths)
        self.decoder = nn.Sequential(*_dense(widths[::-1]), nn.Tanh())

    def encode(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) to codes (B, features[-1])."""
        code: Tensor = self.encoder(x.flatten(1))
        return code

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) to what their codes bring back, in the same shape."""
        image: Tensor = self.decoder(self.encode(x))
        return image.reshape(x.shape)


class ConvAutoEncoder(nn.Module):
    """Two convolutions with pooling, and three transposed convolutions back.

    Parameters
    ----------
    in_channels : int
    """

    multiple_of, remainder = 12, 4
    """Sides of 12 m + 4 come back as long as they were; others are padded inside and cut."""

    def __init__(self, *, in_channels: int = 1) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, stride=3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, stride=2),
            nn.Conv2d(16, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, stride=1),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 3, stride=2),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 5, stride=3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, in_channels, 2, stride=2, padding=1),
            nn.Tanh(),
        )

    def encode(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) to codes (B, 8, m, m) for sides of 12 m + 4; a side of 4 has none."""
        missing = [max(next_side(side, self.multiple_of, self.remainder), 16) - side for side in x.shape[2:]]
        padded = F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate") if any(missing) else x
        code: Tensor = self.encoder(padded)
        return code

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) to what their codes bring back, in the same shape."""
        image: Tensor = self.decoder(self.encode(x))
        return image[:, :, : x.shape[2], : x.shape[3]]


class VariationalAutoEncoder(nn.Module):
    """An autoencoder whose code is a normal distribution.

    Parameters
    ----------
    in_channels : int
    size : pair of int
        Height and width, which are fixed.
    features : int
        Width of the hidden layers.
    latent : int
        Numbers of the code.
    """

    def __init__(self, *, in_channels: int = 1, size: Sequence[int] = (28, 28), features: int = 400, latent: int = 20) -> None:
        super().__init__()
        self.image_shape = (in_channels, *size)
        pixels = math.prod(self.image_shape)
        self.latent = latent
        self.encoder = nn.Sequential(nn.Linear(pixels, features), nn.ReLU())
        self.mean = nn.Linear(features, latent)
        self.log_variance = nn.Linear(features, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, features), nn.ReLU(), nn.Linear(features, pixels), nn.Tanh())

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (B, C, Y, X) to means and logarithms of variances, each (B, latent)."""
        hidden = self.encoder(x.flatten(1))
        return self.mean(hidden), self.log_variance(hidden)

    def draw(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Draw codes (B, latent) that gradients pass through."""
        return mean + (log_variance / 2).exp() * torch.randn_like(mean)

    def decode(self, code: Tensor) -> Tensor:
        """Map codes (B, latent) to images (B, C, Y, X)."""
        image: Tensor = self.decoder(code)
        return image.reshape(-1, *self.image_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Map images to what their codes bring back: of drawn codes in training, of the means otherwise."""
        mean, log_variance = self.encode(x)
        return self.decode(self.draw(mean, log_variance) if self.training else mean).reshape(x.shape)


def _dense(widths: Sequence[int]) -> nn.Sequential:
    """Return linear layers with rectifiers between them, and none after the last."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
