"""``start_network``: the network that a training begins with, new or from a model, frozen as far as it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_tileseg.errors import ModelError
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.nets.transfer import load_matching
from napari_tileseg.models.predictor import load_model
from napari_tileseg.training.freezing import freeze
from napari_tileseg.training.head import keep_shared

if TYPE_CHECKING:
    from torch import nn

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.config import TrainConfig

__all__ = ["start_network"]


def start_network(config: TrainConfig, spec: ModelSpec) -> tuple[nn.Module, tuple[str, ...]]:
    """Build the network; the same seed gives the same weights.

    Returns
    -------
    network : torch module
        On the CPU, float32.
    notes : tuple of str
        What the user should know: which weights are new.
    """
    torch.manual_seed(config.seed)
    network = build_network(spec.architecture, **spec.arguments)
    notes: tuple[str, ...] = ()
    if config.start:
        before = load_model(config.start, device="cpu")
        if before.module is None:
            raise ModelError(f"{before.spec.label} is no network whose weights can be trained further. Start from another model.")
        state = before.module.state_dict()
        fit = load_matching(network, state)
        kept = keep_shared(network, state, before.spec, spec)
        if kept:
            notes = (f"The head is new; it begins with what {before.spec.label} knows of {', '.join(kept)}.",)
        elif not fit.exact:
            notes = (f"Not taken over from {before.spec.label}: {fit}.",)
    freeze(network, spec, config.freeze)
    return network, notes
