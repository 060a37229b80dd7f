"""``build_network``: architectures by name; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from inspect import signature
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["NETWORKS", "accepted_arguments", "build_network"]

NETWORKS: dict[str, str] = {
    "cellpose_sam": "napari_tileseg.models.nets.cellpose_sam:CellposeSAM",
    "cellpose_unet": "napari_tileseg.models.nets.cellpose_unet:CellposeUNet",
    "plain_conv_unet": "napari_tileseg.models.nets.dynamic_unet:PlainConvUNet",
    "residual_conv_unet": "napari_tileseg.models.nets.dynamic_unet:ResidualUNet",
    "residual_encoder_unet": "napari_tileseg.models.nets.dynamic_unet:ResidualEncoderUNet",
    "residual_unet": "napari_tileseg.models.nets.residual_unet:ResidualUNet",
    "unet2015": "napari_tileseg.models.nets.unet2015:UNet2015",
    "unet2015_same": "napari_tileseg.models.nets.unet2015:unet2015_same",
    "vnet2d": "napari_tileseg.models.nets.vnet:VNet2d",
    "vnet2d_paper": "napari_tileseg.models.nets.vnet:vnet2d_paper",
    "vnet_paper": "napari_tileseg.models.nets.vnet:VNetPaper",
    "brau_net_pp": "napari_tileseg.models.nets.brau_net_pp:BRAUNetPP",
    "autoencoder": "napari_tileseg.models.nets.autoencoders:AutoEncoder",
    "conv_autoencoder": "napari_tileseg.models.nets.autoencoders:ConvAutoEncoder",
    "vae": "napari_tileseg.models.nets.autoencoders:VariationalAutoEncoder",
    "gan_generator": "napari_tileseg.models.nets.gan:GANGenerator",
    "gan_discriminator": "napari_tileseg.models.nets.gan:GANDiscriminator",
    "dcgan_generator": "napari_tileseg.models.nets.gan:DCGANGenerator",
    "dcgan_discriminator": "napari_tileseg.models.nets.gan:DCGANDiscriminator",
    "stardist_unet": "napari_tileseg.models.nets.stardist_unet:StarDistUNet",
    "anomaly_autoencoder": "napari_tileseg.models.nets.anomaly:AnomalyMap",
    "f_anogan": "napari_tileseg.models.nets.anomaly:FAnoGAN",
    "paired_generator": "napari_tileseg.models.nets.anomaly:PairedGenerator",
    "monai.DiNTS": "napari_tileseg.models.nets.monai_nets:dints",
    "monai.SegResNetVAE": "napari_tileseg.models.nets.monai_nets:SegResNetVAE",
    "monai.VISTA3D": "napari_tileseg.models.nets.monai_nets:vista3d",
}
"""Where each architecture lives, as ``module:class``; those of MONAI's that are built or used in another way are here too."""


def build_network(name: str, **arguments: Any) -> nn.Module:
    """Build an untrained network.

    Parameters
    ----------
    name : str
        A key of `NETWORKS`, or ``"monai.X"`` for ``monai.networks.nets.X``.
    **arguments
        Keyword arguments of its class.

    Returns
    -------
    torch module
        Maps (B, C, *spatial) to raw scores (B, K, *spatial). Where the class itself returns several results (deep supervision, a
        second task), a hook takes the scores at full size; the names of the weights are those of the class.

    Raises
    ------
    ModelError
        If there is no such network, or it does not take the arguments.
    """
    network = _find(name)
    try:
        module: nn.Module = network(**arguments)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, NotImplementedError, RuntimeError, AssertionError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "nothing"
        raise ModelError(f'The network "{name}" cannot be built with {given}: {error}') from error
    from napari_tileseg.models.nets.outputs import keep_full_scores

    keep_full_scores(module)
    return module


def accepted_arguments(name: str) -> frozenset[str]:
    """Return the names of the arguments that a network takes.

    Raises
    ------
    ModelError
        If there is no such network.
    """
    return frozenset(signature(_find(name)).parameters)


def _find(name: str) -> Any:
    if name in NETWORKS:
        module, _, attribute = NETWORKS[name].partition(":")
        return getattr(import_module(module), attribute)
    prefix, _, attribute = name.partition(".")
    if prefix == "monai" and attribute and not attribute.startswith("_"):
        found = getattr(import_module("monai.networks.nets"), attribute, None)
        if isinstance(found, type):
            return found
        raise ModelError(f'MONAI has no network "{attribute}". Write its class name as in the documentation of monai.networks.nets.')
    raise ModelError(f'There is no network "{name}". Use one of {", ".join(NETWORKS)}, or "monai.X" for a network X of MONAI.')
