"""What the user says of a model that its source does not say, remembered by the checksum of its files."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError, OutputError
from napari_tileseg.folders import model_folder
from napari_tileseg.models.loaders.describe import complete, left_unknown
from napari_tileseg.models.package import parse_spec
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_tileseg.models.loaders.registry import Place
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["accepted", "answered", "answers_folder", "recall", "remember"]

_LARGEST = 2**20


def answered(spec: ModelSpec, answers: Mapping[str, Any]) -> ModelSpec:
    """Return a card with what the user says; those fields are known from then on.

    Parameters
    ----------
    spec : ModelSpec
    answers : mapping
        Values of its fields; None says nothing. Under ``"unknown"``, the names that stay unknown whatever else is said.

    Raises
    ------
    ModelError
        If they are no values of a card, or contradict each other.
    """
    known = {name: value for name, value in answers.items() if value is not None}
    values = spec.model_dump(mode="json")
    if "axes" in known and known["axes"] != spec.axes and "window" not in known:
        values["window"] = [values["window"][-1]] * (len(known["axes"]) - 1)
        values["spacing"] = values["output_offset"] = values["mirror_axes"] = None
    if "classes" in known and "colors" not in known:
        values["colors"] = []
    values["unknown"] = left_unknown(spec, known)
    values |= {**known, **complete(spec, known)}
    return parse_spec(values, "What was said of the model")


def accepted(spec: ModelSpec, answers: Mapping[str, Any]) -> dict[str, Any]:
    """Return answers that also say of every other unknown field what was assumed of it; nothing is unknown then."""
    kept = answered(spec, answers).model_dump(mode="json")
    return {**{name: kept[name] for name in spec.unknown}, **answers, "unknown": []}


def answers_folder() -> Path:
    """Return where answers are kept: beside the folder of the user's models, whose content may come from others."""
    folder = model_folder()
    return folder.with_name(f"{folder.name}-answers")


def remember(place: Place, spec: ModelSpec, answers: Mapping[str, Any]) -> None:
    """Keep what the user says of a model, in addition to what was said before; it holds for the same files wherever they are.

    Raises
    ------
    OutputError
        If it cannot be written down.
    """
    path = _path(place, spec)
    said = {**_read(path), **{name: value for name, value in answers.items() if value is not None}}
    temporary = path.with_name(f".{secrets.token_hex(6)}.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("x", encoding="utf-8") as stream:
                json.dump({"model": spec.name, "said": said}, stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            move(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"It cannot be remembered in {path}: {error.strerror or error}. Check the folder's permissions.") from None


def recall(place: Place, spec: ModelSpec) -> ModelSpec:
    """Return the card with what the user has said of these files; as it is where that is nothing, or does not fit any more."""
    said = _read(_path(place, spec))
    try:
        return answered(spec, said) if said else spec
    except ModelError:
        return spec  # which says that it is unknown, so that it is asked again


def _path(place: Place, spec: ModelSpec) -> Path:
    # What the loader is told besides is part of it: another output of the same file is another model.
    key = json.dumps([spec.weights_sha256, place.loader.scheme, sorted(place.options.items())])
    return answers_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            return {}
        said = json.loads(path.read_text(encoding="utf-8"))["said"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}
