"""``load_matching``: start a network from the weights of another, as far as names and shapes agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.models.weights import compare, variants

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from napari_tileseg.models.weights import Fit

__all__ = ["load_matching"]


def load_matching(module: nn.Module, state: Mapping[str, Any]) -> Fit:
    """Copy the weights whose names and shapes are in both; the others of the network stay as they are.

    So BRAU-Net++ takes the encoder of a BiFormer, and a network takes all but the head of one for other classes.

    Parameters
    ----------
    module : nn.Module
        Changed in place.
    state : mapping of str to Tensor
        Wrappers' prefixes may be there; the names under which most agree count.

    Returns
    -------
    Fit
        What was not copied: names that only one of them has, and shapes that differ.
    """
    own = module.state_dict()
    shapes = {name: tuple(value.shape) for name, value in own.items()}

    def shared(names: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in names.items() if shapes.get(name) == tuple(value.shape)}

    names = max(variants(state), key=lambda found: len(shared(found)))
    module.load_state_dict(shared(names), strict=False)
    return compare(shapes, {name: tuple(value.shape) for name, value in names.items()})
