"""``known_architecture``: the network of a bundle by name and arguments, where that is all there is to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.loaders.allowed import MONAI_NETWORKS, harmless, known_network

if TYPE_CHECKING:
    from napari_tileseg.models.loaders.monai_bundle.expression import Component

__all__ = ["SCRIPT", "STATE", "known_architecture", "network_name"]

STATE, SCRIPT = "models/model.pt", "models/model.ts"


def network_name(component: Component) -> str:
    """Return the name for `build_network`; a name without a package is one of MONAI's."""
    target = component.target
    return known_network(target if "." in target else f"{MONAI_NETWORKS}.{target}") or ""


def known_architecture(component: Component, ndim: int, *, reversed: bool) -> dict[str, Any]:
    """Return the fields of a card that name a network; empty where it is put together of parts, or is none of those that are known.

    Parameters
    ----------
    component : Component
        What the configuration builds.
    ndim : int
        Axes of space.
    reversed : bool
        Whether it knows them as X, Y, Z.
    """
    name = network_name(component)
    try:
        arguments = harmless(component.arguments)
    except ModelError:
        return {}  # which is said where it is loaded
    if not name or not _plain(arguments):
        return {}
    order = {"axis_order": list(range(ndim))[::-1]} if reversed else {}
    return {"architecture": name, "arguments": arguments | order}


def _plain(value: Any) -> bool:
    """Tell whether a value can stand in a card."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(_plain(part) for part in value)
    return value is None or isinstance(value, str | int | float | bool)
