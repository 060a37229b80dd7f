"""``star_card`` and ``flow_card``: what the cards of all models have in common that find objects as StarDist, or as Cellpose does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from napari_tileseg.models.loaders.stardist_config import reach
from napari_tileseg.models.resampling import Interpolation, Resampling

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["flow_card", "star_card"]

_RIM = 2
"""Pixels of the grid at the border of an image that StarDist leaves out."""

_WINDOWS = {2: 1024, 3: 128}
_OVERLAP = 0.375
"""Largest overlap of volumes: more would be exact, and take days."""


def star_card(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields of the card of a network that gives distances along rays.

    Parameters
    ----------
    arguments : mapping
        Of ``stardist_unet``, all of them.

    Returns
    -------
    dict
        Fields of `ModelSpec`; the thresholds of its decoder are to be added.
    """
    ndim, grid = arguments["spatial_dims"], arguments["grid"]
    axes = "ZYX"[3 - ndim :]
    multiples = [by * pool ** arguments["depth"] for by, pool in zip(grid, arguments["pool"], strict=True)]
    multiple = math.lcm(*multiples)
    window = -(-max(_WINDOWS[ndim], multiple) // multiple) * multiple
    overlap = 2 * reach(arguments) / window
    return {
        "architecture": "stardist_unet",
        "arguments": dict(arguments),
        "axes": "C" + axes,
        "normalization": {"kind": "percentile", "lower": 1.0, "upper": 99.8},
        "resampling": {"tolerance": 0, "image": {"antialias": False}},
        "window": (window,) * ndim,
        "multiple_of": tuple(multiples),
        "overlap": min(0.75, overlap) if ndim == 2 else min(_OVERLAP, overlap),
        "steps": "inside",
        "blending": "crop",
        "mirror_axes": "",  # in a mirrored tile rays have other numbers
        "output": "instances",
        "heads": ["object", *(f"distance {ray}" for ray in range(arguments["rays"]))],
        "decoder": "stardist",
        "decoder_parameters": {
            **{f"rim_{axis.lower()}": float(_RIM * step) for axis, step in zip(axes, grid, strict=True)},
            **{f"padded_{axis.lower()}": float(by) for axis, by in zip(axes, multiples, strict=True)},
        },
        "citation": "Schmidt et al., MICCAI 2018" if ndim == 2 else "Weigert et al., WACV 2020",
    }


def flow_card(*, four: bool = False) -> dict[str, Any]:
    """Return fields of the card of a network that gives flows.

    Parameters
    ----------
    four : bool
        Whether it is run as version 4 of Cellpose does it, not as versions 1 to 3 do.

    Returns
    -------
    dict
        Fields of `ModelSpec`; network, channels and window are to be added, and how long its decoder walks.
    """
    return {
        "axes": "CYX",
        "grey": "fewer",
        "normalization": {"kind": "percentile", "lower": 1.0, "upper": 99.0},
        "resampling": Resampling(tolerance=0, down=True, image=Interpolation(antialias=False), scores=Interpolation()).model_dump(),
        "overlap": 0.1,
        "steps": "cellpose4" if four else "cellpose3",
        "blending": "cellpose",
        "mirror_axes": "",  # a mirrored tile has other flows
        "output": "instances",
        "heads": ["cell", "flow along Y", "flow along X"],
        "decoder": "cellpose",
        "decoder_parameters": {"flow_threshold": 0.4, "touching": float(four), "aside": float(four)},
        "citation": "Pachitariu et al., bioRxiv 2025.04.28.651001" if four else "Stringer et al., Nature Methods 18 (2021), 100",
    }
