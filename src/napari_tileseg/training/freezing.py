"""``freeze``: which weights of a network a training leaves as they are; and ``set_learning``, which keeps what they have measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from napari_tileseg.errors import OptionsError
from napari_tileseg.models.nets.halves import encoder_names
from napari_tileseg.training.head import result_weights

if TYPE_CHECKING:
    from torch import nn

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["freeze", "set_learning"]


def freeze(network: nn.Module, spec: ModelSpec, part: Literal["none", "encoder", "backbone"]) -> None:
    """Take a part of a network's weights out of the training.

    Parameters
    ----------
    network : torch module
        Changed in place.
    spec : ModelSpec
        Of the model that it is.
    part : {"none", "encoder", "backbone"}
        What stays: nothing, what leads down to the coarsest features, or all but the weights that there is a part of for each result.

    Raises
    ------
    OptionsError
        If that part is not known of this network.
    """
    if part == "none":
        return
    names = {name for name, weight in network.named_parameters() if weight.requires_grad}
    if part == "encoder":
        kept = names & encoder_names(spec.architecture, network)
    else:
        kept = names - result_weights(spec).keys()
    if kept == names:
        raise OptionsError(
            f'Which weights of the network "{spec.architecture}" make up its head is not known, so the others cannot be frozen. '
            "Freeze nothing."
        )
    for name, weight in network.named_parameters():
        if name in kept:
            weight.requires_grad_(False)


def set_learning(network: nn.Module) -> nn.Module:
    """Set a network to learn, and the parts that are frozen as a whole to be used: they measure nothing and leave nothing out by chance.

    Returns
    -------
    torch module
        The same.
    """
    network.train()
    for module in network.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()
    return network
