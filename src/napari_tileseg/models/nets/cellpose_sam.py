"""``CellposeSAM``: the transformer of Cellpose 4, with the names of weights that its files have.

Pachitariu, Rariden and Stringer, bioRxiv 2025.04.28.651001: the image encoder of Segment Anything (Kirillov et al., ICCV 2023) on
patches of 8 pixels instead of 16, with attention over the whole tile in every block; each patch then gives its pixels' scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CellposeSAM"]


class CellposeSAM(nn.Module):
    """Maps tiles of one size to the logit of a cell and to flows along Y and X.

    Parameters
    ----------
    window : int
        Side of a tile in pixels.
    patch : int
        Side of a patch.
    in_channels : int
        Channels of the image; those that an image lacks are 0.
    out_channels : int
        Score channels.
    width : int
        Features of a patch.
    heads : int
        Of every attention; leaves no trace in the weights but the size of `relative`.
    hidden : int
        Features between the two layers of a block.
    neck : int
        Features after the last block.
    relative : sequence of int
        For each block the number of distances that its embeddings of relative places were trained for; 0: it has none.
    """

    def __init__(
        self,
        window: int = 256,
        patch: int = 8,
        in_channels: int = 3,
        out_channels: int = 3,
        width: int = 1024,
        heads: int = 16,
        hidden: int = 4096,
        neck: int = 256,
        relative: Sequence[int] = (127,) * 24,
    ) -> None:
        super().__init__()
        self.encoder = _Encoder(window // patch, patch, in_channels, width, heads, hidden, neck, relative)
        self.out = nn.Conv2d(neck, out_channels * patch**2, 1)
        # From the features of a patch to its pixels; not trained.
        pixels = torch.eye(out_channels * patch**2).reshape(-1, out_channels, patch, patch)
        self.W2 = nn.Parameter(pixels, requires_grad=False)
        self.diam_labels = nn.Parameter(torch.tensor([30.0]), requires_grad=False)
        self.diam_mean = nn.Parameter(torch.tensor([30.0]), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return raw scores, shape (B, out_channels, window, window), of tiles, shape (B, C, window, window)."""
        scores: torch.Tensor = functional.conv_transpose2d(self.out(self.encoder(x)), self.W2, stride=self.W2.shape[-1])
        return scores.roll(1, 1)  # the last channel is the logit


class _Encoder(nn.Module):
    def __init__(
        self, side: int, patch: int, in_channels: int, width: int, heads: int, hidden: int, neck: int, relative: Sequence[int]
    ) -> None:
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, width))
        self.blocks = nn.ModuleList(_Block(width, heads, hidden, distances) for distances in relative)
        self.neck = nn.Sequential(
            nn.Conv2d(width, neck, 1, bias=False), _Norm(neck), nn.Conv2d(neck, neck, 3, padding=1, bias=False), _Norm(neck)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embed: Any = self.patch_embed.proj
        # Weights of channels that are 0 need not be multiplied.
        x = functional.conv2d(x, embed.weight[:, : x.shape[1]], embed.bias, stride=embed.stride)
        x = x.permute(0, 2, 3, 1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        features: torch.Tensor = self.neck(x.permute(0, 3, 1, 2))
        return features


class _Norm(nn.Module):
    """Layer normalisation over the channels of a map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 2, 3, 1)
        return functional.layer_norm(x, x.shape[-1:], self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int, relative: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = _Attention(width, heads, relative)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp: Any = nn.Module()
        self.mlp.lin1, self.mlp.lin2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        hidden = functional.gelu(self.mlp.lin1(self.norm2(x)))
        result: torch.Tensor = x + self.mlp.lin2(hidden)
        return result


class _Attention(nn.Module):
    """Attention of every patch to every other one, with what relative places along each axis add to it."""

    def __init__(self, width: int, heads: int, relative: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        if relative:
            self.rel_pos_h = nn.Parameter(torch.zeros(relative, width // heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(relative, width // heads))
        self._relative = bool(relative)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, rows, columns, width = x.shape
        qkv = self.qkv(x).reshape(count, rows * columns, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        bias = self._bias(query.reshape(count, self.heads, rows, columns, -1)) if self._relative else None
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        result: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(count, rows, columns, width))
        return result

    def _bias(self, query: torch.Tensor) -> torch.Tensor:
        """Return what is added to the logits, shape (B, heads, patches, patches)."""
        count, heads, rows, columns, _ = query.shape
        along_rows = torch.einsum("bnyxc,ykc->bnyxk", query, _distances(self.rel_pos_h, rows))
        along_columns = torch.einsum("bnyxc,xkc->bnyxk", query, _distances(self.rel_pos_w, columns))
        both = along_rows[..., :, None] + along_columns[..., None, :]
        return both.reshape(count, heads, rows * columns, rows * columns)


def _distances(trained: torch.Tensor, side: int) -> torch.Tensor:
    """Return the embedding of each pair of places along an axis, shape (side, side, C), stretched if it was trained for another side."""
    wanted = 2 * side - 1
    if len(trained) != wanted:
        trained = functional.interpolate(trained.T[None], size=wanted, mode="linear")[0].T
    places = torch.arange(side, device=trained.device)
    return trained[places[:, None] - places[None, :] + side - 1]
