"""``exchange``: parts of a network exchanged for others that compute the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

__all__ = ["exchange"]


def exchange(module: nn.Module, change: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Exchange parts of a network, in place; parts with hooks stay, for somebody looks at them.

    Parameters
    ----------
    module : torch module
        Whose parts, at any depth, may be exchanged; it stays itself.
    change : callable
        Given a part, returns what shall take its place, or None.

    Returns
    -------
    torch module
        The same one.
    """
    for parent in list(module.modules()):
        for name, part in parent._modules.items():
            if part is None or part._forward_hooks or part._forward_pre_hooks:
                continue
            if (other := change(part)) is not None:
                parent._modules[name] = other
    return module
