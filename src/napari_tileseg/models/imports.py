"""Bring models into the user's folder, take them out, write them in our own format, and check that they work."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from napari_tileseg.errors import ModelError, OutputError, TrustError
from napari_tileseg.folders import model_folder
from napari_tileseg.models.answers import accepted, answered, remember
from napari_tileseg.models.archive import printable
from napari_tileseg.models.checksum import checksum
from napari_tileseg.models.loaders.describe import safe_name
from napari_tileseg.models.loaders.registry import OWN, Place
from napari_tileseg.models.package import SPEC_FILE, write_spec
from napari_tileseg.models.registry import BUNDLED, find_spec, locate, spec_of
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_tileseg.models.loaders.registry import Loader
    from napari_tileseg.models.spec import ModelSpec

__all__ = [
    "Checked",
    "Standing",
    "answer_model",
    "export_model",
    "import_model",
    "remove_model",
    "running_files",
    "standing",
    "verify_model",
]

_SOURCE = "source"
"""Folder inside a package that holds an imported model's files."""


@dataclass(frozen=True)
class Standing:
    """What is known of a model besides its card.

    Parameters
    ----------
    kind : str
        Title of its loader.
    trust : str
        ``"not needed"``, ``"trusted"`` or ``"needed"``.
    size : int
        Bytes of its files.
    place : {"built in", "own", "elsewhere"}
    """

    kind: str
    trust: str
    size: int
    place: str


@dataclass(frozen=True)
class Checked:
    """What a check of a model has found: its files are whole, its weights fit, and one empty tile went through."""

    sha256: str
    seconds_to_load: float
    seconds_for_tile: float
    scores: tuple[int, ...]


def import_model(ref: str, answers: Mapping[str, Any] | None = None, *, accept: bool = False, name: str = "", link: bool = False) -> Path:
    """Bring a model into the user's folder, with what the user says of it, so that its name suffices from then on.

    Weights whose network has a name are written in our own format; of anything else the files themselves are kept, with a card.

    Parameters
    ----------
    ref : str
        Path of a model, or ``scheme:PATH``.
    answers : mapping, optional
        Fields of the card that its source does not say, or says wrongly.
    accept : bool
        Take what is assumed of the others for said.
    name : str
        Under which it is kept; the model's own by default.
    link : bool
        Leave the files where they are, and keep only the card.

    Returns
    -------
    Path
        The package.

    Raises
    ------
    ModelError
        If it is no model, or what was said contradicts it.
    TrustError
        If its files could run code and the user has not trusted them.
    OutputError
        If it is there already, or cannot be written.
    """
    place = locate(ref)
    answers = dict(answers or {})
    card = _spec(place, answers)
    spec = answered(card, accepted(card, answers) if accept else answers)
    label = safe_name(name or spec.name)
    spec = spec.model_copy(update={"name": label})
    target = model_folder() / label
    if target.exists():
        raise OutputError(f'A model "{label}" is there already. Give another name (--name), or remove it: tileseg models remove {label}.')
    if place.loader is not OWN and spec.architecture and not link and place.loader.scheme == "checkpoint":
        _write_weights(place, spec, target)
    elif place.loader is OWN and not find_spec(ref).loader:
        _copy_own(place, spec, target)
    else:
        _wrap(place, spec, target, link=link)
    try:
        _try_unknown(target, spec)
    except TrustError:
        pass  # it may be trusted later; the copy has the same bytes
    except (ModelError, KeyboardInterrupt):
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target


def answer_model(ref: str, answers: Mapping[str, Any], *, accept: bool = False) -> ModelSpec:
    """Remember what the user says of a model that is here already: in its package, or by the checksum of its files.

    One empty tile goes through before anything is remembered, so that a wrong answer shows now.

    Parameters
    ----------
    ref : str
        Name or path of a model.
    answers : mapping
        Fields of the card that its source does not say, or says wrongly.
    accept : bool
        Take what is assumed of the others for said.

    Returns
    -------
    ModelSpec
        As it is from now on.

    Raises
    ------
    ModelError
        If what was said contradicts the model, or it is built in.
    OutputError
        If it cannot be written down.
    """
    import torch

    if ref.startswith("ensemble:"):
        raise ModelError("An ensemble is not one model. Say it of its members one by one.")
    place = locate(ref)
    if place.path.parent == BUNDLED:
        raise ModelError(f"{printable(place.path.name)} comes with the program and says everything, so nothing can be said of it.")
    before = spec_of(place)
    said = accepted(before, answers) if accept else dict(answers)
    spec = answered(before, said)
    with contextlib.suppress(TrustError):  # it may be trusted later
        _one_tile(place.loader.call("load", place.path, spec, "cpu", **_told(place)), spec, torch)
    if _where(place) == "own" and place.loader is OWN and place.path.is_dir():
        write_spec(place.path, spec)
    else:
        remember(place, before, said)
    return spec


