"""``encoder_names``: which weights of a network lead down to its coarsest features; the others lead back up and score them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ENCODERS", "encoder_names"]

_NESTED = r"model\.(1\.submodule\.)*(0|conv|adn|residual)"
"""MONAI's nested U-Nets: each level is the first of three parts, the second one holds all levels below; the lowest has no such parts."""

ENCODERS: dict[str, str] = {
    "brau_net_pp": "downsample_layers|stages",
    "cellpose_sam": "encoder",
    "cellpose_unet": "downsample",
    "plain_conv_unet": "encoder",
    "residual_conv_unet": "encoder",
    "residual_encoder_unet": "encoder",
    "residual_unet": "stem|downs|encoders",
    "stardist_unet": r"stem|blocks\.(down|middle)_\w+",
    "unet2015": "downs",
    "unet2015_same": "downs",
    "vnet2d": "stem|left|left_activations|downs",
    "vnet2d_paper": "left|left_activations|downs",
    "vnet_paper": "left|left_activations|downs",
    "monai.AHNet": r"conv1|bn0|layer\d",
    "monai.AttentionUnet": _NESTED,
    "monai.BasicUNet": r"conv_0|down_\d",
    "monai.BasicUNetPlusPlus": r"conv_\d_0",
    "monai.DynUNet": "input_block|downsamples|bottleneck",
    "monai.FlexibleUNet": "encoder",
    "monai.HyenaNDUNETR": r"swinViT|encoder\d+",
    "monai.MedNeXt": "stem|enc_stages|down_blocks|bottleneck",
    "monai.SegResNet": "convInit|down_layers",
    "monai.SegResNetDS": "encoder",
    "monai.SegResNetDS2": "encoder",
    "monai.SegResNetVAE": "convInit|down_layers",
    "monai.SwinUNETR": r"swinViT|encoder\d+",
    "monai.UNETR": r"vit|encoder\d+",
    "monai.UNet": _NESTED,
    "monai.VISTA3D": r"image_encoder\.encoder",
    "monai.VNet": r"in_tr|down_tr\d+",
}
"""How the names of the weights begin that belong to the encoder, for each architecture that has one, up to a point or the end."""


def encoder_names(architecture: str, network: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that lead down.

    Parameters
    ----------
    architecture : str
        As of `build_network`.
    network : torch module
        As it was built.

    Raises
    ------
    OptionsError
        If nothing in this network is known to lead down, as in networks that keep the size of an image all along (HighResNet), or
        whose ways down and up cross each other (DiNTS).
    """
    # MONAI has several names for the same class.
    key = architecture if architecture in ENCODERS else f"monai.{type(network).__name__}"
    begins = ENCODERS.get(key)
    found = [name for name, _ in network.named_parameters() if begins and re.match(rf"({begins})(\.|$)", name)]
    if not found:
        raise OptionsError(
            f'Which part of the network "{architecture}" is its encoder is not known, so it cannot be frozen. '
            "Freeze nothing, or the backbone."
        )
    return frozenset(found)
