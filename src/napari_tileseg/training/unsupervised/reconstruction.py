"""``Reconstruction``: an autoencoder learns to bring back what it sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_tileseg.models.nets.autoencoders import ConvAutoEncoder, VariationalAutoEncoder

if TYPE_CHECKING:
    from torch import Tensor

    from napari_tileseg.models.nets.anomaly import AnomalyMap

__all__ = ["Reconstruction", "divergence", "squared_error"]

_DECAY = 1e-5


class Reconstruction:
    """The only stage of an autoencoder.

    Parameters
    ----------
    network : AnomalyMap
        Its autoencoder is trained in place.
    rate : float
        Learning rate of Adam.
    """

    name = "autoencoder"
    paired = True

    def __init__(self, network: AnomalyMap, rate: float) -> None:
        self._model = network.model
        self._network = network
        network.train()
        decay = _DECAY if isinstance(self._model, ConvAutoEncoder) else 0.0
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=rate, weight_decay=decay)

    def learn(self, batch: Tensor) -> dict[str, float]:
        """Take one step; batch (B, C, Y, X) on [-1, 1]."""
        self._optimizer.zero_grad(set_to_none=True)
        losses = self._losses(batch)
        total = torch.stack(list(losses.values())).sum()
        total.backward()
        self._optimizer.step()
        return {"loss": float(total.detach())} | (
            {name: float(value.detach()) for name, value in losses.items()} if len(losses) > 1 else {}
        )

    def _losses(self, batch: Tensor) -> dict[str, Tensor]:
        model = self._model
        if isinstance(model, VariationalAutoEncoder):
            mean, log_variance = model.encode(batch)
            back = model.decode(model.draw(mean, log_variance))
            return {"reconstruction": squared_error(batch, back), "divergence": divergence(mean, log_variance)}
        return {"reconstruction": squared_error(batch, model(batch))}

    @torch.no_grad()
    def samples(self, batch: Tensor) -> Tensor:
        """Return tiles and what comes back of them, in pairs."""
        self._model.eval()
        pairs = torch.stack([batch, self._model(batch)], 1).flatten(0, 1)
        self._model.train()
        return pairs

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on, the network's weights aside."""
        return {"optimizer": self._optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Undo `state`."""
        self._optimizer.load_state_dict(state["optimizer"])


def squared_error(x: Tensor, back: Tensor) -> Tensor:
    """Return the squared differences, summed over each image, the mean of the batch."""
    return (x - back).square().sum() / len(x)


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of codes (B, D) from the standard normal distribution, the mean of the batch."""
    return -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum() / len(mean)
