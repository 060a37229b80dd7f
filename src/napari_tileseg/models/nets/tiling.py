"""``tiling``: what the card of a model says of its tiles, told from its network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.models.sides import next_side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["tiling"]

_PLANE = 256
_OUTPUT = {2: 388, 3: 44}
"""Least side of what a window of valid convolutions gives: the paper's, and that of its successor for volumes (arXiv:1606.06650)."""


def tiling(architecture: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of a model's card: which sides tiles may have, what they lose, how they are laid, and whether they may be grey.

    Parameters
    ----------
    architecture : str
        Name for `build_network`.
    arguments : mapping
        Its keyword arguments; what is not named has its default.

    Returns
    -------
    dict
        Fields of `ModelSpec`; empty for networks of which this is not known. A ``window`` is good to begin with, and may be changed
        unless ``fixed_window`` is there.
    """
    rule = _RULES.get(architecture)
    return {} if rule is None else rule(arguments)


def _halving(depth: int) -> dict[str, Any]:
    return {"multiple_of": 2**depth, "padding": "reflect"}


def _depth(arguments: Mapping[str, Any]) -> int:
    return len(arguments.get("features", range(5))) - 1


def _unet2015(arguments: Mapping[str, Any]) -> dict[str, Any]:
    if arguments.get("padding", "valid") == "same":
        return _halving(_depth(arguments))
    dims, step = arguments.get("spatial_dims", 2), 2 ** _depth(arguments)
    lost, remainder = 6 * step - 4, (4 * (step - 1)) % step
    return {
        "multiple_of": step,
        "remainder": remainder,
        "output_offset": (lost,) * dims,
        "window": (next_side(_OUTPUT[dims] + 2 * lost, step, remainder),) * dims,
        "overlap": 0.0,
        "steps": "aligned",
        "blending": "crop",
        "padding": "reflect",
    }


def _flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"window": tuple(arguments.get("size", (28, 28))), "fixed_window": True, "padding": "reflect"}


def _conv_autoencoder(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {"multiple_of": 12, "remainder": 4, "window": (_PLANE, _PLANE), "padding": "reflect"}


_RULES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "residual_unet": lambda arguments: {"multiple_of": 2 ** len(arguments.get("channels", range(5)))},
    "unet2015": _unet2015,
    "unet2015_same": lambda arguments: _halving(_depth(arguments)),
    "vnet2d": lambda arguments: _halving(arguments.get("stages", 5) - 1),
    "vnet2d_paper": lambda arguments: _halving(4),
    "vnet_paper": lambda arguments: _halving(4),
    "brau_net_pp": lambda arguments: {**_halving(5), "grey": "repeat" if arguments.get("in_channels", 3) == 3 else "refuse"},
    "conv_autoencoder": _conv_autoencoder,
    "autoencoder": _flat,
    "vae": _flat,
    "anomaly_autoencoder": lambda arguments: tiling(str(arguments.get("network", "conv_autoencoder")), arguments),
    "f_anogan": _flat,
    "paired_generator": _flat,
}
