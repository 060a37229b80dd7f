"""Which networks a foreign description may name, and what `build_network` calls them."""

from __future__ import annotations

from napari_tileseg.models.nets import NETWORKS

__all__ = ["MONAI_NETWORKS", "known_network"]

MONAI_NETWORKS = "monai.networks.nets"
"""The package whose classes are networks and nothing else."""


def known_network(dotted: str) -> str | None:
    """Return the name for `build_network` of a class of MONAI's networks or our own; None for all others.

    Parameters
    ----------
    dotted : str
        ``"monai.networks.nets.UNet"``, also with the module between: ``"monai.networks.nets.unet.UNet"``.
    """
    module, _, name = dotted.rpartition(".")
    if (module == MONAI_NETWORKS or module.startswith(f"{MONAI_NETWORKS}.")) and name.isidentifier():
        return f"monai.{name}"
    return next((key for key, place in NETWORKS.items() if place.replace(":", ".") == dotted), None)
