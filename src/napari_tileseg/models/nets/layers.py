"""``CONV`` and its kin: torch's layers by their number of axes, and what several networks are made of."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["BATCH_NORM", "CONV", "MAX_POOL", "UP_CONV", "DropPath", "draw_filters"]

CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
UP_CONV: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def draw_filters(module: nn.Module) -> None:
    """Draw the filters of all convolutions so that rectifiers keep the variance (He et al., arXiv:1502.01852); biases become 0."""
    for layer in module.modules():
        if isinstance(layer, (*CONV.values(), *UP_CONV.values())):
            found = cast("nn.Conv2d", layer)
            nn.init.kaiming_normal_(found.weight, nonlinearity="relu")
            if found.bias is not None:
                nn.init.zeros_(found.bias)


class DropPath(nn.Module):
    """Leave a residual branch out for some images of a batch in training (Huang et al., arXiv:1603.09382).

    Parameters
    ----------
    rate : float
        Share of the images that go without it; the others count the more, so that the mean stays.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        kept = 1 - self.rate
        drawn = torch.rand(x.shape[0], *(1,) * (x.ndim - 1), dtype=x.dtype, device=x.device) < kept
        return x * drawn / kept
