"""``AdversarialLoss``: what a discriminator and a generator each want.

Sources: I. Goodfellow et al. (arXiv:1406.2661), with the generator's loss that does not vanish; X. Mao et al., least squares
(arXiv:1611.04076).
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_tileseg.errors import OptionsError

__all__ = ["AdversarialLoss"]


class AdversarialLoss(nn.Module):
    """Losses of raw scores of any shape.

    Parameters
    ----------
    kind : {"bce", "least_squares"}
    real_label : float
        What the discriminator should say of real images; below 1 it is less sure of itself.

    Raises
    ------
    OptionsError
        If there is no such kind.
    """

    def __init__(self, kind: Literal["bce", "least_squares"] = "bce", *, real_label: float = 1.0) -> None:
        super().__init__()
        if kind not in ("bce", "least_squares"):
            raise OptionsError(f'There is no adversarial loss "{kind}". Use "bce" or "least_squares".')
        self.kind = kind
        self.real_label = real_label

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return what the discriminator loses; the caller detaches fake images from their generator."""
        return self._against(real, self.real_label) + self._against(fake, 0.0)

    def generator(self, fake: Tensor) -> Tensor:
        """Return what the generator loses."""
        return self._against(fake, 1.0)

    def _against(self, scores: Tensor, label: float) -> Tensor:
        with torch.autocast(scores.device.type, enabled=False):
            scores = scores if scores.dtype == torch.float64 else scores.float()
            target = torch.full_like(scores, label)
            if self.kind == "bce":
                return F.binary_cross_entropy_with_logits(scores, target)
            return 0.5 * F.mse_loss(scores, target)
