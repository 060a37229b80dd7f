"""``Loss``: what all losses share, from labels of every form to several results of one network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_tileseg.errors import InputError
from napari_tileseg.training.losses.prepared import Prepared, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Loss", "WeightedSum"]


class Loss(nn.Module, ABC):
    """A module that compares raw scores with labels.

    Parameters
    ----------
    ignore_index : int, optional
        Value of labels that do not count, such as 255 for pixels that nobody has labelled.
    multi_label : bool, optional
        Whether channels stand for themselves; see `prepare`.
    class_weights : sequence of float, optional
        How much each class counts, the background first.
    """

    def __init__(
        self, *, ignore_index: int | None = None, multi_label: bool | None = None, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.multi_label = multi_label
        self.register_buffer("class_weights", None if class_weights is None else torch.tensor(class_weights, dtype=torch.float64))

    def forward(self, logits: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the loss, a scalar; float32 inside, whatever the network computes in.

        Parameters
        ----------
        logits : Tensor, shape (B, C, *spatial), or several
            Raw scores. Several are those of deep supervision, the finest first; each counts half of the one before it, and labels are
            brought to its size by their nearest neighbours.
        target : Tensor
            See `prepare`.

        Raises
        ------
        InputError
            If labels do not fit the scores.
        """
        if isinstance(logits, Tensor):
            with torch.autocast(logits.device.type, enabled=False):
                prepared = prepare(logits, target, ignore_index=self.ignore_index, multi_label=self.multi_label)
                return self.compute(prepared)
        weights = [0.5**level for level in range(len(logits))]
        losses = [weight * self(scores, _resized(target, scores)) for weight, scores in zip(weights, logits, strict=True)]
        return torch.stack(losses).sum() / sum(weights)

    @abstractmethod
    def compute(self, prepared: Prepared) -> Tensor:
        """Return the loss of a batch."""

    def over_classes(self, values: Tensor, reduction: str = "mean") -> Tensor:
        """Return the weighted mean of values (N, C) over classes, or with "sum" their weighted sum, and the mean over N."""
        weights = self.weights_of(values.shape[-1], values)
        total = (values * weights).sum(-1)
        return (total if reduction == "sum" else total / weights.sum()).mean()

    def weights_of(self, channels: int, like: Tensor) -> Tensor:
        """Return the weight of each class (C); where the background is left out, so is its weight.

        Raises
        ------
        InputError
            If there are fewer weights than classes.
        """
        given = self.class_weights
        if not isinstance(given, Tensor):
            return torch.ones(channels, dtype=like.dtype, device=like.device)
        if not channels <= len(given) <= channels + 1:
            raise InputError(f"{len(given)} class weights were given for {channels} classes. Give one for each.")
        return given[len(given) - channels :].to(like)


class WeightedSum(Loss):
    """Several losses, each times a number.

    Parameters
    ----------
    parts : sequence of (float, Loss)
    """

    def __init__(self, parts: Sequence[tuple[float, Loss]], *, ignore_index: int | None = None, multi_label: bool | None = None) -> None:
        super().__init__(ignore_index=ignore_index, multi_label=multi_label)
        self.factors = [factor for factor, _ in parts]
        self.parts = nn.ModuleList(part for _, part in parts)

    def compute(self, prepared: Prepared) -> Tensor:
        losses = [factor * part.compute(prepared) for factor, part in zip(self.factors, self.parts, strict=True) if isinstance(part, Loss)]
        return torch.stack(losses).sum()


def _resized(target: Tensor, scores: Tensor) -> Tensor:
    """Return the nearest labels; whole numbers throughout, since Apple GPUs have no float64 and float32 does not hold all of them."""
    size = scores.shape[2:]
    for axis, wanted in enumerate(size, start=target.ndim - len(size)):
        if (have := target.shape[axis]) != wanted:
            places = (2 * torch.arange(wanted, device=target.device) + 1) * have // (2 * wanted)
            target = target.index_select(axis, places)
    return target
