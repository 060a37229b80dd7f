"""``InstanceLoss`` and ``CrossEntropyDice``: losses of the bundled recipes, called with raw scores and a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_tileseg.training.targets import touching

if TYPE_CHECKING:
    from napari_tileseg.training.sampling import Batch

__all__ = ["CrossEntropyDice", "InstanceLoss", "soft_dice"]


def soft_dice(probability: Tensor, target: Tensor, *, smooth: float = 1.0) -> Tensor:
    """Compute 1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s), sums over the whole batch (Milletari et al., arXiv:1606.04797, with s).

    Parameters
    ----------
    probability, target : Tensor, same shape

    Returns
    -------
    Tensor, scalar
    """
    return 1 - (2 * (probability * target).sum() + smooth) / (probability.sum() + target.sum() + smooth)


class CrossEntropyDice(nn.Module):
    """Cross-entropy plus the soft Dice loss averaged over the foreground classes.

    Parameters
    ----------
    smooth : float
        Smoothing of the Dice term.
    """

    def __init__(self, *, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, scores: Tensor, batch: Batch) -> Tensor:
        """Compare raw scores (B, K, *spatial) with ``batch.labels``, whose values are below K."""
        scores = scores.float()
        probability = scores.softmax(dim=1)
        classes = range(1, scores.shape[1])
        dice = torch.stack([soft_dice(probability[:, k], (batch.labels == k).float(), smooth=self.smooth) for k in classes])
        return F.cross_entropy(scores, batch.labels) + dice.mean()


class InstanceLoss(nn.Module):
    """Loss of the heads foreground, border (where objects touch) and distance (normalised, inside each object).

    Foreground: BCE + Dice / 2. Border: half of the BCE with positives counting thrice, + 0.3 Dice. Distance: L1.
    Pixels of small objects and of their touching borders count more, because a small object is one object in the score as well.

    Parameters
    ----------
    typical_area : float
        Pixels of an object whose pixels have weight 1.
    distance_weight, border_weight : float
        Factors of these terms.
    """

    def __init__(self, *, typical_area: float = 200.0, distance_weight: float = 1.5, border_weight: float = 1.0) -> None:
        super().__init__()
        self.typical_area = typical_area
        self.distance_weight = distance_weight
        self.border_weight = border_weight

    def forward(self, scores: Tensor, batch: Batch) -> Tensor:
        """Compare raw scores (B, 3, *spatial) with labels and with ``maps`` (distance, logarithm of the size).

        Where labels are below 0, nothing is known: there the scores are taken for right.
        """
        unknown = batch.labels < 0
        if bool(unknown.any()):
            return self._known(scores, batch, ~unknown)
        return self._compare(scores, batch)

    def _known(self, scores: Tensor, batch: Batch, known: Tensor) -> Tensor:
        """Compare where something is known; elsewhere scores are replaced by what they should be, for which nothing is lost."""
        labels = batch.labels.clamp(min=0)
        inside, edge = (labels > 0).float(), touching(labels).float()
        sure = torch.stack([40 * inside - 20, 40 * edge - 20, batch.maps[:, 0] * inside], dim=1)
        share = known.float().mean().clamp(min=1e-6)
        return self._compare(torch.where(known[:, None], scores.float(), sure), replace(batch, labels=labels)) / share

    def _compare(self, scores: Tensor, batch: Batch) -> Tensor:
        foreground, border, distance = scores.float().unbind(dim=1)
        inside = (batch.labels > 0).float()
        edge = touching(batch.labels).float()
        weight = self._weights(batch, inside, edge)
        total = (F.binary_cross_entropy_with_logits(foreground, inside, reduction="none") * weight).mean()
        total = total + 0.5 * soft_dice(foreground.sigmoid(), inside)
        positive = torch.tensor(3.0, device=scores.device)
        lines = 0.5 * F.binary_cross_entropy_with_logits(border, edge, pos_weight=positive) + 0.3 * soft_dice(border.sigmoid(), edge)
        gap = ((distance - batch.maps[:, 0] * inside).abs() * weight).mean()
        loss: Tensor = total + self.border_weight * lines + self.distance_weight * gap
        return loss

    def _weights(self, batch: Batch, inside: Tensor, edge: Tensor) -> Tensor:
        # Interpolation blurs the map of sizes at outlines; the largest value around a pixel is that of the object itself.
        ndim = batch.labels.ndim - 1
        pool = F.max_pool2d if ndim == 2 else F.max_pool3d
        area = pool(batch.maps[:, 1:2], 3, stride=1, padding=1)[:, 0].exp() * batch.zoom.reshape(-1, *(1,) * ndim) ** ndim
        near = pool(inside[:, None], 5, stride=1, padding=2)[:, 0]
        scale = (self.typical_area / area.clamp(min=1.0)).sqrt().clamp(0.6, 3.0)
        weight = torch.where(inside > 0, scale, 1.0 + 0.5 * near)
        return weight * (1 + 1.5 * edge)
