"""``quick_norms``: normalisations of networks whose pixels hold all channels of a place side by side, computed as they lie."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_tileseg.engine.exchange import exchange

__all__ = ["FORMATS", "quick_norms"]

_LANES = 16
"""Numbers of 32 bits in the widest register of a processor."""

_FEW_PLACES = 1024
"""Below, torch goes from group to group (``feature_map_threshold`` in aten/src/ATen/native/cpu/group_norm_kernel.cpp)."""

_WORTH = 8192
"""The fewest values for which another way pays."""

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Order of memory with all channels of a place side by side, by the number of axes."""

_INSTANCE = (nn.InstanceNorm2d, nn.InstanceNorm3d)


@torch.library.custom_op("napari_tileseg::group_norm", mutates_args=())
def _opaque(image: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return _normalized(image, groups, weight, bias, eps)


@_opaque.register_fake
def _(image: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return torch.empty_like(image)


def _normalized(image: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise groups by torch's loop over the channels of a place, or by whole rows where that loop would be short."""
    by_rows = _short_loop(image, groups) and image.is_contiguous(memory_format=FORMATS[image.ndim])
    return (_by_rows if by_rows else functional.group_norm)(image, groups, weight, bias, eps)


def _short_loop(image: Tensor, groups: int) -> bool:
    """Tell whether the channels that torch goes through at once fill no register, or leave a rest: that takes two to thirty times as long.

    These are the channels of a group, or all of a place where there are many places.
    """
    channels, places = image.shape[1], math.prod(image.shape[2:])
    if places < _FEW_PLACES:
        return channels // groups < _LANES // 2 and channels * places >= _WORTH
    return 1 < channels < _LANES or (image.element_size() < 4 and channels % _LANES > 0)


def _by_rows(image: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """Normalise groups of a channels-last image, summing up whole rows of it; in float32, and with a mean that is taken off first."""
    number, channels, first, *others = image.shape
    pixels = image.movedim(1, -1)
    rows = pixels.reshape(number, first, -1)
    count, repeats = image[0].numel() // groups, math.prod(others)

    def share(sums: Tensor) -> Tensor:
        """Sum up what belongs to a group, and give each of its channels the mean."""
        of_group = sums.view(number, repeats, groups, -1).sum((1, 3)) / count
        return of_group.repeat_interleave(channels // groups, 1)

    def spread(of_channel: Tensor) -> Tensor:
        return of_channel.repeat(1, repeats)[:, None]

    apart = rows - spread(share(rows.sum(1, dtype=torch.float32)))
    scale = torch.rsqrt(share((apart * apart).sum(1)) + eps)
    apart.mul_(spread(scale if weight is None else scale * weight))
    if bias is not None:
        apart.add_(spread(bias.float().expand(number, -1)))
    return apart.to(image.dtype).view(pixels.shape).movedim(-1, 1)


class _QuickNorm(nn.Module):
    """A normalisation of instances or groups that knows both orders of pixels.

    On the CPU torch turns the pixels around before and after it normalises instances. Normalising as many groups as there are channels
    is the same, and leaves them as they are. Torch's compiler does not turn them either, but what it writes is slower for short types,
    for few channels, and for groups of several channels, there by three to seven times; a compiled network calls what the others call
    for these. GPUs have their own.
    """

    def __init__(self, original: nn.GroupNorm | nn.InstanceNorm2d | nn.InstanceNorm3d) -> None:
        super().__init__()
        self.original = original

    def forward(self, image: Tensor) -> Tensor:
        own, compiling = self.original, torch.compiler.is_compiling()
        groups = own.num_groups if isinstance(own, nn.GroupNorm) else None
        alone = groups is None and compiling and image.element_size() == 4 and not 1 < image.shape[1] < _LANES
        if image.device.type != "cpu" or alone:
            whole: Tensor = own(image)
            return whole
        return (_opaque if compiling else _normalized)(image, groups or image.shape[1], own.weight, own.bias, own.eps)


def quick_norms(module: nn.Module) -> nn.Module:
    """Replace what normalises instances and groups, in place; scores change by rounding.

    Left alone are those with statistics of their training, with hooks, or of a class that is derived from torch's.

    Parameters
    ----------
    module : torch module
        In evaluation mode; any part of it that takes float tensors of shape (N, C, *spatial) and gives them back may be replaced.

    Returns
    -------
    torch module
        The same one.
    """
    return exchange(module, _changed)


def _changed(part: nn.Module) -> nn.Module | None:
    if type(part) is nn.GroupNorm or (isinstance(part, _INSTANCE) and type(part) in _INSTANCE and part.running_mean is None):
        return _QuickNorm(part)
    return None
