"""``reorder_axes``: a network that knows axes in another order, called as if it knew them in the image's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

__all__ = ["reorder_axes"]


def reorder_axes(module: nn.Module, order: Sequence[int]) -> None:
    """Turn what a network is given, and its scores back, wherever it is called; its weights and their names stay as they are.

    Parameters
    ----------
    module : torch module
        Maps (B, C, *spatial) to scores (B, K, *spatial).
    order : sequence of int
        For each axis of space that the network knows its place in a tile.

    Raises
    ------
    ValueError
        If it does not name each axis once.
    """
    if sorted(order) != list(range(len(order))):
        raise ValueError(f"axis_order {list(order)} must name each of the axes 0 to {len(order) - 1} once")
    forth = (0, 1, *(2 + axis for axis in order))
    back = (0, 1, *(2 + list(order).index(axis) for axis in range(len(order))))

    def turn(network: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (inputs[0].permute(forth).contiguous(), *inputs[1:])

    def turn_back(network: nn.Module, inputs: tuple[Any, ...], result: Any) -> Any:
        return result.permute(back) if isinstance(result, torch.Tensor) and result.ndim == len(back) else result

    module.register_forward_pre_hook(turn)
    module.register_forward_hook(turn_back)
