"""``Package``: a BioImage.IO package on the disk, its description and its files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_tileseg.errors import ModelError, WeightsError
from napari_tileseg.models.archive import Archive, is_zip, printable
from napari_tileseg.models.loaders.bioimageio.version4 import read_version4
from napari_tileseg.models.loaders.bioimageio.version5 import read_version5
from napari_tileseg.models.yaml_text import LARGEST, parse_yaml

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.models.loaders.bioimageio.tensors import Description

__all__ = ["NAMES", "Package"]

NAMES = ("rdf.yaml", "bioimageio.yaml", "rdf.yml", "bioimageio.yml", "model.yaml")
"""What the description may be called, the first first."""


class Package:
    """A folder or zip with a description.

    Parameters
    ----------
    path : Path
        The folder, the zip, or the description itself in its folder.

    Raises
    ------
    ModelError
        If it holds no description, or one that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        if path.is_file() and not is_zip(path):
            self.path, self._name = path.parent, path.name
        else:
            self.path, self._name = path, ""
        self.archive = Archive(self.path)
        self.name = self._name or next((found for name in NAMES if (found := self.archive.find(name))), "")
        if not self.name:
            raise ModelError(f"{printable(path.name)} is no BioImage.IO model: it holds no {NAMES[0]}. Give another model.")
        self._folder = self.name.rpartition("/")[0]
        self.description = self._read()

    def member(self, source: str) -> str:
        """Return the name inside the package of a file that the description names.

        Raises
        ------
        ModelError
            If it lies elsewhere, or is missing.
        """
        if "://" in source:
            raise ModelError(
                f"{self._what} names {printable(source)}, which is not in the package. Get the whole package from the collection."
            )
        plain = source.removeprefix("./")
        name = f"{self._folder}/{plain}" if self._folder else plain
        if name not in self.archive:
            raise ModelError(f"{self._what} names the file {printable(source)}, which is missing. Get the model again.")
        return name

    def file(self, source: str, sha256: str = "") -> Path:
        """Return a file on the disk, its checksum compared with what the description says.

        Raises
        ------
        ModelError
            If it lies elsewhere, or is missing.
        WeightsError
            If it is not the one the description speaks of.
        """
        path = self.archive.file(self.member(source))
        if sha256:
            with path.open("rb") as stream:
                found = hashlib.file_digest(stream, "sha256").hexdigest()
            if found != sha256.lower():
                raise WeightsError(
                    f"{printable(source)} is damaged or was exchanged: its SHA-256 is {found[:12]}..., "
                    f"the description says {printable(sha256[:12])}.... Get the model again."
                )
        return path

    @property
    def _what(self) -> str:
        return f"{printable(self.name)} of {printable(self.path.name)}"

    def _read(self) -> Description:
        values = parse_yaml(self.archive.read(self.name, largest=LARGEST), self._what)
        if not isinstance(values, dict):
            raise ModelError(f"{self._what} is no description of a model. Give another model.")
        version = str(values.get("format_version", ""))
        kind = values.get("type", "model")
        if kind != "model":
            raise ModelError(f'{self._what} describes a resource of type "{printable(str(kind))}"; only models can be used.')
        try:
            if version.startswith("0.5."):
                return read_version5(values)
            if version.startswith("0.4."):
                return read_version4(values)
        except ValidationError as error:
            raise ModelError(f"{self._what} cannot be used: {_first(error)}. Get the model again.") from None
        except ValueError as error:
            raise ModelError(f"{self._what} cannot be used: {printable(str(error))}. Get the model again.") from None
        told = f'has the version "{printable(version)}"' if version else "names no version"
        raise ModelError(f"{self._what} {told}; 0.4 and 0.5 can be read. Get a newer export of the model.")


def _first(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return printable(f"{where}: {first['msg'].removeprefix('Value error, ')}")
