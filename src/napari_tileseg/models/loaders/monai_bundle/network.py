"""The network of a MONAI bundle with its weights, behind the engine's order of axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from napari_tileseg.errors import ModelError, WeightsError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.loaders.allowed import harmless
from napari_tileseg.models.loaders.monai_bundle.architecture import SCRIPT, STATE, network_name
from napari_tileseg.models.loaders.monai_bundle.expression import Component
from napari_tileseg.models.loaders.torchscript import open_module
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.trust import load_torch, require_trust
from napari_tileseg.models.weights import compare, find_state

if TYPE_CHECKING:
    from napari_tileseg.models.loaders.monai_bundle.bundle import Bundle

__all__ = ["BundleNetwork", "load_network", "strange"]


class BundleNetwork(nn.Module):
    """A network that knows axes as X, Y, Z, behind the engine's Z, Y, X.

    Parameters
    ----------
    network : torch module
        Maps (N, C, X, Y, Z) to raw scores.
    reversed : bool
        Whether that is so; otherwise it takes the engine's order.
    threshold : float
        Least probability of a mask; becomes one half.
    """

    def __init__(self, network: nn.Module, *, reversed: bool, threshold: float = 0.5) -> None:
        super().__init__()
        self.network = network
        self._reversed = reversed
        self._shift = math.log(threshold / (1 - threshold)) if 0 < threshold < 1 and threshold != 0.5 else 0.0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return raw scores, shape (N, K, *window), of tiles, shape (N, C, *window)."""
        order = (0, 1, *reversed(range(2, batch.ndim)))
        scores: Any = self.network(batch.permute(order).contiguous() if self._reversed else batch)
        if isinstance(scores, tuple | list):  # deep supervision: the finest first
            scores = scores[0]
        found: torch.Tensor = scores.permute(order) if scores.ndim == batch.ndim and self._reversed else scores
        return found - self._shift if self._shift else found


def load_network(bundle: Bundle) -> nn.Module:
    """Build the network that the configuration describes and give it its weights; else open its TorchScript.

    Raises
    ------
    TrustError
        If that could run code, and nobody has trusted it.
    WeightsError
        If the weights are missing, damaged, or do not fit.
    ModelError
        If there is nothing that can be built.
    """
    if bundle.has(STATE):
        network = _network(bundle)
        path = bundle.file(STATE)
        content = load_torch(path)
        plain = isinstance(content, dict) and all(isinstance(value, torch.Tensor) for value in content.values())
        state = content if plain else find_state(content, STATE)
        shapes = [{name: tuple(value.shape) for name, value in tensors.items()} for tensors in (network.state_dict(), state)]
        if not (fit := compare(*shapes)).exact:
            raise WeightsError(f"{STATE} of {printable(bundle.path.name)} does not fit its network: {fit}. Get the model again.")
        network.load_state_dict(state, strict=False)
        return network
    if bundle.has(SCRIPT):
        path = bundle.file(SCRIPT)
        require_trust(path, "a TorchScript archive holds a program")
        module: nn.Module = open_module(path, "cpu")
        return module
    raise WeightsError(f"{printable(bundle.path.name)} holds neither {STATE} nor {SCRIPT}. Get the model again.")


def _network(bundle: Bundle) -> nn.Module:
    found = bundle.config.get("network_def")
    if isinstance(found, nn.Module):  # the user trusts an expression that builds it
        return found
    if not isinstance(found, Component):
        raise ModelError(f"network_def of {printable(bundle.path.name)} builds nothing. Get the model again.")
    odd = strange(found)
    if odd is None:
        network: nn.Module = _built(found)
        return network
    line = bundle.config.line(odd.target)
    bundle.trusted(f"line {line} builds {printable(odd.target)}, which is none of MONAI's networks and not of torch.nn")
    built = bundle.built("network_def")
    if not isinstance(built, nn.Module):
        raise ModelError(f"network_def of {printable(bundle.path.name)} builds no network. Get the model again.")
    return built


def strange(component: Component, *, inner: bool = False) -> Component | None:
    """Return the first thing to be built that is not on the list."""
    layer = inner and component.target.startswith("torch.nn.") and component.target.count(".") == 2 and _layer(component.target) is not None
    if not layer and not network_name(component):
        return component
    for value in component.arguments.values():
        for part in value if isinstance(value, list | tuple) else [value]:
            if isinstance(part, Component) and (found := strange(part, inner=True)) is not None:
                return found
    return None


def _layer(target: str) -> type[nn.Module] | None:
    found = getattr(nn, target.rpartition(".")[2], None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def _built(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_built(part) for part in value)
    if not isinstance(value, Component):
        return value
    arguments = {key: _built(part) for key, part in value.arguments.items()}
    layer = _layer(value.target) if value.target.startswith("torch.nn.") else None
    return layer(**arguments) if layer is not None else build_network(network_name(value), **harmless(arguments))
