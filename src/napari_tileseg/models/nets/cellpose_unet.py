"""``CellposeUNet``: the residual U-Net with a style vector of Cellpose 1 to 3, with the names of weights that its files have.

Stringer et al., Nature Methods 18 (2021), 100: four residual blocks of four convolutions down, four up; the mean of the deepest
features, as a vector of length 1, is added to the features on the way up.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CellposeUNet"]


class CellposeUNet(nn.Module):
    """Maps planes to the logit of a cell and to flows along Y and X.

    Parameters
    ----------
    in_channels : int
        Channels of the image; those that an image lacks are 0.
    out_channels : int
        Score channels.
    channels : sequence of int
        Features of each level, from full size on.
    kernel_size : int
        Of all convolutions but those of one pixel; odd.
    average : bool
        Whether levels are halved by means instead of maxima.
    """

    def __init__(
        self,
        in_channels: int = 2,
        out_channels: int = 3,
        channels: Sequence[int] = (32, 64, 128, 256),
        kernel_size: int = 3,
        average: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.downsample = _Down([in_channels, *channels], kernel_size, average=average)
        self.upsample = _Up([*channels, channels[-1]], kernel_size)
        self.output = _convolution(channels[0], out_channels, 1)
        # Diameters of objects, in pixels: what images were scaled to, and what they were before.
        self.diam_mean = nn.Parameter(torch.full((1,), 30.0), requires_grad=False)
        self.diam_labels = nn.Parameter(torch.full((1,), 30.0), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return raw scores, shape (B, out_channels, Y, X), of planes, shape (B, C, Y, X)."""
        if x.shape[1] < self.in_channels:
            x = torch.cat([x, x.new_zeros(len(x), self.in_channels - x.shape[1], *x.shape[2:])], 1)
        levels = self.downsample(x)
        style = levels[-1].mean((2, 3))
        style = style / style.square().sum(1, keepdim=True).sqrt()
        scores: torch.Tensor = self.output(self.upsample(levels, style))
        return scores.roll(1, 1)  # the last channel is the logit


def _convolution(inputs: int, outputs: int, size: int, *, activation: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.BatchNorm2d(inputs, eps=1e-5, momentum=0.05)]
    if activation:
        layers.append(nn.ReLU())
    return nn.Sequential(*layers, nn.Conv2d(inputs, outputs, size, padding=size // 2))


class _Styled(nn.Module):
    """A convolution whose input is shifted by the style, and added to the features of the way down."""

    def __init__(self, channels: int, style: int, size: int) -> None:
        super().__init__()
        self.conv = _convolution(channels, channels, size)
        self.full = nn.Linear(style, channels)

    def forward(self, x: torch.Tensor, style: torch.Tensor, skip: torch.Tensor | None = None) -> torch.Tensor:
        shift = self.full(style)[:, :, None, None]
        result: torch.Tensor = self.conv((x if skip is None else x + skip) + shift)
        return result


class _DownBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        sides = [inputs, outputs, outputs, outputs, outputs]
        self.conv = nn.Sequential(OrderedDict((f"conv_{k}", _convolution(*pair, size)) for k, pair in enumerate(pairwise(sides))))
        self.proj = _convolution(inputs, outputs, 1, activation=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.proj(x) + self.conv[1](self.conv[0](x))
        result: torch.Tensor = x + self.conv[3](self.conv[2](x))
        return result


class _UpBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, style: int, size: int) -> None:
        super().__init__()
        styled = {f"conv_{k}": _Styled(outputs, style, size) for k in (1, 2, 3)}
        self.conv = nn.Sequential(OrderedDict({"conv_0": _convolution(inputs, outputs, size), **styled}))
        self.proj = _convolution(inputs, outputs, 1, activation=False)

    def forward(self, x: torch.Tensor, skip: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        first, second, third, fourth = self.conv
        x = self.proj(x) + second(first(x), style, skip)
        result: torch.Tensor = x + fourth(third(x, style), style)
        return result


class _Down(nn.Module):
    def __init__(self, channels: Sequence[int], size: int, *, average: bool) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(2) if average else nn.MaxPool2d(2)
        self.down = nn.Sequential(OrderedDict((f"res_down_{k}", _DownBlock(*pair, size)) for k, pair in enumerate(pairwise(channels))))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        levels: list[torch.Tensor] = []
        for block in self.down:
            levels.append(block(self.pool(levels[-1]) if levels else x))
        return levels


class _Up(nn.Module):
    def __init__(self, channels: Sequence[int], size: int) -> None:
        super().__init__()
        pairs = [(deep, shallow) for shallow, deep in pairwise(channels)]
        self.up = nn.Sequential(OrderedDict((f"res_up_{k}", _UpBlock(*pair, channels[-1], size)) for k, pair in enumerate(pairs)))

    def forward(self, levels: list[torch.Tensor], style: torch.Tensor) -> torch.Tensor:
        x = levels[-1]
        for place, (block, skip) in enumerate(zip(reversed(self.up), reversed(levels), strict=True)):
            if place:
                x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(x, skip, style)
        return x
