"""``quick_relus``: the rectifier of numbers of 16 bits, without the detour over 32 that torch takes on a processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_tileseg.engine.exchange import exchange

__all__ = ["quick_relus"]

_INFINITY = -128
"""Minus infinity in bfloat16, read as a whole number: every negative number is below or equal, only negative NaN lie between it and 0."""


class _QuickReLU(nn.Module):
    """A rectifier that reads bfloat16 as whole numbers of that width, in a quarter of the time; equal but for the sign of 0."""

    def __init__(self, original: nn.ReLU) -> None:
        super().__init__()
        self.original = original

    def forward(self, image: Tensor) -> Tensor:
        own = self.original
        if torch.compiler.is_compiling() or image.dtype != torch.bfloat16 or image.device.type != "cpu" or torch.is_grad_enabled():
            result: Tensor = own(image)
            return result
        whole = functional.threshold(image.view(torch.int16), _INFINITY, 0, own.inplace)
        return image if own.inplace else whole.view(torch.bfloat16)


def quick_relus(module: nn.Module) -> nn.Module:
    """Replace rectifiers, in place; nothing changes but the time.

    Left alone are those with hooks, or of a class that is derived from torch's.

    Parameters
    ----------
    module : torch module
        In evaluation mode.

    Returns
    -------
    torch module
        The same one.
    """
    return exchange(module, lambda part: _QuickReLU(part) if type(part) is nn.ReLU else None)
