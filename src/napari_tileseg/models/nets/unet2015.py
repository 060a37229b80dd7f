"""``UNet2015``: the first U-Net, with convolutions that lose the border, and the same network with padding.

Source: O. Ronneberger, P. Fischer, T. Brox, U-Net: convolutional networks for biomedical image segmentation, MICCAI 2015
(arXiv:1505.04597), figure 1.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from napari_tileseg.models.nets.layers import BATCH_NORM, CONV, MAX_POOL, UP_CONV, draw_filters
from napari_tileseg.models.nets.sizes import check_sides

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNet2015", "unet2015_same"]


class UNet2015(nn.Module):
    """Two convolutions of width 3 at each level, pooling on the way down, transposed convolutions on the way up.

    Parameters
    ----------
    in_channels, out_channels : int
    features : sequence of int
        Width of each level, the finest first.
    padding : {"valid", "same"}
        With "valid" a side of ``2^d k + 4 (2^d - 1)`` pixels, where d is the number of poolings, comes out shorter by ``6 * 2^d - 4`` at
        both of its ends: 572 become 388. With "same" sides are multiples of ``2^d`` and keep their length.
    norm : bool
        Batch normalisation after each convolution, which the paper does not have.
    dropout : float
        Share of the values of the lowest level that are dropped in training.
    spatial_dims : int
        2, or 3 for volumes.

    Raises
    ------
    ValueError, KeyError
        If there are fewer than two levels, or another number of axes.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 2,
        features: Sequence[int] = (64, 128, 256, 512, 1024),
        padding: Literal["valid", "same"] = "valid",
        norm: bool = False,
        dropout: float = 0.0,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        if len(features) < 2 or padding not in ("valid", "same"):
            raise ValueError('two levels are the least, and padding is "valid" or "same"')
        self.padding = padding
        self.depth = len(features) - 1
        border = 0 if padding == "valid" else 1

        def pair(before: int, after: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for width in (before, after):
                layers.append(CONV[spatial_dims](width, after, 3, padding=border))
                if norm:
                    layers.append(BATCH_NORM[spatial_dims](after))
                layers.append(nn.ReLU())
            return nn.Sequential(*layers)

        self.downs = nn.ModuleList(pair(before, after) for before, after in pairwise([in_channels, *features]))
        self.pool = MAX_POOL[spatial_dims](2)
        self.dropout = nn.Dropout(dropout)
        levels = list(pairwise(features))
        self.ups = nn.ModuleList(UP_CONV[spatial_dims](below, above, 2, stride=2) for above, below in levels)
        self.merges = nn.ModuleList(pair(2 * above, above) for above, _ in levels)
        self.head = CONV[spatial_dims](features[0], out_channels, 1)
        draw_filters(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, *spatial) to raw scores (B, out_channels, *output).

        Raises
        ------
        ModelError
            If a side has none of the lengths that the network takes.
        """
        step = 2**self.depth
        if self.padding == "valid":
            check_sides("unet2015", x.shape[2:], step, (4 * (step - 1)) % step, least=12 * step - 7)
        else:
            check_sides("unet2015_same", x.shape[2:], step)
        skips = []
        for down in self.downs[:-1]:
            skips.append(down(x))
            x = self.pool(skips[-1])
        x = self.dropout(self.downs[-1](x))
        for level in range(self.depth - 1, -1, -1):
            x = self.ups[level](x)
            x = self.merges[level](torch.cat([_middle(skips[level], x.shape[2:]), x], dim=1))
        scores: Tensor = self.head(x)
        return scores


def unet2015_same(
    *,
    in_channels: int = 1,
    out_channels: int = 2,
    features: Sequence[int] = (64, 128, 256, 512, 1024),
    norm: bool = False,
    dropout: float = 0.0,
    spatial_dims: int = 2,
) -> UNet2015:
    """Build the U-Net whose scores have the size of the image; parameters as `UNet2015`."""
    return UNet2015(
        in_channels=in_channels,
        out_channels=out_channels,
        features=features,
        padding="same",
        norm=norm,
        dropout=dropout,
        spatial_dims=spatial_dims,
    )


def _middle(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return the middle of an image (B, C, *spatial); each axis is cut on its own."""
    for axis, length in enumerate(size, start=2):
        x = x.narrow(axis, (x.shape[axis] - length) // 2, length)
    return x
