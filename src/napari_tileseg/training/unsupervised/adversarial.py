"""``Adversarial`` and ``Inversion``: the two stages of f-AnoGAN, a generator first, then an encoder that finds its way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from napari_tileseg.models.nets.anomaly import FAnoGAN
    from napari_tileseg.training.losses.adversarial import AdversarialLoss

__all__ = ["Adversarial", "Inversion"]

_BETAS = (0.5, 0.999)


class Adversarial:
    """Generator against discriminator, one step each for every batch.

    Parameters
    ----------
    network : FAnoGAN
        Its generator and its discriminator are trained in place.
    loss : AdversarialLoss
    rate : float
        Learning rate of Adam, for both.
    """

    name = "generator"
    paired = False

    def __init__(self, network: FAnoGAN, loss: AdversarialLoss, rate: float) -> None:
        self._network, self._loss = network, loss
        network.train()
        self._of_generator = torch.optim.Adam(network.generator.parameters(), lr=rate, betas=_BETAS)
        self._of_discriminator = torch.optim.Adam(network.discriminator.parameters(), lr=rate, betas=_BETAS)

    def learn(self, batch: Tensor) -> dict[str, float]:
        """Take one step of both; batch (B, C, Y, X) on [-1, 1]."""
        told = self.learn_discriminator(batch)
        return {"generator": self.learn_generator(len(batch), batch.device), "discriminator": told}

    def learn_discriminator(self, real: Tensor) -> float:
        """Take one step of the discriminator; the generator gets no gradients."""
        self._of_discriminator.zero_grad(set_to_none=True)
        with torch.no_grad():
            fake = self._network.generator(self._noise(len(real), real.device))
        loss = self._loss.discriminator(self._network.discriminator(real), self._network.discriminator(fake))
        loss.backward()
        self._of_discriminator.step()
        return float(loss.detach())

    def learn_generator(self, count: int, device: torch.device) -> float:
        """Take one step of the generator, with noise of its own."""
        self._of_generator.zero_grad(set_to_none=True)
        self._network.discriminator.requires_grad_(False)
        loss = self._loss.generator(self._network.discriminator(self._network.generator(self._noise(count, device))))
        loss.backward()
        self._network.discriminator.requires_grad_(True)
        self._of_generator.step()
        return float(loss.detach())

    def _noise(self, count: int, device: torch.device) -> Tensor:
        return 2 * torch.rand(count, self._network.noise, device=device) - 1

    @torch.no_grad()
    def samples(self, batch: Tensor) -> Tensor:
        """Return as many made images as there are tiles."""
        self._network.eval()
        made = self._network.decode(self._noise(len(batch), batch.device))
        self._network.train()
        return made[:, : self._network.in_channels]

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on, the network's weights aside."""
        return {"generator": self._of_generator.state_dict(), "discriminator": self._of_discriminator.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Undo `state`."""
        self._of_generator.load_state_dict(state["generator"])
        self._of_discriminator.load_state_dict(state["discriminator"])


class Inversion:
    """The encoder learns which noise an image could have been made of; generator and discriminator stay as they are.

    Parameters
    ----------
    network : FAnoGAN
        Its encoder is trained in place.
    rate : float
        Learning rate of Adam.
    kappa : float
        Weight of the difference of the discriminator's features.
    """

    name = "encoder"
    paired = True

    def __init__(self, network: FAnoGAN, rate: float, kappa: float = 1.0) -> None:
        self._network, self._kappa = network, kappa
        for frozen in (network.generator, network.discriminator):
            frozen.eval().requires_grad_(False)  # eval: batch normalisation learns without gradients otherwise
            frozen.zero_grad(set_to_none=True)
        network.encoder.train()
        self._optimizer = torch.optim.Adam(network.encoder.parameters(), lr=rate, betas=_BETAS)

    def learn(self, batch: Tensor) -> dict[str, float]:
        """Take one step; batch (B, C, Y, X) on [-1, 1], channels of masks last."""
        self._optimizer.zero_grad(set_to_none=True)
        network = self._network
        back = network.decode(network.codes(batch[:, : network.in_channels]))
        pixels = F.mse_loss(back, batch)
        features = F.mse_loss(network.discriminator.features(back), network.discriminator.features(batch))
        loss = pixels + self._kappa * features
        loss.backward()
        self._optimizer.step()
        return {"loss": float(loss.detach()), "pixels": float(pixels.detach()), "features": float(features.detach())}

    @torch.no_grad()
    def samples(self, batch: Tensor) -> Tensor:
        """Return tiles and what comes back of them, in pairs."""
        count = self._network.in_channels
        self._network.encoder.eval()
        back = self._network.decode(self._network.codes(batch[:, :count]))
        self._network.encoder.train()
        return torch.stack([batch[:, :count], back[:, :count]], 1).flatten(0, 1)

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on, the network's weights aside."""
        return {"optimizer": self._optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Undo `state`."""
        self._optimizer.load_state_dict(state["optimizer"])
