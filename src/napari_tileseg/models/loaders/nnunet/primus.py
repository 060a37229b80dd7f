"""Networks that nnU-Net's Primus trainers build instead of the one that the plans name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_tileseg.models.loaders.nnunet.plans import Plans

__all__ = ["MODULE", "NAMES", "network_of"]

MODULE = "dynamic_network_architectures.architectures.primus"

NAMES = {
    f"{MODULE}.Primus{version}{size}": "output_channels" if size else "num_classes"
    for version in ("", "V2", "V3")
    for size in ("", "S", "B", "M", "L")
}
"""The classes of that module that plans and trainers name, and how each calls the number of scores; no other name is ever imported."""

_TRAINER = re.compile(r"nnUNet_Primus_?(V2|V3)?([SBML])_Trainer\w*")

_PATCH = 8
"""Side of the cubes that its trainers cut a window into."""


def network_of(plans: Plans, trainer: str) -> tuple[str, dict[str, Any]]:
    """Return dotted name and arguments of the network of a trained model.

    Parameters
    ----------
    plans : Plans
    trainer : str
        Name of its trainer.
    """
    found = _TRAINER.fullmatch(trainer)
    if found is None:
        return plans.network
    size = [int(side) for side in plans["patch_size"]]
    # What is dropped at random in training has no part in predictions.
    arguments = {"patch_embed_size": [_PATCH] * len(size), "input_shape": size, "scale_attn_inner": True, "init_values": 0.1}
    return f"{MODULE}.Primus{found[1] or ''}{found[2]}", arguments
