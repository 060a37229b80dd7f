"""``StarDistUNet``: the U-Nets of StarDist in 2D and 3D, with layers named as in their Keras files.

Schmidt et al., MICCAI 2018, and Weigert et al., WACV 2020: a U-Net, on images halved to a grid first, gives for each pixel of that
grid the probability that it lies in an object, and how far it is to the object's border along each ray.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_tileseg.errors import ModelError
from napari_tileseg.models.loaders.stardist_config import halvings

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["NOWHERE", "StarDistUNet"]

NOWHERE = -100.0
"""Logit of an object at pixels beside the grid."""

_ACTIVATIONS = {"relu": nn.ReLU, "elu": nn.ELU, "linear": nn.Identity, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "selu": nn.SELU}


class StarDistUNet(nn.Module):
    """Maps images to the logit of an object and to distances.

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    in_channels : int
        Channels of the image.
    rays : int
        Distances for each pixel.
    grid : sequence of int
        Pixels of the image along one of the output, powers of 2.
    depth : int
        How often the U-Net halves.
    kernel_size, pool : sequence of int
        Of its convolutions (odd), and of its poolings.
    filters : int
        Features at its full size.
    convolutions : int
        At each of its levels.
    activation, last_activation : str
        As Keras calls them.
    batch_norm : bool
        Whether the U-Net's convolutions are followed by batch normalisation.
    expansion : float
        By how much features grow from level to level.
    features : int
        Of the convolution after the U-Net; 0: there is none.
    prefix : str
        Before the names of the U-Net's layers.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        rays: int = 32,
        grid: Sequence[int] = (1, 1),
        depth: int = 3,
        kernel_size: Sequence[int] = (3, 3),
        pool: Sequence[int] = (2, 2),
        filters: int = 32,
        convolutions: int = 2,
        activation: str = "relu",
        last_activation: str = "relu",
        batch_norm: bool = False,
        expansion: float = 2,
        features: int = 128,
        prefix: str = "",
    ) -> None:
        super().__init__()
        unknown = next((name for name in (activation, last_activation) if name not in _ACTIVATIONS), None)
        if unknown is not None:
            raise ModelError(f'The activation "{unknown}" is not known. Known are {", ".join(_ACTIVATIONS)}.')
        self.grid, self.pool, self.depth, self.convolutions, self.prefix = tuple(grid), tuple(pool), depth, convolutions, prefix
        kind: Any = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        norm: Any = nn.BatchNorm2d if spatial_dims == 2 else nn.BatchNorm3d

        def block(inputs: int, outputs: int, *, act: str = activation, normed: bool = batch_norm) -> nn.Module:
            module = nn.Module()
            module.conv = kind(inputs, outputs, tuple(kernel_size), padding=tuple(size // 2 for size in kernel_size))
            module.norm = norm(outputs, eps=1e-3) if normed else nn.Identity()
            module.act = _ACTIVATIONS[act]()
            return module

        self.halvings = halvings(self.grid)
        self.stem = nn.ModuleList()
        width = in_channels
        for _ in range(len(self.halvings) * convolutions):
            self.stem.append(block(width, filters, normed=False))
            width = filters
        self.blocks = nn.ModuleDict()
        levels = [int(filters * expansion**level) for level in range(depth + 1)]
        for level in range(depth):
            for index in range(convolutions):
                self.blocks[f"down_level_{level}_no_{index}"] = block(width, levels[level])
                width = levels[level]
        for index in range(convolutions - 1):
            self.blocks[f"middle_{index}"] = block(width, levels[depth])
            width = levels[depth]
        self.blocks[f"middle_{convolutions}"] = block(width, levels[max(0, depth - 1)])
        width = levels[max(0, depth - 1)]
        for level in reversed(range(depth)):
            width += levels[level]
            for index in range(convolutions - 1):
                self.blocks[f"up_level_{level}_no_{index}"] = block(width, levels[level])
                width = levels[level]
            last = activation if level else last_activation
            self.blocks[f"up_level_{level}_no_{convolutions}"] = block(width, levels[max(0, level - 1)], act=last)
            width = levels[max(0, level - 1)]
        self.features = block(width, features, normed=False) if features else nn.Identity()
        width = features or width
        self.prob, self.dist = kind(width, 1, 1), kind(width, rays, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logit and the distances, shape (B, 1 + rays, *spatial), of images, shape (B, C, *spatial).

        What the network gives for a pixel of the grid stands at the first of its pixels; the others have the logit `NOWHERE`.
        """
        size = x.shape[2:]
        max_pool = nn.functional.max_pool2d if x.ndim == 4 else nn.functional.max_pool3d
        stem = iter(self.stem)
        for halving in self.halvings:
            for _ in range(self.convolutions):
                x = _apply(next(stem), x)
            x = max_pool(x, halving)
        skips = []
        for level in range(self.depth):
            for index in range(self.convolutions):
                x = _apply(self.blocks[f"down_level_{level}_no_{index}"], x)
            skips.append(x)
            x = max_pool(x, self.pool)
        for index in [*range(self.convolutions - 1), self.convolutions]:
            x = _apply(self.blocks[f"middle_{index}"], x)
        for level in reversed(range(self.depth)):
            x = nn.functional.interpolate(x, scale_factor=[float(by) for by in self.pool], mode="nearest")
            x = torch.cat([x, skips[level]], 1)
            for index in [*range(self.convolutions - 1), self.convolutions]:
                x = _apply(self.blocks[f"up_level_{level}_no_{index}"], x)
        x = _apply(self.features, x) if not isinstance(self.features, nn.Identity) else x
        scores = torch.cat([self.prob(x), self.dist(x)], 1)
        if math.prod(self.grid) == 1:
            return scores
        spread = scores.new_zeros(*scores.shape[:2], *size)
        spread[:, 0] = NOWHERE
        first: Any = (..., *(slice(None, None, step) for step in self.grid))
        spread[first] = scores
        return spread


def _apply(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = block.act(block.norm(block.conv(x)))  # type: ignore[operator]
    return result
