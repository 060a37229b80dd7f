"""``CrossEntropy``, ``Focal`` and ``Combo``: losses of single pixels, and one that joins them with overlap.

Sources: T. Lin et al., focal loss (arXiv:1708.02002); S. Taghanaki et al., Combo loss (arXiv:1805.02798), with the sign under which
a perfect result has the least loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from napari_tileseg.errors import OptionsError
from napari_tileseg.training.losses.loss import Loss
from napari_tileseg.training.losses.overlap import Dice

if TYPE_CHECKING:
    from napari_tileseg.training.losses.prepared import Prepared

__all__ = ["Combo", "CrossEntropy", "Focal"]

_LEAST = 1e-9


class CrossEntropy(Loss):
    """Minus the logarithm of the share of the right class; for masks, of each mask.

    With weights of classes it is their weighted mean; one mask takes two of them, for what is outside and what is inside. Parameters as
    `Loss`.
    """

    def compute(self, prepared: Prepared) -> Tensor:
        logits, target = prepared.logits, prepared.target
        if not prepared.exclusive:
            values = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            return prepared.mean(values * self._of_masks(target))
        weights = self.weights_of(logits.shape[1], logits).reshape(1, -1, *(1,) * (logits.ndim - 2))
        values = -(weights * target * logits.log_softmax(1)).sum(1)
        result: Tensor = values.sum() / (weights * target).sum().clamp(min=_LEAST)
        return result

    def _of_masks(self, target: Tensor) -> Tensor:
        given = self.class_weights
        if target.shape[1] == 1 and isinstance(given, Tensor) and len(given) == 2:
            outside, inside = given.to(target)
            weights: Tensor = outside * (1 - target) + inside * target
            return weights
        return self.weights_of(target.shape[1], target).reshape(1, -1, *(1,) * (target.ndim - 2))


class Focal(Loss):
    """Cross-entropy times ``(1 - p) ** gamma`` of the right class, so that pixels that are right already count little.

    Parameters
    ----------
    gamma : float
    alpha : float, optional
        Weight of what is inside a mask; what is outside has ``1 - alpha``, as has the background among classes.
    uniform : float
        Weight of everything, as some programs use alpha.
    one_vs_rest : bool
        Whether classes that exclude each other are compared one by one, and the mean goes over classes too.
    **options
        As `Loss`.

    Raises
    ------
    OptionsError
        If alpha is no share.
    """

    def __init__(
        self, *, gamma: float = 2.0, alpha: float | None = None, uniform: float = 1.0, one_vs_rest: bool = False, **options: Any
    ) -> None:
        super().__init__(**options)
        if alpha is not None and not 0 <= alpha <= 1:
            raise OptionsError(f"alpha is {alpha}; it is a share from 0 to 1. The paper's is 0.25.")
        self.gamma, self.alpha, self.uniform, self.one_vs_rest = gamma, alpha, uniform, one_vs_rest

    def compute(self, prepared: Prepared) -> Tensor:
        logits, target = prepared.logits, prepared.target
        weights = self.weights_of(logits.shape[1], logits).reshape(1, -1, *(1,) * (logits.ndim - 2))
        if prepared.exclusive and not self.one_vs_rest:
            logarithm = logits.log_softmax(1)
            if self.alpha is not None:
                shares = [1 - self.alpha, *[self.alpha] * (logits.shape[1] - 1)]
                weights = weights * weights.new_tensor(shares).reshape(weights.shape)
            values = -(weights * target * (1 - logarithm.exp()) ** self.gamma * logarithm).sum(1, keepdim=True)
        else:
            # The logarithm of the share of the right answer, and of the wrong one.
            signs = 2 * target - 1
            right, wrong = F.logsigmoid(signs * logits), F.logsigmoid(-signs * logits)
            values = -weights * (self.gamma * wrong).exp() * right
            if self.alpha is not None:
                values = values * (self.alpha * target + (1 - self.alpha) * (1 - target))
        return self.uniform * prepared.mean(values)


class Combo(Dice):
    """``alpha`` times a cross-entropy that weights inside against outside, minus ``1 - alpha`` times the Dice coefficient.

    Parameters
    ----------
    alpha : float
        Share of the cross-entropy.
    beta : float
        Weight of the inside in it; the outside has ``1 - beta``.
    non_negative : bool
        Whether ``1 - alpha`` is added, so that a perfect result has loss 0.
    **options
        As `Dice`; with several classes the cross-entropy compares each with the rest.
    """

    def __init__(self, *, alpha: float = 0.5, beta: float = 0.5, non_negative: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.alpha, self.beta, self.non_negative = alpha, beta, non_negative

    def compute(self, prepared: Prepared) -> Tensor:
        logits, target = prepared.logits, prepared.target
        if prepared.exclusive:
            probability = logits.softmax(1)
            inside, outside = probability.clamp(min=_LEAST).log(), (1 - probability).clamp(min=_LEAST).log()
        else:
            inside, outside = F.logsigmoid(logits), F.logsigmoid(-logits)
        entropy = prepared.mean(-(self.beta * target * inside + (1 - self.beta) * (1 - target) * outside))
        coefficient = self.over_classes(1 - self.per_class(prepared), self.reduction)
        result = self.alpha * entropy - (1 - self.alpha) * coefficient
        return result + (1 - self.alpha) if self.non_negative else result