def remove_model(ref: str) -> Path:
    """Delete a model of the user's folder; a model that was linked stays where it is.

    Raises
    ------
    ModelError
        If it is built in, or lies elsewhere.
    OutputError
        If the system refuses.
    """
    path = locate(ref).path
    if path.parent == BUNDLED:
        raise ModelError(f"{printable(path.name)} comes with the program, so it cannot be removed.")
    if path.absolute().parent != model_folder().absolute():
        raise ModelError(f"{printable(path.name)} is not in {model_folder()}, so it was not removed. Delete it yourself if you want to.")
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise OutputError(f"{path.name} cannot be removed: {error.strerror or error}. Check the folder's permissions.") from None
    return path


def export_model(ref: str, path: Path, *, overwrite: bool = False) -> Path:
    """Write a model in our own format, a folder or ``.tileseg.zip``.

    A network of torch whose architecture has a name becomes a card and safetensors. Of anything else the files are put beside the
    card, so that the package can be given on; what could run code still needs trust.

    Raises
    ------
    ModelError
        If it is an ensemble, or cannot be loaded.
    OutputError
        If something is there already, or it cannot be written.
    """
    if path.exists() and not overwrite:
        raise OutputError(f'"{path}" is there already. Give another name, or replace it with --overwrite.')
    if ref.startswith("ensemble:"):
        raise ModelError("An ensemble is not one model. Export its members one by one.")
    place = locate(ref)
    spec = spec_of(place)
    if spec.architecture and not (place.loader is OWN and spec.loader) and _write_weights(place, spec, path):
        return path
    _wrap(place, spec, path, link=False)
    return path


def verify_model(ref: str) -> Checked:
    """Load a model, compare its checksum, and compute one empty tile on the processor.

    Raises
    ------
    ModelError
        If its files were changed or damaged, its weights do not fit, or it does not return what its card says.
    """
    import torch

    from napari_tileseg.models.predictor import load_model

    spec = find_spec(ref)
    began = time.perf_counter()
    predictor: Any = load_model(ref, device="cpu")
    loaded = time.perf_counter() - began
    began = time.perf_counter()
    scores = _one_tile(predictor, spec, torch)
    return Checked(spec.weights_sha256, loaded, time.perf_counter() - began, tuple(scores.shape))


def standing(spec: ModelSpec, ref: str = "") -> Standing:
    """Return kind, trust, size and place of a model."""
    from napari_tileseg.models.trust import is_trusted

    place = locate(ref or spec.name)
    try:
        loader, path = _files_of(place, spec)
    except ModelError:
        return Standing(spec.loader, "not needed", 0, _where(place))
    running = _running(loader, path)
    trust = "not needed" if not running else "trusted" if all(is_trusted(file) for file in running) else "needed"
    return Standing(loader.title, trust, sum(file.stat().st_size for file in loader.members(path)), _where(place))


def running_files(ref: str) -> list[Path]:
    """Return the files of a model that run only where the user trusts them; none for most models.

    Raises
    ------
    ModelError
        If there is no such model, or its files are missing.
    """
    place = locate(ref)
    return _running(*_files_of(place, spec_of(place)))


def _files_of(place: Place, spec: ModelSpec) -> tuple[Loader, Path]:
    """Return who loads a model and from where; of an imported one, from inside its package."""
    from napari_tileseg.models.loaders.registry import find_loader
    from napari_tileseg.models.packaged import source

    if place.loader is OWN and spec.loader:
        return find_loader(spec.loader), source(place.path, spec)
    return place.loader, place.path


def _running(loader: Loader, path: Path) -> list[Path]:
    if not loader.runs_code:
        return []
    return list(loader.call("code", path)) if loader.code else list(loader.members(path))


def _where(place: Place) -> str:
    folder = place.path.absolute().parent
    return "built in" if folder == BUNDLED else "own" if folder == model_folder().absolute() else "elsewhere"


def _spec(place: Place, answers: dict[str, Any]) -> ModelSpec:
    """Return the card; what names the network of a checkpoint must be known before it can be read."""
    if place.loader.scheme == "checkpoint" and "architecture" in answers:
        options = {"architecture": answers["architecture"], "arguments": json.dumps(answers.get("arguments", {}))}
        return spec_of(Place(place.loader, place.path, {**place.options, **options}))
    return spec_of(place)


