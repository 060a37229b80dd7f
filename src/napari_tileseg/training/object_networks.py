"""``new_card``: the card of a new network that finds objects as StarDist, or as Cellpose does, fitted to the objects at hand."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import OptionsError
from napari_tileseg.models.object_cards import flow_card, star_card
from napari_tileseg.models.sides import next_side

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.training.report import Report

__all__ = ["NEW", "diameter_of", "new_card", "seen_at"]

_DIAMETER = 30.0
"""Pixels across an object in the view of a network that gives flows."""

_STEPS = 200
"""How often pixels move at that size."""

_SIDE = 224
_LARGEST_ZOOM = 8.0


def new_card(config: TrainConfig, report: Report, dims: int, spacing: Sequence[float] | None) -> dict[str, Any]:
    """Return the fields of a card that follow from such a network.

    Parameters
    ----------
    config : TrainConfig
        Its network is a key of `NEW`; its arguments count more than the usual ones.
    report : Report
        Of its data.
    dims : int
        Axes of space.
    spacing : sequence of float, optional
        Pixel size along them.

    Raises
    ------
    OptionsError
        If an argument cannot be.
    """
    return NEW[config.network](config, report, dims, spacing)


def diameter_of(report: Report) -> float | None:
    """Return how many pixels an object of middle size is across: the diameter of a disc, or ball, as large; None if there is none."""
    ndim = sum(axis in "ZYX" for axis in report.typical.axes)
    sizes = [count for facts in report.facts for value, count in facts.values.items() if value > 0]
    if not sizes:
        return None
    middle = median(sizes)
    return float(2 * math.sqrt(middle / math.pi) if ndim == 2 else 2 * (3 * middle / (4 * math.pi)) ** (1 / 3))


def seen_at(start: ModelSpec, config: TrainConfig, report: Report) -> dict[str, Any]:
    """Return the fields of the card of Cellpose's U-Net that say how large images are seen: so that objects are as it knows them.

    Empty for other networks, and where the user has said the diameter.
    """
    known, diameter = start.training.get("diameter"), diameter_of(report)
    said = "diameter=" in config.start or "diameter" in start.source_options
    if start.architecture != "cellpose_unet" or known is None or diameter is None or said:
        return {}
    return _seen(float(known) / diameter, start.decoder_parameters)


def _seen(zoom: float, parameters: Mapping[str, float]) -> dict[str, Any]:
    """Return the zoom, and parameters of a decoder that walks as far in the network's view as it does without."""
    zoom = round(min(_LARGEST_ZOOM, max(1 / _LARGEST_ZOOM, zoom)), 3)
    return {"zoom": None if zoom == 1 else (zoom, zoom), "decoder_parameters": {**parameters, "steps": float(int(_STEPS / zoom))}}


def _stars(config: TrainConfig, report: Report, dims: int, spacing: Sequence[float] | None) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "rays": 32 if dims == 2 else 96,
        "grid": [1, 2, 2][3 - dims :],
        "depth": 3 if dims == 2 else 2,
        "kernel_size": [3] * dims,
        "pool": [2] * dims,
        "filters": 32,
        "convolutions": 2,
        "expansion": 2,
        "features": 128,
        **config.arguments,
        "spatial_dims": dims,
        "in_channels": report.channels,
    }
    for name in ("grid", "kernel_size", "pool"):
        sizes = arguments[name]
        if not isinstance(sizes, list) or len(sizes) != dims or not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise OptionsError(f"{name} = {sizes} was given; a list of {dims} whole numbers is accepted.")
    for name in ("rays", "depth", "filters", "convolutions", "features"):
        if not isinstance(arguments[name], int) or arguments[name] < (dims + 1 if name == "rays" else name not in ("depth", "features")):
            raise OptionsError(f"{name} = {arguments[name]} was given; a whole number that makes a network is accepted.")
    if any(step & (step - 1) for step in arguments["grid"]):
        raise OptionsError(f"grid = {arguments['grid']} was given; powers of 2 are accepted.")
    card = star_card(arguments)
    card["decoder_parameters"] |= {"prob_thresh": 0.5, "nms_thresh": 0.4}
    if dims == 3 and spacing is not None:
        card["decoder_parameters"] |= {f"anisotropy_{axis}": size / min(spacing) for axis, size in zip("zyx", spacing, strict=True)}
    return card


def _flows(config: TrainConfig, report: Report, dims: int, spacing: Sequence[float] | None) -> dict[str, Any]:
    if dims != 2:
        raise OptionsError(f'The network "{config.network}" learns planes. Choose 2 dimensions, or another network.')
    arguments = {"channels": [32, 64, 128, 256], **config.arguments, "in_channels": report.channels}
    channels = arguments["channels"]
    if not isinstance(channels, list) or not channels or not all(isinstance(count, int) and count >= 1 for count in channels):
        raise OptionsError(f"channels = {channels} was given; a list of whole numbers is accepted.")
    multiple = 2 ** (len(channels) - 1)
    card = flow_card()
    return {
        **card,
        **_seen(_DIAMETER / (diameter_of(report) or _DIAMETER), card["decoder_parameters"]),
        "architecture": config.network,
        "arguments": arguments,
        "grey": "refuse",
        "spacing": None,
        "window": (next_side(_SIDE, multiple),) * 2,
        "multiple_of": multiple,
    }


NEW: dict[str, Callable[[TrainConfig, Report, int, Sequence[float] | None], dict[str, Any]]] = {
    "stardist_unet": _stars,
    "cellpose_unet": _flows,
}
"""Networks that find objects in their own way only."""
