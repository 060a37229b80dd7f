"""``quick_convolutions``, ``quick``: 3D convolutions of one small tile by oneDNN, where torch by itself takes its own slow loop.

torch calls oneDNN for a batch of several tiles, but not for a single one with few values, as in the deep levels of a network
(``use_mkldnn`` in aten/src/ATen/native/Convolution.cpp). In 3D its own loop takes two to six times as long. In 2D it
is as good for a whole network.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from napari_tileseg.engine.exchange import exchange

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

__all__ = ["quick", "quick_convolutions"]

_OVERLOOKED = 20480
"""The most values of a tile for which torch does not call oneDNN: the product of its first four sides, whatever the fifth is."""

_WORTH = 3_000_000
"""The fewest products for which calling oneDNN pays: below, finding the right code takes longer than torch's own loop."""


@torch.library.custom_op("napari_tileseg::convolution", mutates_args=())
def _opaque(image: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int]) -> Tensor:
    return _convolve(image, weight, bias, stride, padding, dilation).contiguous(memory_format=torch.channels_last_3d)


@_opaque.register_fake
def _(image: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int], dilation: list[int]) -> Tensor:
    return functional.conv3d(image, weight, bias, stride, padding, dilation).contiguous(memory_format=torch.channels_last_3d)


def _convolve(
    image: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    result: Tensor = torch.mkldnn_convolution(image, weight, bias, padding, stride, dilation, 1)
    return result


def _pays(image: Tensor, weight: Tensor, stride: Sequence[int]) -> bool:
    """Tell whether torch would compute a convolution in its own loop, and oneDNN would do it faster."""
    if image.device.type != "cpu" or image.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if image.ndim != 5 or len(image) > 1 or math.prod(image.shape[:4]) > _OVERLOOKED or max(weight.shape[2:]) == 1:
        return False
    return weight.numel() * math.prod(image.shape[2:]) >= _WORTH * math.prod(stride)


def quick(batch: Tensor) -> AbstractContextManager[Any]:
    """Return a block inside which convolutions that torch would compute slowly are computed by oneDNN; scores change by rounding.

    For networks as they are: nothing of them is replaced, so it is for whatever calls `torch.nn.functional`. A network that its author
    has compiled or scripted keeps to its own convolutions, and so does one that learns.

    Parameters
    ----------
    batch : Tensor, shape (N, C, *window)
        What the network is going to compute; the block does nothing where it is not 3D, or not on the CPU.

    Returns
    -------
    context manager
    """
    wanted = batch.ndim == 5 and batch.device.type == "cpu" and torch.backends.mkldnn.is_available()
    return _Quick() if wanted else nullcontext()


class _Quick(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        given = kwargs or {}
        if func is functional.conv3d and not torch.compiler.is_compiling() and (result := _called(*args, **given)) is not None:
            return result
        return func(*args, **given)


def _called(
    input: Tensor,  # torch's name
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """Compute what `torch.nn.functional.conv3d` is called with, or None where that may do it by itself."""
    if groups != 1 or isinstance(padding, str) or weight.dtype != torch.float32:
        return None
    stride, padding, dilation = ([value] * 3 if isinstance(value, int) else list(value) for value in (stride, padding, dilation))
    if not _pays(input, weight, stride) or torch.is_grad_enabled():
        return None
    return _convolve(input, weight, bias, stride, padding, dilation)


class _QuickConvolution(nn.Module):
    """The same for one convolution of a network that may be compiled."""

    def __init__(self, original: nn.Conv3d) -> None:
        super().__init__()
        self.original = original

    def forward(self, image: Tensor) -> Tensor:
        own = self.original
        if not _pays(image, own.weight, own.stride):
            result: Tensor = own(image)
            return result
        stride, padding, dilation = list(own.stride), [int(side) for side in own.padding], list(own.dilation)
        return (_opaque if torch.compiler.is_compiling() else _convolve)(image, own.weight, own.bias, stride, padding, dilation)


def quick_convolutions(module: nn.Module) -> nn.Module:
    """Replace the convolutions that torch may compute slowly, in place; scores change by rounding.

    Whether it does is decided for each tile that comes. Left alone are convolutions of single pixels, in groups, with other padding
    than zeros, with hooks, or of a class that is derived from torch's.

    Parameters
    ----------
    module : torch module
        In evaluation mode; any part of it that takes float tensors of shape (N, C, *spatial) and gives them back may be replaced.

    Returns
    -------
    torch module
        The same one.
    """
    if not torch.backends.mkldnn.is_available():
        return module
    return exchange(module, _changed)


def _changed(part: nn.Module) -> nn.Module | None:
    if type(part) is not nn.Conv3d or part.groups > 1 or part.padding_mode != "zeros" or isinstance(part.padding, str):
        return None
    return _QuickConvolution(part) if max(part.kernel_size) > 1 else None