def _write_weights(place: Place, spec: ModelSpec, target: Path) -> bool:
    """Write the network in our own format; tell whether it is one network whose weights are at hand."""
    from napari_tileseg.models.nets.shapes import expected_shapes
    from napari_tileseg.models.package import write_package
    from napari_tileseg.models.weights import best_fit

    predictor: Any = place.loader.call("load", place.path, spec, "cpu", **_told(place))
    module = getattr(predictor, "module", None)
    if module is None:
        return False
    fit, state = best_fit(expected_shapes(spec.architecture, spec.arguments), module.state_dict())
    if not fit.exact:
        raise ModelError(f"The network of {spec.label} is not {spec.architecture} as its card says: {fit}.")
    text = place.loader.call("card", place.path) if place.loader.card else ""
    kept = spec.model_copy(update={"loader": "", "source": "", "source_options": {}})
    write_package(target, kept, state, card=text)
    return True


def _told(place: Place) -> dict[str, str]:
    return {name: value for name, value in place.options.items() if name not in ("architecture", "arguments")}


def _copy_own(place: Place, spec: ModelSpec, target: Path) -> None:
    from napari_tileseg.models.package import build_module, write_package
    from napari_tileseg.models.packaged import card

    _, module = build_module(place.path)
    write_package(target, spec, module.state_dict(), card=card(place.path))


def _wrap(place: Place, spec: ModelSpec, target: Path, *, link: bool) -> None:
    """Write a card around the files of a model of another kind."""
    loader, path, options = place.loader, place.path, dict(place.options)
    if loader is OWN and spec.loader:
        from napari_tileseg.models.loaders.registry import find_loader
        from napari_tileseg.models.packaged import source

        loader, options = find_loader(spec.loader), dict(spec.source_options)
        path = source(path, spec)
    if loader.pack and not link:
        path, files, options = loader.call("pack", path, **options)
    else:
        files = loader.members(path)
    root = path if path.is_dir() else path.parent
    inside = "" if path.is_dir() else f"/{path.name}"
    update = {
        "loader": loader.scheme,
        "source": str(path.absolute()) if link else f"{_SOURCE}{inside}",
        "source_options": {key: str(value) for key, value in options.items()},
        "weights_sha256": checksum(files, path),
    }
    spec = spec.model_copy(update=update)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}")
    try:
        temporary.mkdir(parents=True)
        (temporary / SPEC_FILE).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
        for file in [] if link else files:
            copy = temporary / _SOURCE / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        if target.name.endswith(".zip"):
            _zip(temporary, target)
        else:
            if target.exists():
                shutil.rmtree(target)
            move(temporary, target)
    except OSError as error:
        raise OutputError(f"The model cannot be written to {target}: {error.strerror or error}. Choose another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _zip(folder: Path, target: Path) -> None:
    archive = folder.with_name(folder.name + ".zip")
    try:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as stream:
            for file in sorted(folder.rglob("*")):
                if file.is_file():
                    stream.write(file, file.relative_to(folder).as_posix())
        move(archive, target)
    finally:
        archive.unlink(missing_ok=True)


def _try_unknown(target: Path, spec: ModelSpec) -> None:
    """Load the new package and compute one empty tile, so that a wrong answer shows now and not during a run."""
    import torch

    from napari_tileseg.models.predictor import load_model

    predictor: Any = load_model(str(target), device="cpu")
    _one_tile(predictor, spec, torch)


def _one_tile(predictor: Any, spec: ModelSpec, torch: Any) -> Any:
    size = "x".join(str(side) for side in spec.window)
    try:
        with torch.inference_mode():
            scores = predictor(torch.zeros(1, spec.inputs, *spec.window))
    except ModelError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = printable(lines[-1]) if lines else type(error).__name__
        raise ModelError(f"{spec.label} fails on one tile of {size} with {spec.inputs} channels: {reason}.") from None
    lost = spec.output_offset or (0,) * spec.spatial_ndim
    expected = (1, len(spec.score_names), *(side - 2 * less for side, less in zip(spec.window, lost, strict=True)))
    if tuple(scores.shape) != expected:
        found = " x ".join(map(str, scores.shape[1:]))
        wanted = " x ".join(map(str, expected[1:]))
        raise ModelError(
            f"{spec.label} returns scores of {found} for a tile of {size}; its card says {wanted}. "
            f"Say its classes (--classes, one name for each of the {scores.shape[1]} scores)."
        )
    return scores
