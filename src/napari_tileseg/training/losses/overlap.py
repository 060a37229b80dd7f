"""``Dice``, ``Jaccard``, ``Tversky`` and their kin: one minus how far objects and what was found of them overlap.

Sources: F. Milletari et al., V-Net (arXiv:1606.04797); S. Salehi et al., Tversky loss (arXiv:1706.05721); N. Abraham, N. Khan, focal
Tversky loss (arXiv:1810.07842); S. Jadon, survey of losses (arXiv:2006.14822), for the logarithm of the hyperbolic cosine.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import torch
from monai.losses.dice import DiceLoss
from monai.losses.tversky import TverskyLoss
from torch import Tensor

from napari_tileseg.training.losses.loss import Loss

if TYPE_CHECKING:
    from napari_tileseg.training.losses.prepared import Prepared

__all__ = ["Dice", "FocalTversky", "Jaccard", "LogCoshDice", "Overlap", "Tversky"]


class Overlap(Loss):
    """What losses of overlap share.

    Parameters
    ----------
    smooth : float
        Added above and below the fraction, so that nothing found where nothing is counts as right; larger than 0.
    batch : bool
        Whether sums go over all pixels of the batch; otherwise over each image, and the mean is taken.
    include_background : bool
        Whether class 0 counts, where classes exclude each other.
    reduction : {"mean", "sum"}
        Over classes.
    **options
        As `Loss`.
    """

    def __init__(
        self,
        *,
        smooth: float = 1.0,
        batch: bool = True,
        include_background: bool = True,
        reduction: Literal["mean", "sum"] = "mean",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.smooth = smooth
        self.batch = batch
        self.include_background = include_background
        self.reduction = reduction

    def compute(self, prepared: Prepared) -> Tensor:
        return self.over_classes(self.per_class(prepared), self.reduction)

    def per_class(self, prepared: Prepared) -> Tensor:
        """Return the loss of each class (1, C), or of each class and image (B, C)."""
        first = 0 if self.include_background or not prepared.exclusive or prepared.logits.shape[1] == 1 else 1
        probability, target = prepared.probability[:, first:], prepared.target[:, first:]
        return self.compared(probability, target).reshape(-1, probability.shape[1])

    @abstractmethod
    def compared(self, probability: Tensor, target: Tensor) -> Tensor:
        """Return one number for each class, or each class and image."""


class Dice(Overlap):
    """``1 - (2 TP + s) / (sum p + sum t + s)``; with `squared` the sums below are those of squares. Parameters as `Overlap`."""

    def __init__(self, *, squared: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.inner = DiceLoss(squared_pred=squared, batch=self.batch, smooth_nr=self.smooth, smooth_dr=self.smooth, reduction="none")

    def compared(self, probability: Tensor, target: Tensor) -> Tensor:
        found: Tensor = self.inner(probability, target)
        return found


class Jaccard(Overlap):
    """``1 - (TP + s) / (sum p + sum t - TP + s)``, also called IoU. Parameters as `Overlap`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # MONAI doubles the intersection and the union, hence the smoothing.
        self.inner = DiceLoss(jaccard=True, batch=self.batch, smooth_nr=2 * self.smooth, smooth_dr=2 * self.smooth, reduction="none")

    def compared(self, probability: Tensor, target: Tensor) -> Tensor:
        found: Tensor = self.inner(probability, target)
        return found


class Tversky(Overlap):
    """``1 - (TP + s) / (TP + fp FP + fn FN + s)``.

    Parameters
    ----------
    fp, fn : float
        Weights of what was found wrongly, and of what was missed.
    **options
        As `Overlap`.
    """

    def __init__(self, *, fp: float = 0.3, fn: float = 0.7, **options: Any) -> None:
        super().__init__(**options)
        self.inner = TverskyLoss(alpha=fp, beta=fn, batch=self.batch, smooth_nr=self.smooth, smooth_dr=self.smooth, reduction="none")

    def compared(self, probability: Tensor, target: Tensor) -> Tensor:
        found: Tensor = self.inner(probability, target)
        return found


class FocalTversky(Tversky):
    """``(1 - TI) ** (1 / gamma)`` of each class: with gamma above 1, classes that are nearly right still count.

    Parameters
    ----------
    gamma : float
    **options
        As `Tversky`.
    """

    def __init__(self, *, gamma: float = 4 / 3, **options: Any) -> None:
        super().__init__(**options)
        self.gamma = gamma

    def per_class(self, prepared: Prepared) -> Tensor:
        # At 0 the slope of a root is infinite; a perfect class has none here.
        return super().per_class(prepared).clamp(min=torch.finfo(prepared.logits.dtype).tiny) ** (1 / self.gamma)


class LogCoshDice(Dice):
    """``log cosh`` of the Dice loss, which is flat where the loss is small. Parameters as `Dice`."""

    def compute(self, prepared: Prepared) -> Tensor:
        return super().compute(prepared).cosh().log()
