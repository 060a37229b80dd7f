"""``ResidualUNet``: a small residual U-Net whose costly levels run at half resolution, in 2D and 3D."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ResidualBlock", "ResidualUNet"]

_CONV: dict[int, type[nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, type[nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM: dict[int, type[nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class ResidualBlock(nn.Module):
    """Two 3-wide convolutions, each with batch normalisation, around a shortcut (He et al., arXiv:1512.03385, figure 2).

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    in_channels, out_channels : int
        Where they differ, the shortcut is a convolution of width 1.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        conv, norm = _CONV[spatial_dims], _NORM[spatial_dims]
        self.body = nn.Sequential(
            conv(in_channels, out_channels, 3, padding=1, bias=False),
            norm(out_channels),
            nn.ReLU(inplace=True),
            conv(out_channels, out_channels, 3, padding=1, bias=False),
            norm(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity() if in_channels == out_channels else conv(in_channels, out_channels, 1, bias=False)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, *spatial) to (B, out_channels, *spatial)."""
        result: Tensor = self.activation(self.body(x) + self.shortcut(x))
        return result


class ResidualUNet(nn.Module):
    r"""A U-Net (Ronneberger et al., arXiv:1505.04597) of residual blocks with a thin level at full resolution.

    One narrow convolution looks at the full resolution; everything wide happens from half resolution down, and the narrow
    features come back at the very end, where they sharpen outlines. ::

        x -- stem ------------------------------------------- fuse -- head -- logits      1
               \-- level 0 ------------------------ level 0 --/                          1/2
                      \-- level 1 ------- level 1 --/                                    1/4
                             \-- ... bottom --/                                          1/2^n

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    in_channels, out_channels : int
        Channels of the input and of the raw scores.
    channels : sequence of int
        Width of each level from half resolution down; every side of the input must be a multiple of ``2 ** len(channels)``.
    stem_channels : int
        Width at full resolution.

    Raises
    ------
    ValueError, KeyError
        If there are no levels, or `spatial_dims` is neither 2 nor 3.
    """

    def __init__(
        self,
        *,
        spatial_dims: int = 2,
        in_channels: int = 1,
        out_channels: int = 2,
        channels: Sequence[int] = (32, 64, 96, 128, 192),
        stem_channels: int = 16,
    ) -> None:
        super().__init__()
        if not channels:
            raise ValueError("channels must name at least one width")
        conv, up, norm = _CONV[spatial_dims], _UP[spatial_dims], _NORM[spatial_dims]
        widths = [stem_channels, *channels]
        self.stem = nn.Sequential(conv(in_channels, stem_channels, 3, padding=1, bias=False), norm(stem_channels), nn.ReLU(inplace=True))
        self.downs = nn.ModuleList(conv(outer, inner, 2, stride=2) for outer, inner in pairwise(widths))
        self.encoders = nn.ModuleList(ResidualBlock(spatial_dims, width, width) for width in channels)
        self.ups = nn.ModuleList(up(inner, outer, 2, stride=2) for outer, inner in pairwise(widths))
        self.decoders = nn.ModuleList(ResidualBlock(spatial_dims, 2 * width, width) for width in channels[:-1])
        self.fuse = nn.Sequential(
            conv(2 * stem_channels, stem_channels, 3, padding=1, bias=False), norm(stem_channels), nn.ReLU(inplace=True)
        )
        self.head = conv(stem_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (B, in_channels, *spatial) to raw scores (B, out_channels, *spatial)."""
        full = self.stem(x)
        skips = []
        deep = full
        for down, encoder in zip(self.downs, self.encoders, strict=True):
            deep = encoder(down(deep))
            skips.append(deep)
        for level in range(len(self.decoders) - 1, -1, -1):
            deep = self.decoders[level](torch.cat([skips[level], self.ups[level + 1](deep)], dim=1))
        scores: Tensor = self.head(self.fuse(torch.cat([full, self.ups[0](deep)], dim=1)))
        return scores
