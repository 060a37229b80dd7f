"""``SharedNormalization``: batch normalisation over the crops of all processes, on the CPU, where torch has none."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["SharedNormalization", "share_normalization"]


class _Sum(torch.autograd.Function):
    """A sum over all processes, and of all their gradients."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        found = value.clone()
        dist.all_reduce(found)
        return found

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        found = gradient.clone()
        dist.all_reduce(found)
        return found


def _mean(value: Tensor) -> Tensor:
    found: Tensor = _Sum.apply(value) / dist.get_world_size()  # type: ignore[no-untyped-call]  # torch's stubs lack it
    return found


class SharedNormalization(_BatchNorm):
    """As ``torch.nn.BatchNorm2d`` and its kin with the same weights, but what it measures is the mean over all processes.

    Every process has equally many values.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes is right."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean = _mean(values.mean(axes))
        # Squares of differences, not the difference of squares: that loses what matters where the mean is large.
        variance = _mean((values - mean.view(shape)).square().mean(axes))
        self._remember(mean.detach(), variance.detach(), dist.get_world_size() * input.numel() // input.shape[1])
        found: Tensor = (values - mean.view(shape)) * torch.rsqrt(variance + self.eps).view(shape)
        if self.weight is not None:
            found = found * self.weight.view(shape) + self.bias.view(shape)
        return found.to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(1, count - 1)), share)


def share_normalization(network: nn.Module) -> nn.Module:
    """Replace batch normalisation in a network, in place; weights and their names stay."""
    for name, part in network.named_children():
        if isinstance(part, _BatchNorm):
            shared = SharedNormalization(part.num_features, part.eps, part.momentum, part.affine, part.track_running_stats)
            # The same tensors, which an optimiser may hold already.
            shared._parameters, shared._buffers = part._parameters, part._buffers
            setattr(network, name, shared)
        else:
            share_normalization(part)
    return network
