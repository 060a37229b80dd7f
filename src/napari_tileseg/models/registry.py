"""Which models there are: the bundled ones, the user's own, and any package named by its path."""

from __future__ import annotations

import difflib
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.errors import ModelError, ModelNotFoundError
from napari_tileseg.models.ensemble import combine, split
from napari_tileseg.models.package import read_spec

if TYPE_CHECKING:
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["BUNDLED", "card", "find_spec", "list_models", "model_folder", "resolve", "stamp"]

BUNDLED = Path(__file__).parent / "bundled"
"""The models that come with the program."""


def model_folder() -> Path:
    """Return the folder of the user's own models; ``TILESEG_MODELS`` overrides the default.

    The default is the platform's data folder: ``%LOCALAPPDATA%`` on Windows, ``~/Library/Application Support``
    on macOS, ``$XDG_DATA_HOME`` or ``~/.local/share`` elsewhere.
    """
    if chosen := os.environ.get("TILESEG_MODELS"):
        return Path(chosen)
    home = Path.home()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local"))
    elif os.uname().sysname == "Darwin":
        base = home / "Library/Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", home / ".local/share"))
    return base / "napari-tileseg" / "models"


def list_models() -> list[ModelSpec]:
    """Return the specs of all models that are there, the bundled ones first; unreadable packages are left out."""
    return [spec for path in _packages() if (spec := _spec_or_none(path)) is not None]


def resolve(ref: str) -> Path:
    """Return the package folder or zip that a model's name or path stands for.

    Parameters
    ----------
    ref : str
        Name of a bundled or own model, or path of a package.

    Raises
    ------
    ModelNotFoundError
        If there is none; the sentence names the models there are.
    """
    for path in _packages():
        if _name(path) == ref:
            return path
    path = Path(ref).expanduser()
    if (path / "model.json").is_file() or path.is_file():
        return path
    names = [_name(package) for package in _packages()]
    close = difflib.get_close_matches(ref, names, n=1)
    hint = f" Did you mean {close[0]}?" if close else ""
    known = ", ".join(names) or "none"
    raise ModelNotFoundError(f'There is no model "{ref}".{hint} Known models: {known}; or give the path of a model package.')


def find_spec(ref: str) -> ModelSpec:
    """Return the spec of a model, or of an ensemble, without loading its weights."""
    if members := split(ref):
        return combine([find_spec(member) for member in members])
    path = resolve(ref)
    return _cached_spec(path, _modified(path))


def card(ref: str) -> str:
    """Return the model's card as Markdown; its description where the package has no card; all cards of an ensemble."""
    if members := split(ref):
        return "\n".join(card(member) for member in members)
    path = resolve(ref)
    text = path / "CARD.md"
    return text.read_text(encoding="utf-8") if text.is_file() else f"# {find_spec(ref).label}\n\n{find_spec(ref).description}\n"


def stamp(ref: str) -> tuple[tuple[str, str, float], ...]:
    """Return path, checksum and date of each package that a reference stands for: it changes when a model does."""
    paths = [resolve(member).absolute() for member in split(ref) or (ref,)]
    return tuple((str(path), _cached_spec(path, _modified(path)).weights_sha256, _modified(path)) for path in paths)


def _packages() -> list[Path]:
    own = model_folder()
    found = []
    for folder in (BUNDLED, own):
        if folder.is_dir():
            found += sorted(path for path in folder.iterdir() if (path / "model.json").is_file() or path.name.endswith(".tileseg.zip"))
    return found


def _name(path: Path) -> str:
    return path.name.removesuffix(".tileseg.zip")


def _spec_or_none(path: Path) -> ModelSpec | None:
    try:
        return _cached_spec(path, _modified(path))
    except ModelError:
        return None


def _modified(path: Path) -> float:
    file = path / "model.json" if path.is_dir() else path
    return file.stat().st_mtime


@lru_cache(maxsize=256)
def _cached_spec(path: Path, modified: float) -> ModelSpec:
    # `modified` is part of the key, so that a rewritten package is read again.
    return read_spec(path)
