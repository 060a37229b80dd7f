"""``told``: from the options that say what a model does not say to fields of its card."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from napari_tileseg.cli.values import numbers
from napari_tileseg.errors import OptionsError

__all__ = [
    "Accept",
    "Arguments",
    "Axes",
    "Channels",
    "Classes",
    "Licence",
    "MultipleOf",
    "Normalization",
    "Output",
    "Spacing",
    "Window",
    "told",
]

Axes = Annotated[str | None, typer.Option(help="Axes of one tile: YX or ZYX.")]
Channels = Annotated[str | None, typer.Option(help="Names of the input channels with commas between them, or their number.")]
Classes = Annotated[str | None, typer.Option(help="Names of the classes with commas between them, the background first.")]
Window = Annotated[str | None, typer.Option(help="Size of one tile: 256,256.")]
MultipleOf = Annotated[str | None, typer.Option(help="What the sides of a tile must be multiples of: 16, or 4,16,16.")]
Normalization = Annotated[
    str | None, typer.Option(help="none, zscore, percentile, percentile:1,99.8 or range:LOW,HIGH: how intensities are scaled.")
]
Spacing = Annotated[str | None, typer.Option(help="Pixel size it was trained at, with its unit: 0.5,0.5um or 1,1,1mm.")]
Output = Annotated[str | None, typer.Option(help="softmax (one class for each pixel) or sigmoid (classes may overlap).")]
Arguments = Annotated[str | None, typer.Option(help="Checkpoints: arguments of the network as JSON.")]
Licence = Annotated[str | None, typer.Option(help="SPDX expression, such as CC-BY-4.0.")]
Accept = Annotated[bool, typer.Option("--accept", help="Take for said what is assumed of everything else.")]

_UNITS = {"um": "micrometer", "µm": "micrometer", "micrometer": "micrometer", "mm": "millimeter", "millimeter": "millimeter"}


def told(
    *,
    axes: str | None,
    channels: str | None,
    classes: str | None,
    window: str | None,
    multiple_of: str | None,
    normalization: str | None,
    spacing: str | None,
    output: str | None,
    arguments: str | None,
    licence: str | None,
) -> dict[str, Any]:
    """Return fields of a card; only those that were given.

    Raises
    ------
    OptionsError
        If one cannot be read.
    """
    steps = numbers(multiple_of, "--multiple-of")
    answers: dict[str, Any] = {
        "axes": None if axes is None else f"C{axes.upper().lstrip('C')}",
        "channels": _names(channels),
        "classes": None if classes is None else [part.strip() for part in classes.split(",")],
        "window": numbers(window, "--window"),
        "multiple_of": steps[0] if steps and len(steps) == 1 else steps,
        "normalization": _normalization(normalization),
        **_spacing(spacing),
        "output": output,
        "arguments": _arguments(arguments),
        "licence": licence,
    }
    return {name: value for name, value in answers.items() if value is not None}


def _names(text: str | None) -> list[str] | None:
    if text is None:
        return None
    if text.isdecimal():
        return [f"channel {index + 1}" for index in range(int(text))]
    return [part.strip() for part in text.split(",")]


def _normalization(text: str | None) -> dict[str, Any] | None:
    """Read ``"percentile:1,99.8"``."""
    if text is None:
        return None
    kind, _, rest = text.partition(":")
    names = {"percentile": ("lower", "upper"), "range": ("low", "high")}.get(kind, ())
    try:
        values = [float(part) for part in rest.split(",")] if rest else []
    except ValueError:
        values = [0.0]
    if kind not in ("none", "zscore", "percentile", "range") or len(values) not in (0, len(names)) or (kind == "range" and not values):
        raise OptionsError(f'--normalization "{text}" is not accepted. Give none, zscore, percentile, percentile:1,99.8 or range:0,255.')
    return {"kind": kind, **dict(zip(names, values, strict=False))}


def _spacing(text: str | None) -> dict[str, Any]:
    """Read ``"0.5,0.5um"``."""
    if text is None:
        return {}
    unit = next((unit for unit in sorted(_UNITS, key=len, reverse=True) if text.endswith(unit)), "")
    try:
        values = [float(part) for part in text.removesuffix(unit).split(",")]
    except ValueError:
        values = []
    if not values or not unit:
        raise OptionsError(f'--spacing "{text}" is not accepted. Give one length for each axis and the unit: 0.5,0.5um or 1,1,1mm.')
    return {"spacing": values, "spacing_unit": _UNITS[unit]}


def _arguments(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        read = json.loads(text)
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise OptionsError(f'--arguments "{text}" is not accepted. Give JSON: {{"spatial_dims": 2, "in_channels": 1}}.')
    return read
