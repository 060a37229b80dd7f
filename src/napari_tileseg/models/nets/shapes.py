"""Names and shapes of a network's weights, without making them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from napari_tileseg.models.nets import build_network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

__all__ = ["expected_shapes"]

_COMPUTED = {torch.linspace, torch.arange, torch.tensor, torch.as_tensor}


class _Numbers(TorchFunctionMode):
    """Make short rows of numbers for real: some networks compute with them while they are built."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _COMPUTED and not any(isinstance(value, torch.Tensor) for value in args):
            kwargs.setdefault("device", "cpu")
        return func(*args, **kwargs)


def expected_shapes(architecture: str, arguments: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the weights of a network; whatever its arguments say, no memory of their size is taken.

    Raises
    ------
    ModelError
        If there is no such network, or it does not take the arguments.
    """
    with torch.device("meta"), _Numbers():
        module: nn.Module = build_network(architecture, **arguments)
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}
