"""``LovaszHinge`` and ``LovaszSoftmax``: convex surrogates of the Jaccard loss.

Source: M. Berman et al., The Lovász-softmax loss, CVPR 2018 (arXiv:1705.08790).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_tileseg.errors import OptionsError
from napari_tileseg.training.losses.loss import Loss
from napari_tileseg.training.losses.prepared import Prepared

__all__ = ["LovaszHinge", "LovaszSoftmax"]


class _Lovasz(Loss):
    """Sort the errors of pixels; each counts by how much it adds to the Jaccard loss of those above it.

    Parameters
    ----------
    batch : bool
        Whether all pixels of the batch are sorted together; otherwise those of each image, and the mean is taken.
    classes : {"present", "all"}
        Whether classes count that no pixel of the labels has.
    **options
        As `Loss`.
    """

    def __init__(self, *, batch: bool = True, classes: Literal["present", "all"] = "present", **options: Any) -> None:
        super().__init__(**options)
        if classes not in ("present", "all"):
            raise OptionsError(f'classes is "{classes}"; it may be "present" or "all".')
        self.batch, self.classes = batch, classes

    def of_pixels(self, errors: Tensor, prepared: Prepared, *, all_classes: bool) -> Tensor:
        """Return the loss of errors (B, C, *spatial)."""
        target = prepared.target
        counted = torch.ones_like(target[:, :1], dtype=torch.bool) if prepared.counted is None else prepared.counted
        groups = [slice(None)] if self.batch else [slice(image, image + 1) for image in range(len(target))]
        found = []
        for group in groups:
            losses, weights = [], []
            for channel, weight in enumerate(self.weights_of(target.shape[1], target)):
                kept = counted[group][:, channel if counted.shape[1] > 1 else 0]
                truth = target[group][:, channel][kept]
                if len(truth) and (all_classes or bool(truth.any())):
                    losses.append(weight * _extension(errors[group][:, channel][kept], truth))
                    weights.append(weight)
            found.append(torch.stack(losses).sum() / torch.stack(weights).sum() if losses else 0 * errors.sum())
        return torch.stack(found).mean()


class LovaszHinge(_Lovasz):
    """For masks: errors are those of the hinge, ``1 - x`` inside and ``1 + x`` outside. Parameters as `LovaszSoftmax`.

    Two classes that exclude each other are one mask: that of the second, by how much its score is above that of the first.

    Raises
    ------
    OptionsError
        When it is called for three or more classes that exclude each other.
    """

    def compute(self, prepared: Prepared) -> Tensor:
        if prepared.exclusive:
            if prepared.logits.shape[1] != 2:
                raise OptionsError("The Lovász hinge compares masks; for classes that exclude each other use lovasz_softmax.")
            above = prepared.logits[:, 1:] - prepared.logits[:, :1]
            prepared = Prepared(above, prepared.target[:, 1:], False, prepared.counted)
        errors = F.relu(1 - prepared.logits * (2 * prepared.target - 1))
        return self.of_pixels(errors, prepared, all_classes=True)


class LovaszSoftmax(_Lovasz):
    """For classes, or with sigmoid for masks: errors are the shares that are missing or too much."""

    def compute(self, prepared: Prepared) -> Tensor:
        errors = (prepared.target - prepared.probability).abs()
        return self.of_pixels(errors, prepared, all_classes=self.classes == "all" or not prepared.exclusive)


def _extension(errors: Tensor, truth: Tensor) -> Tensor:
    """Return errors (n) times the slope of the Jaccard loss where they stand in order."""
    order = errors.detach().argsort(descending=True)
    sorted_truth = truth[order]
    inside = sorted_truth.sum()
    jaccard = 1 - (inside - sorted_truth.cumsum(0)) / (inside + (1 - sorted_truth).cumsum(0))
    slope = torch.cat([jaccard[:1], jaccard.diff()])
    return errors[order] @ slope.detach()
