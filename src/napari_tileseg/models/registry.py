"""Which models there are: the bundled ones, the user's own, and any that a reference names, of whatever kind."""

from __future__ import annotations

import difflib
import hashlib
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

from napari_tileseg.errors import ModelError, ModelNotFoundError
from napari_tileseg.folders import model_folder
from napari_tileseg.models.answers import recall
from napari_tileseg.models.archive import printable
from napari_tileseg.models.checks import remembered, sentence
from napari_tileseg.models.checksum import checksum
from napari_tileseg.models.ensemble import combine, join, split
from napari_tileseg.models.loaders.describe import sidecar, with_sidecar
from napari_tileseg.models.loaders.registry import OWN, Place, detect, loaders, parse
from napari_tileseg.models.package import is_package
from napari_tileseg.models.plain_text import plain

if TYPE_CHECKING:
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["BUNDLED", "absolute", "card", "find_spec", "list_models", "locate", "model_folder", "resolve", "spec_of", "stamp"]

BUNDLED = Path(__file__).parent / "bundled"
"""The models that come with the program."""


def list_models() -> list[ModelSpec]:
    """Return the specs of all models that are there, the bundled ones first; unreadable ones are left out."""
    return [spec for path in _packages() if (spec := _spec_or_none(path)) is not None]


def locate(ref: str) -> Place:
    """Return where the model is that a reference stands for, and who loads it.

    Parameters
    ----------
    ref : str
        Name of a bundled or own model; path of a model, whose kind is recognised; ``scheme:PATH``, such as ``onnx:FILE``; or
        ``hub:HUB/NAME`` or an address, which is downloaded once.

    Raises
    ------
    ModelNotFoundError
        If there is none; the sentence names the models there are.
    DownloadError
        If it is to be downloaded, and cannot be.
    ModelError
        If the file is no model of any kind that is known.
    """
    for path in _packages():
        if _name(path) == ref:
            return _place(path)
    if ref.startswith(("hub:", "https://", "http://")):
        from napari_tileseg.models.hubs.download import obtain  # which imports what it fetches, hence this module

        return _place(obtain(ref))
    loader, text, options = parse(ref)
    path = Path(text).expanduser()
    try:
        there = path.exists()
    except (OSError, ValueError):  # a name too long, or with a zero in it
        there = False
    if loader is not None:
        if not there:
            raise ModelNotFoundError(f'There is no {loader.title} model at "{printable(text)}". Check the path.')
        return Place(loader, path, options)
    if there and (found := detect(path)) is not None:
        return Place(found, path)
    for package in _packages():
        if (spec := _spec_or_none(package)) is not None and spec.name == ref:
            return _place(package)
    if there and path.is_file() and path.name.lower().endswith(OWN.suffixes):
        return Place(OWN, path)  # which says what is wrong with it
    if there:
        kinds = ", ".join(f"{loader.scheme}:" for loader in loaders())
        raise ModelError(f'"{printable(path.name)}" is no model that is known here. Say what it is by one of {kinds} before its path.')
    names = [_name(package) for package in _packages()]
    close = difflib.get_close_matches(ref, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    known = ", ".join(names) or "none"
    raise ModelNotFoundError(f'There is no model "{printable(ref)}".{hint} Known models: {known}; or give the path of a model.')


def resolve(ref: str) -> Path:
    """Return the file or folder that a reference stands for; see `locate`."""
    return locate(ref).path


def absolute(ref: str) -> str:
    """Return a reference that means the same model in any folder; one that names none is returned as it is."""
    if members := split(ref):
        return join(absolute(member) for member in members)
    try:
        return locate(ref).ref
    except ModelError:
        return ref


def find_spec(ref: str) -> ModelSpec:
    """Return the spec of a model, or of an ensemble, without loading its weights."""
    if members := split(ref):
        return combine([find_spec(member) for member in members])
    return spec_of(locate(ref))


def spec_of(place: Place) -> ModelSpec:
    """Return the spec of a model that was located, with what the user has said of it, and the checksum of its files."""
    return recall(place, _cached_spec(place.loader.scheme, place.path, tuple(place.options.items()), _state(place)))


def card(ref: str) -> str:
    """Return the model's card as Markdown; its description where there is no card; all cards of an ensemble."""
    if members := split(ref):
        return "\n".join(card(member) for member in members)
    place = locate(ref)
    text = _readable(place.loader.call("card", place.path)) if place.loader.card else ""
    spec = spec_of(place)
    text = text or f"# {spec.label}\n\n{spec.description}\n"
    tests = remembered(spec.weights_sha256) if place.loader is OWN else []
    return text + "".join(f"- Test {plain(sentence(test))}\n" for test in tests)


def stamp(ref: str) -> tuple[tuple[str, str, str], ...]:
    """Return path, checksum and state of each model that a reference stands for: it changes when its files or its card do."""
    places = [locate(member) for member in split(ref) or (ref,)]
    return tuple((place.ref, (spec := spec_of(place)).weights_sha256, f"{_state(place)} {_digest(spec)}") for place in places)


def _readable(text: str) -> str:
    """Return a text without what could steer a terminal."""
    return "".join(letter for letter in text if letter in "\n\t" or unicodedata.category(letter) not in ("Cc", "Cf"))


def _packages() -> list[Path]:
    """Return the bundled packages, and whatever model lies in the user's folder."""
    own = model_folder()
    found = [path for path in sorted(BUNDLED.iterdir()) if is_package(path)]
    if own.is_dir():
        entries = sorted(path for path in own.iterdir() if not path.name.startswith("."))
        found += [path for path in entries if (path / "model.json").is_file() or path.name.endswith(".tileseg.zip") or detect(path)]
    return found


def _name(path: Path) -> str:
    return path.name.removesuffix(".tileseg.zip")


def _place(path: Path) -> Place:
    return Place(detect(path) or OWN, path)


def _spec_or_none(path: Path) -> ModelSpec | None:
    try:
        return spec_of(_place(path))
    except Exception:  # whatever a loader of another package raises, the other models are there
        return None


def _state(place: Place) -> str:
    """Return a digest of sizes and dates of all files of a model."""
    beside = sidecar(place.path)
    try:
        files = [*place.loader.members(place.path), *([beside] if beside.is_file() else [])]
        found = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError as error:
        raise ModelError(f'"{printable(place.path.name)}" cannot be read: {error.strerror or error}. Check its permissions.') from None
    return hashlib.blake2b(repr(found).encode(), digest_size=8).hexdigest()


def _digest(spec: ModelSpec) -> str:
    return hashlib.blake2b(spec.model_dump_json().encode(), digest_size=8).hexdigest()


@lru_cache(maxsize=256)
def _cached_spec(scheme: str, path: Path, options: tuple[tuple[str, str], ...], state: str) -> ModelSpec:
    # `state` is part of the key, so that a model that was written anew is read again.
    loader = next(loader for loader in loaders() if loader.scheme == scheme)
    spec = cast("ModelSpec", loader.call("read_spec", path, **dict(options)))
    if loader is not OWN:
        spec = with_sidecar(path, spec)
    if not spec.weights_sha256:
        spec = spec.model_copy(update={"weights_sha256": checksum(loader.members(path), path)})
    return spec
