"""``StarLoss``: what is learnt for star-convex shapes, the probability of an object and the distances to its edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from napari_tileseg.engine.rays import circle, golden_spiral
from napari_tileseg.training.ray_distances import ray_distances

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.training.sampling import Batch

__all__ = ["StarLoss"]


class StarLoss(nn.Module):
    """Loss of the heads object and distance along each ray (Schmidt et al., MICCAI 2018; Weigert et al., WACV 2020).

    Object: BCE with the distance to the outside, 1 in the middle of each object. Distances: their absolute error inside, weighted by
    the same number, since shapes are proposed in the middle; outside they are held near 0. Both count on the network's grid only.

    Shapes end where a crop ends, as objects at the border of an image do.

    Parameters
    ----------
    grid : sequence of int
        Pixels of the image along one of the output.
    anisotropy : tuple of float
        See `golden_spiral` (3D).
    distance_weight : float
        Factor of the error of distances.
    background_weight : float
        Factor of distances outside of objects.
    """

    def __init__(
        self,
        *,
        grid: Sequence[int] = (1, 1),
        anisotropy: Sequence[float] = (1.0, 1.0, 1.0),
        distance_weight: float = 0.2,
        background_weight: float = 1e-4,
    ) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.anisotropy = (float(anisotropy[0]), float(anisotropy[1]), float(anisotropy[2]))
        self.distance_weight = distance_weight
        self.background_weight = background_weight

    def forward(self, scores: Tensor, batch: Batch) -> Tensor:
        """Compare raw scores (B, 1 + rays, *spatial) with labels and with ``maps``, whose first is the distance to the outside.

        Where labels are below 0, nothing is known: there nothing is compared.
        """
        on_grid: Any = (..., *(slice(None, None, step) for step in self.grid))
        scores = scores[on_grid].float()
        labels = batch.labels[on_grid]
        count, ndim = scores.shape[1] - 1, labels.ndim - 1
        rays = circle(count) if ndim == 2 else golden_spiral(count, self.anisotropy)
        true = ray_distances(batch.labels, rays, self.grid)
        known = (labels >= 0).float()
        middle = batch.maps[:, 0][on_grid].float().clamp(0, 1) * (labels > 0)
        share = known.mean().clamp(min=1e-6)
        unlikely = F.binary_cross_entropy_with_logits(scores[:, 0], middle, reduction="none")
        apart = ((scores[:, 1:] - true).abs().mean(1) * middle).mean() / middle.mean().clamp(min=1e-6)
        outside = (scores[:, 1:].abs().mean(1) * (1 - middle) * known).mean() / share
        loss: Tensor = (unlikely * known).mean() / share + self.distance_weight * (apart + self.background_weight * outside)
        return loss
