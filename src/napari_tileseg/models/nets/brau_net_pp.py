"""``BRAUNetPP``: BRAU-Net++, a U-Net of bi-level routing attention, with the names of the weights of its official checkpoints.

Sources: L. Lan et al., BRAU-Net++: U-shaped hybrid CNN-transformer network for medical image segmentation (arXiv:2401.00722);
L. Zhu et al., BiFormer: vision transformer with bi-level routing attention, CVPR 2023 (arXiv:2303.08810).

Tensors are (B, Y, X, C) inside, so that images need not be square.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from napari_tileseg.models.nets.layers import DropPath
from napari_tileseg.models.nets.routing import FullAttention, RoutingAttention
from napari_tileseg.models.nets.sizes import check_sides

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BRAUNetPP"]

_HEAD = 32
_DEPTHS = (2, 2, 8, 2)
_ROUTED = (2, 4, 8)
"""Regions that each region attends to, by level."""
_MLP = 3
_NORM_EPS = 1e-6
_STEP = 32


class _Block(nn.Module):
    """Position by a depth-wise convolution, attention and two linear layers, each beside a shortcut."""

    def __init__(self, width: int, attention: nn.Module, drop: float, *, legacy: bool) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = attention
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, _MLP * width), nn.Identity(), nn.GELU(), nn.Linear(_MLP * width, width))
        self.drop_path = DropPath(drop)
        self.legacy = legacy

    def forward(self, x: Tensor) -> Tensor:
        if self.legacy:
            x = self.norm1(x)  # the official program does so, and its weights were trained with it
        x = x + rearrange(self.pos_embed(rearrange(x, "b y x c -> b c y x")), "b c y x -> b y x c")
        x = x + self.drop_path(self.attn(self.norm1(x)))
        result: Tensor = x + self.drop_path(self.mlp(self.norm2(x)))
        return result


class _Expand(nn.Module):
    """A linear layer whose channels become pixels: rows slowest, then columns, then what is left of the channels."""

    def __init__(self, width: int, factor: int, left: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, factor * factor * left, bias=False)
        self.norm = nn.LayerNorm(left)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(rearrange(self.expand(x), "b y x (p q c) -> b (y p) (x q) c", p=self.factor, q=self.factor))
        return result


class _UpStage(nn.Module):
    """Blocks of one level of the way up, and the step to the next."""

    def __init__(self, blocks: nn.ModuleList, width: int, *, last: bool) -> None:
        super().__init__()
        self.blocks = blocks
        if not last:
            self.upsample = _Expand(width, 2, width // 2)
        self._last = last

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self._last else self.upsample(x)


class _SkipAttention(nn.Module):
    """Attention over the channels, then over the places, of what comes up joined with what comes across."""

    def __init__(self, width: int, *, legacy: bool) -> None:
        super().__init__()
        less = width // 4
        self.channel_attention = nn.Sequential(nn.Linear(width, less), nn.ReLU(), nn.Linear(less, width))
        self.spatial_attention = nn.Sequential(
            nn.Conv2d(width, less, 7, padding=3),
            nn.BatchNorm2d(less),
            nn.ReLU(),
            nn.Conv2d(less, width, 7, padding=3),
            nn.BatchNorm2d(width),
        )
        self.legacy = legacy

    def forward(self, x: Tensor) -> Tensor:
        weight = self.channel_attention(x)
        x = x * (weight if self.legacy else weight.sigmoid())
        x = rearrange(x, "b y x c -> b c y x")
        x = x * self.spatial_attention(x).sigmoid()
        return rearrange(x, "b c y x -> b y x c")


class BRAUNetPP(nn.Module):
    """BRAU-Net++.

    Parameters
    ----------
    in_channels : int
        One channel is repeated where the network has more.
    out_channels : int
    legacy : bool
        What the official program computes, for its checkpoints: each block begins with a normalisation, so that nothing passes it by;
        attention over channels has no sigmoid; the lowest blocks are there and never used. False is what the paper describes, for
        training and for the encoder of BiFormer.
    regions : int, optional
        Regions per side that attention chooses from; an image that they do not divide is padded with zeros inside. By default regions
        hold 8 x 8 pixels of the first level, which always divide it: 7 of them at 224 and 8 at 256 pixels, as in the paper.
    bottleneck : bool
        Whether there are blocks at the lowest level.
    width : int
        Channels of the first level, a multiple of 32.
    depths : sequence of int
        Blocks of each of the four levels; those above the lowest count for the way up too.
    drop_path : float
        Share of images that leave out the last block's branches in training; earlier blocks have less of it.

    Raises
    ------
    ValueError
        If the width is no multiple of 32, or there are not four depths.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 2,
        legacy: bool = False,
        regions: int | None = None,
        bottleneck: bool = True,
        width: int = 96,
        depths: Sequence[int] = _DEPTHS,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        if width < 1 or width % _HEAD or len(depths) != len(_DEPTHS) or (regions is not None and regions < 1):
            raise ValueError(f"width must be a multiple of {_HEAD}, depths four numbers, and regions at least 1")
        self.in_channels = in_channels
        self.legacy = legacy
        widths = [width * 2**level for level in range(4)]

        def blocks(level: int, drops: Sequence[float]) -> nn.ModuleList:
            wide = widths[level]
            made = []
            for drop in drops:
                attention = (
                    FullAttention(wide) if level == 3 else RoutingAttention(wide, wide // _HEAD, _ROUTED[level], regions, 8 // 2**level)
                )
                made.append(_Block(wide, attention, drop, legacy=legacy))
            return nn.ModuleList(made)

        half = width // 2
        first = nn.Sequential(
            nn.Conv2d(in_channels, half, 3, 2, 1), nn.BatchNorm2d(half), nn.GELU(), nn.Conv2d(half, width, 3, 2, 1), nn.BatchNorm2d(width)
        )
        merges = [nn.Sequential(nn.Conv2d(above, below, 3, 2, 1), nn.BatchNorm2d(below)) for above, below in pairwise(widths)]
        self.downsample_layers = nn.ModuleList([first, *merges])
        rates = _rates(drop_path, sum(depths))
        ends = [sum(depths[: level + 1]) for level in range(4)]
        kept = 4 if bottleneck else 3
        self.stages = nn.ModuleList(
            blocks(level, rates[end - count : end]) for level, (end, count) in enumerate(zip(ends[:kept], depths, strict=False))
        )
        levels = (2, 1, 0)
        self.layers_up = nn.ModuleList(
            [
                _Expand(widths[3], 2, widths[2]),
                *(_UpStage(blocks(level, _rates(drop_path, depths[level])), widths[level], last=not level) for level in levels),
            ]
        )
        # Number 0 has no weights; the official names begin with 1.
        self.concat_back_dim = nn.ModuleList([nn.Identity(), *(nn.Linear(2 * widths[level], widths[level]) for level in levels)])
        self.sccsa1, self.sccsa2, self.sccsa3 = (_SkipAttention(2 * wide, legacy=legacy) for wide in widths[:3])
        self.norm_up = nn.LayerNorm(width)
        self.up4 = _Expand(width, 4, width)
        self.output = nn.Conv2d(width, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, in_channels or 1, Y, X) to raw scores (B, out_channels, Y, X).

        Raises
        ------
        ModelError
            If a side is no multiple of 32.
        """
        check_sides("brau_net_pp", x.shape[2:], _STEP)
        if x.shape[1] == 1:
            x = x.expand(-1, self.in_channels, -1, -1)
        skips: list[Tensor] = []
        for level, merge in enumerate(self.downsample_layers):
            x = rearrange(merge(x), "b c y x -> b y x c")
            if level == 3 and (self.legacy or len(self.stages) == 3):
                break
            for block in cast("nn.ModuleList", self.stages[level]):
                x = block(x)
            skips.append(x)
            x = rearrange(x, "b y x c -> b c y x")
        if len(skips) == 4:
            x = skips[3]
        x = self.layers_up[0](x)
        for index, attention in enumerate((self.sccsa3, self.sccsa2, self.sccsa1), start=1):
            joined = attention(torch.cat([x, skips[3 - index]], dim=-1))
            x = self.layers_up[index](self.concat_back_dim[index](joined))
        x = self.up4(self.norm_up(x))
        scores: Tensor = self.output(rearrange(x, "b y x c -> b c y x"))
        return scores


def _rates(last: float, count: int) -> list[float]:
    """Return numbers that grow evenly from 0 to the last."""
    return [last * index / max(count - 1, 1) for index in range(count)]
