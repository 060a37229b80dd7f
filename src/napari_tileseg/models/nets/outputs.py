"""Which of the results of a network are its scores."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["full_scores", "keep_full_scores"]

_LAST = {"BasicUNetPlusPlus"}
"""Networks whose most complete answer comes last: those before it have passed fewer nodes (arXiv:1807.10165, section 3.2)."""


def keep_full_scores(module: nn.Module) -> None:
    """Make a network return its scores alone, wherever it is called; its weights and their names stay as they are."""
    last = type(module).__name__ in _LAST

    def pick(network: nn.Module, inputs: tuple[Any, ...], result: Any) -> Any:
        return full_scores(result, inputs[0], last=last) if inputs else result

    module.register_forward_hook(pick)


def full_scores(result: Any, batch: torch.Tensor, *, last: bool = False) -> Any:
    """Return the scores at full size among what a network returns.

    Networks with deep supervision return several, as a list, a tuple, a dictionary, or with an axis of their own; those with a
    second task return its loss or a reconstruction besides. The scores are the first tensor with the spatial size of the input,
    or, where none has it, the first of the largest.

    Parameters
    ----------
    result : object
        What the network returned.
    batch : torch.Tensor, shape (N, C, *window)
        What it was given.
    last : bool
        Among several at full size, take the last.
    """
    if isinstance(result, torch.Tensor):
        return result[:, 0] if result.ndim == batch.ndim + 1 and result.shape[3:] == batch.shape[2:] else result
    parts = result.values() if isinstance(result, dict) else result
    if not isinstance(result, dict | list | tuple):
        return result
    tensors = [full_scores(part, batch) for part in parts if isinstance(part, torch.Tensor | list | tuple | dict)]
    tensors = [part for part in tensors if isinstance(part, torch.Tensor) and part.ndim == batch.ndim]
    whole = [part for part in tensors if part.shape[2:] == batch.shape[2:]]
    return whole[-1 if last else 0] if whole else max(tensors, key=lambda part: part.shape[2:].numel(), default=result)
