"""``replay``: the job that a saved result came from, read out of the result's own provenance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_tileseg.errors import ModelError, OptionsError
from napari_tileseg.io.files import zarr_root
from napari_tileseg.io.own_labels import is_label_place
from napari_tileseg.io.registry import find_format, read_volume, suffix_of
from napari_tileseg.job import Job, SegmentOptions, sentence
from napari_tileseg.models.ensemble import join
from napari_tileseg.models.registry import find_spec, list_models

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_tileseg.volume import Volume

__all__ = ["Replay", "differences", "find_image", "read_provenance", "recall"]


@dataclass(frozen=True)
class Replay:
    """What a provenance asks to be done again.

    Parameters
    ----------
    job : Job
        Its `input` and `output` are for the caller to fill in: a provenance holds no paths.
    image : str
        Name of the image it was made from.
    notes : tuple of str
        Sentences about what will not be as it was.
    """

    job: Job
    image: str
    notes: tuple[str, ...] = ()


def read_provenance(path: Path) -> dict[str, Any]:
    """Return what a saved result says of how it was made.

    Parameters
    ----------
    path : Path
        Labels, scores or uncertainty that this program saved, in any format that can be read; or a JSON file with a provenance.

    Raises
    ------
    InputError
        If it cannot be read.
    OptionsError
        If it says nothing.
    """
    found: Any = None
    beside = path.with_name(path.name + ".json")  # where the format has no room for it
    if path.suffix.lower() == ".json":
        found = _parsed(path)
    elif find_format(path) is not None:
        found = read_volume(path, lazy=True).metadata.get("provenance")
    if not found and beside.is_file():
        found = _parsed(beside)
    if isinstance(found, dict) and isinstance(found.get("provenance"), dict):
        found = found["provenance"]
    if not (isinstance(found, dict) and isinstance(found.get("model"), dict) and isinstance(found.get("options"), dict)):
        raise OptionsError(
            f'"{path.name}" does not say how it was made. Give labels that this program saved, a job (.json), '
            "or the output folder of a batch."
        )
    return found


def recall(provenance: Mapping[str, Any], *, model: str = "") -> Replay:
    """Make the job that does again what a provenance tells.

    Parameters
    ----------
    provenance : mapping
        Of a `Segmentation`, a layer or a file.
    model : str
        Another reference for the model; by default one with the same weights is looked for here.

    Raises
    ------
    ModelError
        If no model with these weights is here.
    OptionsError
        If the provenance is damaged, or of a newer version of the program.
    """
    try:
        told = provenance["input"]
        region = provenance.get("region")
        job = Job(
            model=model or _model(provenance["model"]),
            options=SegmentOptions(**provenance["options"]),
            axes=str(told["axes"]),
            channels=tuple(provenance["channels"]) if provenance.get("channels") else None,
            region=region,
            series=int(told.get("series", 0)),
            level=int(told.get("level", 0)),
        )
    except ValidationError as error:
        raise OptionsError(f"The provenance cannot be repeated by this version: {sentence(error)} Update napari-tileseg.") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OptionsError(f"The provenance is damaged ({type(error).__name__}: {error}), so the run cannot be repeated.") from None
    return Replay(job, str(told.get("name", "")), tuple(_notes(provenance, job)))


def find_image(result: Path, name: str) -> Path | None:
    """Return the image of a result if it lies beside it, or is the store that the labels lie in."""
    if is_label_place(result) and (root := zarr_root(result)) is not None:
        return root
    folder = result.absolute().parent
    found = [path for path in sorted(folder.iterdir()) if name and _stem(path) == name and path.name != result.name and find_format(path)]
    return found[0] if len(found) == 1 else None


def differences(provenance: Mapping[str, Any], image: Volume) -> list[str]:
    """Say in which ways an image is not the one that a result was made from."""
    from napari_tileseg.engine.fingerprint import sampled

    told = provenance.get("input") or {}
    if list(told.get("shape", image.shape)) != list(image.shape):
        return [f"The image has shape {tuple(image.shape)}; the result was made from one of shape {tuple(told['shape'])}."]
    digest = told.get("content_hash")
    if digest and digest != sampled(image):
        return ["The image is not the one that the result was made from: its intensities differ."]
    return []


def _model(told: Mapping[str, Any]) -> str:
    """Return a reference to the models that have the weights a provenance names."""
    members = told.get("members")
    if members:
        return join(_one(member) for member in members)
    return _one(told)


def _one(told: Mapping[str, Any]) -> str:
    name, weights = str(told["name"]), str(told.get("weights_sha256", ""))
    specs = list_models()
    same = [spec.name for spec in specs if weights and spec.weights_sha256 == weights]
    if same:
        return name if name in same else same[0]
    source = told.get("source") or {}
    where = f" (it came from the file {source['file']})" if source.get("file") else ""
    if any(spec.name == name for spec in specs):
        raise ModelError(
            f'The model "{name}" is here, but with other weights than {weights[:12]}... (SHA-256). Give the right one with --model.'
        )
    raise ModelError(f'The model "{name}" with SHA-256 {weights[:12]}... is not here{where}. Import it, or give it with --model.')


def _notes(provenance: Mapping[str, Any], job: Job) -> list[str]:
    notes = []
    edits = provenance.get("edits") or {}
    if edits:
        count = sum(int(number) for number in edits.values())
        notes.append(f"{count} edit{'s' * (count != 1)} made by hand {'are' if count != 1 else 'is'} not repeated.")
    if provenance.get("state") == "unfinished":
        notes.append("The result was unfinished; this time all of it is computed.")
    told = provenance["model"].get("weights_sha256", "")
    members = provenance["model"].get("members")
    if not members and told and find_spec(job.model).weights_sha256 != told:
        notes.append(f"{job.model} has other weights than the model that the result came from.")
    return notes


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(suffix_of(path))]
