"""``Prepared``: scores and labels of a batch in the one form that every loss computes with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from napari_tileseg.errors import InputError

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """Scores and what they should be.

    Parameters
    ----------
    logits : Tensor, shape (B, C, *spatial)
        Raw scores, float32 or float64.
    target : Tensor, shape (B, C, *spatial)
        0 and 1, or shares of classes; 0 where nothing is known.
    exclusive : bool
        Whether each pixel has one class (softmax); otherwise channels stand for themselves (sigmoid).
    counted : Tensor of bool, shape (B, 1, *spatial), of masks (B, C, *spatial), optional
        Where something is known; everywhere if None.
    """

    logits: Tensor
    target: Tensor
    exclusive: bool
    counted: Tensor | None = None

    @property
    def probability(self) -> Tensor:
        """Share of each class (B, C, *spatial), 0 where nothing is known."""
        found = self.logits.softmax(1) if self.exclusive else self.logits.sigmoid()
        return found if self.counted is None else found * self.counted

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean of values (B, C or 1, *spatial) over the pixels that count; 0 where none does."""
        if self.counted is None:
            return values.mean()
        kept = self.counted.expand_as(values)
        return torch.where(kept, values, 0).sum() / kept.sum().clamp(min=1)


def prepare(logits: Tensor, target: Tensor, *, ignore_index: int | None = None, multi_label: bool | None = None) -> Prepared:
    """Bring scores and labels into one form.

    Parameters
    ----------
    logits : Tensor, shape (B, C, *spatial)
        Raw scores; shorter types than float32 are made float32.
    target : Tensor
        Class numbers (B, *spatial) or (B, 1, *spatial); for one channel or `multi_label` 0 and 1 in the shape of the scores. A target in
        the shape of several channels is taken for several masks.
    ignore_index : int, optional
        Value of pixels that do not count.
    multi_label : bool, optional
        Whether channels stand for themselves; by default told from the shapes. False with a target in the shape of the scores means
        shares of classes that exclude each other.

    Raises
    ------
    InputError
        If the shapes do not fit each other, or a class number has no channel.
    """
    if logits.ndim < 3:
        raise InputError(f"Scores of {_text(logits)} were given. A loss takes batch, channel and at least one axis of space.")
    logits = logits if logits.dtype == torch.float64 else logits.float()
    channels = logits.shape[1]
    numbers = target.shape[:1] + target.shape[2:] if target.ndim == logits.ndim and target.shape[1] == 1 else target.shape
    if channels > 1 and tuple(numbers) == (logits.shape[0], *logits.shape[2:]) and not multi_label:
        return _numbered(logits, target.reshape(numbers).long(), ignore_index)
    if target.ndim == logits.ndim - 1 and channels == 1:
        target = target[:, None]
    if target.shape != logits.shape:
        raise InputError(
            f"Labels of {_text(target)} do not fit scores of {_text(logits)}. Give class numbers, or one mask for each channel."
        )
    counted = None
    if ignore_index is not None:
        counted = target != ignore_index
        if multi_label is False:
            counted = counted.all(1, keepdim=True)  # shares of classes belong together
        target = torch.where(counted, target, 0)
    return Prepared(logits, target.to(logits.dtype), channels > 1 and multi_label is False, counted)


def _numbered(logits: Tensor, numbers: Tensor, ignore_index: int | None) -> Prepared:
    counted = None
    if ignore_index is not None:
        counted = numbers != ignore_index
        numbers = torch.where(counted, numbers, 0)
    channels = logits.shape[1]
    if numbers.numel() and (int(numbers.min()) < 0 or int(numbers.max()) >= channels):
        wrong = int(numbers.max()) if int(numbers.max()) >= channels else int(numbers.min())
        raise InputError(f"The labels hold class {wrong}, but the network has {channels} classes, 0 to {channels - 1}. Correct the labels.")
    target = torch.zeros_like(logits).scatter_(1, numbers[:, None], 1.0)
    if counted is None:
        return Prepared(logits, target, True)
    return Prepared(logits, target * counted[:, None], True, counted[:, None])


def _text(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))
