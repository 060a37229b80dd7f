"""``RoutingAttention``: attention of each region of an image to the few regions that matter most to it (arXiv:2303.08810)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

__all__ = ["FullAttention", "RoutingAttention"]

_FULL_HEADS = 8


class _Projection(nn.Module):
    """Queries, keys and values of one linear layer; the name of its weights is that of the official checkpoints."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        return query, key, value


class RoutingAttention(nn.Module):
    """Bi-level routing attention.

    Parameters
    ----------
    width : int
        Channels.
    heads : int
    routed : int
        Regions that each region attends to; all where there are fewer.
    regions : int, optional
        Regions per side; the image is padded with zeros where they do not divide it.
    size : int
        Pixels per side of a region, where `regions` is not given.
    """

    def __init__(self, width: int, heads: int, routed: int, regions: int | None, size: int) -> None:
        super().__init__()
        self.heads, self.routed, self.regions, self.size = heads, routed, regions, size
        self.scale = width**-0.5  # of all channels, not of a head's
        self.qkv = _Projection(width)
        self.lepe = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.wo = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, Y, X, C) to the same shape."""
        rows, columns = x.shape[1:3]
        down, across = (self.regions or -(-side // self.size) for side in (rows, columns))
        x = F.pad(x, (0, 0, 0, -columns % across, 0, -rows % down))
        query, key, value = self.qkv(x)
        local = self.lepe(rearrange(value, "b y x c -> b c y x"))
        query, key, value = (rearrange(part, "b (j h) (i w) c -> b (j i) (h w) c", j=down, i=across) for part in (query, key, value))
        chosen = self.route(query, key)
        batch = torch.arange(len(x), device=x.device)[:, None, None]
        key, value = (rearrange(part[batch, chosen], "b r k t (m c) -> b r m (k t) c", m=self.heads) for part in (key, value))
        query = rearrange(query, "b r t (m c) -> b r m t c", m=self.heads)
        found = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        height = x.shape[1] // down
        found = rearrange(found, "b (j i) m (h w) c -> b (j h) (i w) (m c)", j=down, h=height)
        result: Tensor = self.wo(found + rearrange(local, "b c y x -> b y x c"))
        return result[:, :rows, :columns]

    @torch.no_grad()
    def route(self, query: Tensor, key: Tensor) -> Tensor:
        """Return which regions (B, R, k) each region attends to, by the means of queries and keys (B, R, pixels, C)."""
        affinity = (query.mean(2) * self.scale) @ key.mean(2).transpose(1, 2)
        chosen: Tensor = affinity.topk(min(self.routed, affinity.shape[-1]), dim=-1).indices
        return chosen


class FullAttention(nn.Module):
    """Attention of each pixel to all, beside a depth-wise convolution of the same input.

    Parameters
    ----------
    width : int
        Channels, a multiple of 8.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)
        self.lepe = nn.Conv2d(width, width, 5, padding=2, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, Y, X, C) to the same shape."""
        parts = rearrange(self.qkv(x), "b y x (n m c) -> n b m (y x) c", n=3, m=_FULL_HEADS)
        found = F.scaled_dot_product_attention(*parts)
        found = rearrange(found, "b m (y x) c -> b y x (m c)", y=x.shape[1])
        local = rearrange(self.lepe(rearrange(x, "b y x c -> b c y x")), "b c y x -> b y x c")
        result: Tensor = self.proj(found + local)
        return result
