"""``SharedNormalization``: batch normalisation over the crops of all processes, on the CPU, where torch has none.

Passes wait for other processes in the middle; where one of these has run out of memory, they are left with `Abandoned`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from napari_tileseg.training.attempt import Attempt

__all__ = ["SharedNormalization", "share_normalization", "watch_normalization"]


class _Sum(torch.autograd.Function):
    """A sum over all processes, and of all their gradients."""

    @staticmethod
    def forward(context: Any, value: Tensor, attempt: Attempt) -> Tensor:
        context.attempt = attempt
        found = value.clone()
        attempt.meet()
        dist.all_reduce(found)
        return found

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        found = gradient.clone()
        context.attempt.meet()
        dist.all_reduce(found)
        return found, None


class SharedNormalization(_BatchNorm):
    """As ``torch.nn.BatchNorm2d`` and its kin with the same weights, but what it measures is the mean over all processes.

    Every process has equally many values.

    Parameters
    ----------
    like : BatchNorm
        Whose weights and statistics it takes: the same tensors, which an optimiser may hold already.
    attempt : Attempt
        That it takes part in.
    """

    def __init__(self, like: _BatchNorm, attempt: Attempt) -> None:
        super().__init__(like.num_features, like.eps, like.momentum, like.affine, like.track_running_stats)
        self._parameters, self._buffers = like._parameters, like._buffers
        self._attempt = attempt

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes is right."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean = self._mean(values.mean(axes))
        # Squares of differences, not the difference of squares: that loses what matters where the mean is large.
        variance = self._mean((values - mean.view(shape)).square().mean(axes))
        self._remember(mean.detach(), variance.detach(), dist.get_world_size() * input.numel() // input.shape[1])
        found: Tensor = (values - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            found = found * self.weight.view(shape) + self.bias.view(shape)
        return found.to(input.dtype)

    def _mean(self, value: Tensor) -> Tensor:
        found: Tensor = _Sum.apply(value, self._attempt) / dist.get_world_size()  # type: ignore[no-untyped-call]  # torch's stubs lack it
        return found

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), share)


def share_normalization(network: nn.Module, attempt: Attempt) -> nn.Module:
    """Replace batch normalisation in a network, in place; weights and their names stay."""
    for name, part in network.named_children():
        if isinstance(part, _BatchNorm):
            setattr(network, name, SharedNormalization(part, attempt))
        else:
            share_normalization(part, attempt)
    return network


def watch_normalization(network: nn.Module, attempt: Attempt) -> nn.Module:
    """Let torch's own shared normalisation ask, before each exchange in either pass, whether all processes can go on."""

    def before(part: nn.Module, given: Any) -> None:
        if part.training:
            attempt.meet()

    def after(part: nn.Module, given: Any, found: Tensor) -> None:
        if part.training and found.requires_grad:
            found.register_hook(lambda gradient: attempt.meet())  # runs right before the backward pass of this part

    for part in network.modules():
        if isinstance(part, nn.SyncBatchNorm):
            part.register_forward_pre_hook(before)
            part.register_forward_hook(after)
    return network
