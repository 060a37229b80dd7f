"""From what a file says of itself to a card: the side-car of the user adds to it, and what nobody says is assumed and marked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from napari_tileseg.models.archive import parse_json, printable
from napari_tileseg.models.package import parse_spec
from napari_tileseg.models.sides import next_side

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["ASKED", "SIDECAR", "class_names", "complete", "describe", "left_unknown", "safe_name", "sidecar", "with_sidecar"]

SIDECAR = ".tileseg.json"
"""End of the name of the file beside a model that says what the model does not."""

ASKED = ("axes", "channels", "classes", "window", "normalization", "spacing", "licence")
"""What a user is asked for where the source does not say it."""

_LARGEST = 4 * 2**20
_WINDOWS = {"CYX": (256, 256), "CZYX": (96, 96, 96)}
_MULTIPLE = 32
"""Sides of tiles that networks with up to five levels accept."""


def sidecar(path: Path) -> Path:
    """Return where the side-car of a model lies: ``cells.tileseg.json`` for ``cells.onnx``, and inside a folder of that name."""
    return path / SIDECAR if path.is_dir() else path.with_name(_stem(path) + SIDECAR)


def describe(path: Path, known: Mapping[str, Any], *, scores: int | None = None, guessed: Mapping[str, Any] | None = None) -> ModelSpec:
    """Return the card of a model.

    Parameters
    ----------
    path : Path
        Its file.
    known : mapping
        Fields of the card that the file itself says.
    scores : int, optional
        Number of score channels, where that is known and the classes' names are not.
    guessed : mapping, optional
        Fields that are likely, better than a default, but still to be confirmed.

    Returns
    -------
    ModelSpec
        Fields of the side-car count more than `known`. What neither says has a default, and is named in `unknown`.

    Raises
    ------
    ModelError
        If the side-car is damaged or contradicts itself.
    """
    extra = sidecar(path)
    told = {**known, **_read(extra)}
    unknown = told.pop("unknown", None)
    if unknown is None:
        unknown = [name for name in ASKED if name not in told]
    values = {"name": safe_name(_stem(path)), "axes": "CYX", "channels": 1, **(guessed or {}), **told}
    if "classes" not in told:
        values["classes"] = class_names(scores or 2)
        if scores == 1:
            values.setdefault("output", "sigmoid")
    window = _WINDOWS.get(values["axes"]) if isinstance(values["axes"], str) else None
    if "window" not in values and window is not None:
        values.setdefault("multiple_of", _MULTIPLE)
        values["window"] = _fitting(window, values["multiple_of"], values.get("remainder", 0))
    values["unknown"] = unknown
    where = extra.name if extra.is_file() else path.name
    return parse_spec(values, f"The card of {printable(where)}")


def _fitting(window: tuple[int, ...], steps: Any, left: Any) -> tuple[int, ...]:
    """Return a window at least as large whose sides fit; as it is where those are no numbers, which the card will say."""
    steps = [steps] * len(window) if isinstance(steps, int) else steps
    if not isinstance(steps, list | tuple) or len(steps) != len(window) or not all(isinstance(step, int) and step > 0 for step in steps):
        return window
    return tuple(next_side(size, step, left) for size, step in zip(window, steps, strict=True)) if isinstance(left, int) else window


def with_sidecar(path: Path, spec: ModelSpec) -> ModelSpec:
    """Return a card with what the side-car of a model says instead; those fields are not unknown any more."""
    told = _read(sidecar(path))
    if not told:
        return spec
    unknown = left_unknown(spec, told)
    told = {**told, **complete(spec, told)}
    return parse_spec({**spec.model_dump(mode="json"), "unknown": unknown, **told}, f"The card of {printable(sidecar(path).name)}")


def complete(spec: ModelSpec, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of the network where a part of them is told: the weights have told the others."""
    same = told.get("architecture", spec.architecture) == spec.architecture
    arguments = told.get("arguments")
    return {"arguments": {**spec.arguments, **arguments}} if same and isinstance(arguments, dict) else {}


def left_unknown(spec: ModelSpec, told: Mapping[str, Any]) -> list[str]:
    """Return the unknown fields of a card that are not told; arguments are known once all are that weights do not tell."""
    arguments = told.get("arguments")
    assumed = set(spec.training.get("assumed_arguments", ())) - set(arguments if isinstance(arguments, dict) else ())
    return [name for name in spec.unknown if name not in told or (name == "arguments" and assumed)]


def class_names(scores: int) -> list[str]:
    """Return names for classes that have none: the background first, or one class alone."""
    if scores == 1:
        return ["foreground"]
    return ["background", *(["foreground"] if scores == 2 else [f"class {index}" for index in range(1, scores)])]


def safe_name(text: str) -> str:
    """Return a name that a card may have, as close to `text` as can be."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._") or "model"


def _stem(path: Path) -> str:
    return path.name.removesuffix("".join(path.suffixes[-1:])) or path.name


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file() or path.stat().st_size > _LARGEST:
        return {}
    told = parse_json(path.read_bytes(), printable(path.name))
    return told if isinstance(told, dict) else {"side-car": told}  # which is no field, and refused as such
