"""``quick_norms``: normalisations of networks whose pixels hold all channels of a place side by side, computed as they lie."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_tileseg.engine.exchange import exchange

__all__ = ["quick_norms"]

_INSTANCE = (nn.InstanceNorm2d, nn.InstanceNorm3d)


@torch.library.custom_op("napari_tileseg::group_norm", mutates_args=())
def _group_norm(image: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return functional.group_norm(image, groups, weight, bias, eps)


@_group_norm.register_fake
def _(image: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return torch.empty_like(image)


class _QuickNorm(nn.Module):
    """A normalisation of instances or groups by torch's own loop over groups, which knows both orders of pixels.

    On the CPU instance normalisation turns the pixels around before and after its work. Normalising as many groups as there are
    channels is the same. Torch's compiler does not turn them, but what it writes for groups of several channels takes three to seven
    times as long as that loop, so a compiled network calls it for these too. GPUs have their own.
    """

    def __init__(self, original: nn.GroupNorm | nn.InstanceNorm2d | nn.InstanceNorm3d) -> None:
        super().__init__()
        self.original = original

    def forward(self, image: Tensor) -> Tensor:
        own, compiling = self.original, torch.compiler.is_compiling()
        if image.device.type != "cpu" or (compiling and not isinstance(own, nn.GroupNorm)):
            whole: Tensor = own(image)
            return whole
        groups = own.num_groups if isinstance(own, nn.GroupNorm) else image.shape[1]
        compute = _group_norm if compiling else functional.group_norm
        return compute(image, groups, own.weight, own.bias, own.eps)


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
