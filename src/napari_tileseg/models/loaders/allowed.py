"""Which networks a foreign description may name, and what `build_network` calls them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.nets import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MONAI_NETWORKS", "harmless", "known_network"]

_READS = re.compile(r"url|path|ckpt|checkpoint|weights?$|file", re.IGNORECASE)
"""Names of arguments with which some networks read or download a file when they are built."""

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


def harmless(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments with which a network is built without reading or downloading anything.

    Raises
    ------
    ModelError
        If one of them names a file or an address.
    """
    wrong = next((name for name, value in arguments.items() if _READS.search(name) and isinstance(value, str) and value), None)
    if wrong is not None:
        raise ModelError(
            f"The network is to be built with {printable(wrong)} = {printable(str(arguments[wrong]))}, a file or an address of its own. "
            "Only the model's own weights are read; take that argument out."
        )
    # Weights from the internet would be replaced by the model's own anyway.
    return {name: False if name == "pretrained" else value for name, value in arguments.items()}
