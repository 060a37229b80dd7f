"""``VNet2d`` and ``VNetPaper``: V-Nets, in the layout of a later version for planes and in that of the paper.

Source: F. Milletari, N. Navab, S. Ahmadi, V-Net: fully convolutional neural networks for volumetric medical image segmentation, 3DV
2016 (arXiv:1606.04797).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from napari_tileseg.models.nets.layers import BATCH_NORM, CONV, UP_CONV, draw_filters
from napari_tileseg.models.nets.sizes import check_sides

__all__ = ["VNet2d", "VNetPaper", "vnet2d_paper"]

_WIDTH = 16


class VNet2d(nn.Module):
    """A V-Net for planes that halves the width with every step up, and normalises each batch.

    Each stage of convolutions of width 5 is added to what came into it; on the way up only the upsampled half is added, not what is
    joined to it.

    Parameters
    ----------
    in_channels, out_channels : int
    stages : int
        Number of levels; sides are multiples of ``2 ** (stages - 1)``.
    features : int
        Width of the first level; each has twice the width of the one above it.
    dropout : float
        Share of the values of each stage that are dropped in training, before they are handed across.
    bias : bool
        Whether convolutions have a bias, although a normalisation follows.

    Raises
    ------
    ValueError
        If there are fewer than two stages.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        out_channels: int = 2,
        stages: int = 5,
        features: int = _WIDTH,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if stages < 2:
            raise ValueError("two stages are the least")
        self.stages = stages
        widths = [features * 2**level for level in range(stages)]
        counts = [min(level, 3) for level in range(1, stages + 1)]

        def unit(before: int, after: int, size: int = 5, stride: int = 1) -> nn.Sequential:
            padding = size // 2 if stride == 1 else 0
            return _unit(nn.Conv2d(before, after, size, stride, padding, bias=bias), after)

        def up(before: int, after: int) -> nn.Sequential:
            return _unit(nn.ConvTranspose2d(before, after, 2, 2, bias=bias), after)

        self.stem = unit(in_channels, features)
        self.left = nn.ModuleList(
            nn.Sequential(*(unit(width, width) for _ in range(count))) for width, count in zip(widths, counts, strict=True)
        )
        self.left_activations = nn.ModuleList(nn.PReLU(width) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.downs = nn.ModuleList(unit(above, below, 2, 2) for above, below in pairwise(widths))
        self.ups = nn.ModuleList(up(below, above) for above, below in pairwise(widths))
        self.right = nn.ModuleList(
            nn.Sequential(*(unit(width if index else 2 * width, width) for index in range(count)))
            for width, count in zip(widths[:-1], counts[:-1], strict=True)
        )
        self.right_activations = nn.ModuleList(nn.PReLU(width) for width in widths[:-1])
        self.head = nn.Conv2d(features, out_channels, 1)
        draw_filters(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, Y, X) to raw scores (B, out_channels, Y, X).

        Raises
        ------
        ModelError
            If a side is no multiple of ``2 ** (stages - 1)``.
        """
        check_sides("vnet2d", x.shape[2:], 2 ** (self.stages - 1))
        x = self.stem(x)
        skips = []
        for level in range(self.stages):
            if level:
                x = self.downs[level - 1](x)
            x = self.dropout(self.left_activations[level](self.left[level](x) + x))
            skips.append(x)
        for level in range(self.stages - 2, -1, -1):
            x = self.ups[level](x)
            x = self.right_activations[level](self.right[level](torch.cat([skips[level], x], dim=1)) + x)
        scores: Tensor = self.head(x)
        return scores


class VNetPaper(nn.Module):
    """The V-Net of the paper: its decoder is as wide as what it joins, and adds all of that.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the image are repeated in turn to the 16 maps that the first convolution is added to.
    spatial_dims : int
        3, or 2 for the same network for planes.
    norm : bool
        Batch normalisation after each convolution, which the paper does not have.
    dropout : float
        Share of the values of each stage that are dropped in training.

    Raises
    ------
    ValueError, KeyError
        If there are more than 16 channels, or another number of axes.
    """

    def __init__(
        self, *, in_channels: int = 1, out_channels: int = 2, spatial_dims: int = 3, norm: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if not 1 <= in_channels <= _WIDTH:
            raise ValueError(f"from 1 to {_WIDTH} channels are taken")
        self.in_channels = in_channels

        def conv(before: int, after: int, size: int = 5, stride: int = 1) -> list[nn.Module]:
            layer = CONV[spatial_dims](before, after, size, stride, size // 2 if stride == 1 else 0)
            return [layer, BATCH_NORM[spatial_dims](after)] if norm else [layer]

        def stage(width: int, count: int, before: int = 0) -> nn.Sequential:
            layers = conv(before or width, width)
            for _ in range(count - 1):
                layers += [nn.PReLU(width), *conv(width, width)]
            return nn.Sequential(*layers)

        def up(before: int, after: int) -> nn.Sequential:
            layer = UP_CONV[spatial_dims](before, after, 2, 2)
            return nn.Sequential(layer, *([BATCH_NORM[spatial_dims](after)] if norm else []), nn.PReLU(after))

        left, right = (16, 32, 64, 128, 256), (32, 64, 128, 256)
        self.left = nn.ModuleList(
            stage(width, count, 0 if level else in_channels) for level, (width, count) in enumerate(zip(left, (1, 2, 3, 3, 3), strict=True))
        )
        self.left_activations = nn.ModuleList(nn.PReLU(width) for width in left)
        self.dropout = nn.Dropout(dropout)
        self.downs = nn.ModuleList(nn.Sequential(*conv(above, below, 2, 2), nn.PReLU(below)) for above, below in pairwise(left))
        self.ups = nn.ModuleList(up(below, width // 2) for below, width in zip((*right[1:], left[-1]), right, strict=True))
        self.right = nn.ModuleList(stage(width, count) for width, count in zip(right, (1, 2, 3, 3), strict=True))
        self.right_activations = nn.ModuleList(nn.PReLU(width) for width in right)
        self.head = CONV[spatial_dims](right[0], out_channels, 1)
        draw_filters(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels, *spatial) to raw scores (B, out_channels, *spatial).

        Raises
        ------
        ModelError
            If a side is no multiple of 16.
        """
        check_sides("vnet_paper", x.shape[2:], 16)
        skips: list[Tensor] = []
        for level, stage in enumerate(self.left):
            if level:
                x = self.downs[level - 1](x)
            shortcut = x if level else x.repeat(1, -(-_WIDTH // self.in_channels), *(1,) * (x.ndim - 2))[:, :_WIDTH]
            x = self.dropout(self.left_activations[level](stage(x) + shortcut))
            skips.append(x)
        for level in range(len(self.right) - 1, -1, -1):
            joined = torch.cat([self.ups[level](x), skips[level]], dim=1)
            x = self.dropout(self.right_activations[level](self.right[level](joined) + joined))
        scores: Tensor = self.head(x)
        return scores


def vnet2d_paper(*, in_channels: int = 1, out_channels: int = 2, norm: bool = True, dropout: float = 0.0) -> VNetPaper:
    """Build the V-Net of the paper for planes; parameters as `VNetPaper`."""
    return VNetPaper(in_channels=in_channels, out_channels=out_channels, spatial_dims=2, norm=norm, dropout=dropout)


def _unit(layer: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(width), nn.PReLU(width))
