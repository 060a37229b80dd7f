"""``own_network``: the network of a trained nnU-Net as one of those that this package has itself, by name and arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.models.loaders.nnunet.primus import network_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_tileseg.models.loaders.nnunet.plans import Plans

__all__ = ["OWN", "PACKAGE", "letters", "order", "own_network"]

PACKAGE = "dynamic_network_architectures"

OWN = {"PlainConvUNet": "plain_conv_unet", "ResidualEncoderUNet": "residual_encoder_unet", "ResidualUNet": "residual_conv_unet"}
"""Networks that this package has itself."""


def letters(plans: Plans) -> str:
    """Return the image's axis for each axis of the network."""
    turned = "".join("ZYX"[axis] for axis in plans.order)
    return turned if plans.ndim == 3 else turned[1:]


def order(plans: Plans) -> tuple[int, ...]:
    """Return the place of each axis of the network among those of a tile; empty where they are in the same order."""
    axes = letters(plans)
    ordered = "".join(sorted(axes, key="ZYX".index))
    return () if axes == ordered else tuple(ordered.index(axis) for axis in axes)


def own_network(plans: Plans, trainer: str, weights: Iterable[str], inputs: int, outputs: int) -> tuple[str, dict[str, Any]] | None:
    """Return name and arguments for `build_network`; None where it is a network of another package.

    Parameters
    ----------
    plans : Plans
    trainer : str
        Name of its trainer.
    weights : iterable of str
        Names of the weights in its checkpoint.
    inputs, outputs : int
        Channels in and out.
    """
    dotted, arguments = network_of(plans, trainer)
    kind = dotted.rpartition(".")[2]
    if kind not in OWN or not dotted.startswith(f"{PACKAGE}.architectures."):
        return None
    if any(name.endswith(".running_mean") for name in weights) and "InstanceNorm" in str(arguments.get("norm_op")):
        # A trainer that exchanges the normalisation leaves the plans as they are.
        arguments |= {"norm_op": f"torch.nn.BatchNorm{plans.ndim}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}}
    arguments |= {"input_channels": inputs, "num_classes": outputs}
    return OWN[kind], arguments | ({"axis_order": list(order(plans))} if order(plans) else {})
