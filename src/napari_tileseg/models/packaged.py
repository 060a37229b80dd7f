"""The loader of our own packages: networks of our own, and models of other kinds that were imported into a package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError, WeightsError
from napari_tileseg.folders import model_folder
from napari_tileseg.models.archive import Archive, is_safe_name
from napari_tileseg.models.package import CARD_FILE, SPEC_FILE, WEIGHTS_FILE, build_module

if TYPE_CHECKING:
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["card", "files", "load", "source"]

_LARGEST_CARD = 2**20


def load(path: Path, spec: ModelSpec, device: str) -> Any:
    """Load the network of a package; that of an imported model by the loader it came with."""
    from napari_tileseg.models.predictor import from_module

    if not spec.loader:
        return from_module(build_module(path, spec)[1], spec, device=device)
    from napari_tileseg.models.checksum import checksum
    from napari_tileseg.models.loaders.registry import find_loader

    loader, place = find_loader(spec.loader), source(path, spec)
    if spec.weights_sha256 and (found_sum := checksum(loader.members(place), place)) != spec.weights_sha256:
        raise WeightsError(
            f"The files of {spec.label} were changed or damaged: their SHA-256 is {found_sum[:12]}..., "
            f"the card says {spec.weights_sha256[:12]}.... Import the model again."
        )
    return loader.call("load", place, spec, device, **spec.source_options)


def source(path: Path, spec: ModelSpec) -> Path:
    """Return where the files of an imported model are: inside the package, or where they were linked.

    Raises
    ------
    ModelError
        If they are not there, or the card names a place outside the package that is no whole path.
    """
    given = Path(spec.source)
    if given.is_absolute() and path.absolute().parent == model_folder().absolute():
        place = given  # only the user's own folder may say where something else lies
    elif not is_safe_name(spec.source):
        raise ModelError(f"{SPEC_FILE} of {spec.label} names its source {spec.source!r}, which is no file of the package.")
    else:
        place = path / given if path.is_dir() else Archive(path).folder() / given
    if not place.exists():
        raise ModelError(f"The files of {spec.label} are missing: {spec.source} is not there. Import the model again.")
    return place


def files(path: Path) -> list[Path]:
    """Return the files of a package whose change makes another model of it."""
    if not path.is_dir():
        return [path]
    return [path / name for name in (SPEC_FILE, WEIGHTS_FILE) if (path / name).is_file()]


def card(path: Path) -> str:
    """Return the text of the package's card; empty where it has none."""
    file = path / CARD_FILE
    if not path.is_dir() or not file.is_file():
        return ""
    with file.open("rb") as stream:
        return stream.read(_LARGEST_CARD).decode(errors="replace")
