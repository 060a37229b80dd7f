"""``FlowLoss``: what is learnt for flows, where cells are and which way their middle lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from napari_tileseg.engine.flows import FLOW_SCALE

if TYPE_CHECKING:
    from napari_tileseg.training.sampling import Batch

__all__ = ["FlowLoss"]


class FlowLoss(nn.Module):
    """Loss of the heads cell and flow along each axis (Stringer et al., Nature Methods 18 (2021), 100).

    Cell: BCE. Flows: half the mean square of their error, where they are vectors of length `FLOW_SCALE` in cells, and 0 outside.

    Parameters
    ----------
    flow_weight : float
        Factor of the error of flows.
    """

    def __init__(self, *, flow_weight: float = 1.0) -> None:
        super().__init__()
        self.flow_weight = flow_weight

    def forward(self, scores: Tensor, batch: Batch) -> Tensor:
        """Compare raw scores (B, 1 + D, *spatial) with labels and with ``maps``, the flows along D axes, of length 1.

        Where labels are below 0, nothing is known: there nothing is compared.
        """
        scores = scores.float()
        known, inside = (batch.labels >= 0).float(), (batch.labels > 0).float()
        true = FLOW_SCALE * batch.maps[:, : scores.shape[1] - 1].float() * inside[:, None]
        share = known.mean().clamp(min=1e-6)
        unlikely = F.binary_cross_entropy_with_logits(scores[:, 0], inside, reduction="none")
        apart = (scores[:, 1:] - true).square().mean(1)
        loss: Tensor = ((unlikely + 0.5 * self.flow_weight * apart) * known).mean() / share
        return loss
