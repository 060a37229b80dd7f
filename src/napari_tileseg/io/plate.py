"""Plates of a microscope that reads wells: OME-Zarr HCS, of NGFF 0.4 and 0.5."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from napari_tileseg.errors import InputError

__all__ = ["Field", "Plate", "read_plate"]


@dataclass(frozen=True)
class Field:
    """One image of a well.

    Parameters
    ----------
    name : str
        ``"A/1 field 0"``; ``"field 0"`` if the well itself was opened.
    path : Path
        The group of the image.
    place : str
        Path of that group in the plate: ``"A/1/0"``.
    """

    name: str
    path: Path
    place: str


@dataclass(frozen=True)
class Plate:
    """The fields of a plate or of one of its wells.

    Parameters
    ----------
    fields : tuple of Field
        In the order in which the plate lists its wells.
    missing : tuple of (str, str)
        What the plate lists and does not have, each with the reason.
    """

    fields: tuple[Field, ...]
    missing: tuple[tuple[str, str], ...] = ()


def read_plate(path: Path) -> Plate | None:
    """List the fields of a plate, or of a well; only the groups' own small files are read.

    Parameters
    ----------
    path : Path
        A folder.

    Returns
    -------
    Plate or None
        None where the folder is neither plate nor well.

    Raises
    ------
    InputError
        If it is a plate or well that cannot be used: its list is damaged, or nothing of it is there.
    """
    if not path.is_dir():
        return None
    facts = group_facts(path)
    plate, well = facts.get("plate"), facts.get("well")
    if isinstance(plate, dict):
        fields, missing = _wells(path, _paths(plate.get("wells")))
    elif isinstance(well, dict):
        fields, missing = _fields(path, "", _paths(well.get("images")))
    else:
        return None
    if not fields:
        why = f": {missing[0][0]} {missing[0][1]}" if missing else ""
        raise InputError(f'"{path.name}" is a plate without a field{why}. Copy it again, as a whole.')
    return Plate(tuple(fields), tuple(missing))


def group_facts(path: Path) -> dict[str, Any]:
    """Return the attributes of a group on the disk, those of NGFF 0.5 beside the others; nothing where there is no group."""
    for name in ("zarr.json", ".zattrs"):
        try:
            found = json.loads((path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if name == "zarr.json":
            found = found.get("attributes") if isinstance(found, dict) else None
        if isinstance(found, dict):
            ome = found.get("ome")
            return {**found, **ome} if isinstance(ome, dict) else found
    return {}


def _wells(path: Path, wells: list[str]) -> tuple[list[Field], list[tuple[str, str]]]:
    fields: list[Field] = []
    missing: list[tuple[str, str]] = []
    for well in wells:
        folder = path / well
        if not folder.is_dir():
            missing.append((well, "is listed and not there"))
            continue
        images = group_facts(folder).get("well")
        names = _paths(images.get("images")) if isinstance(images, dict) else []
        if not names:
            missing.append((well, "lists no field"))
        found, lost = _fields(folder, well, names)
        fields += found
        missing += lost
    return fields, missing


def _fields(folder: Path, well: str, names: list[str]) -> tuple[list[Field], list[tuple[str, str]]]:
    fields: list[Field] = []
    missing: list[tuple[str, str]] = []
    for name in names:
        title = f"{well} field {name}".strip()
        if (folder / name).is_dir():
            fields.append(Field(title, folder / name, f"{well}/{name}".strip("/")))
        else:
            missing.append((title, "is listed and not there"))
    return fields, missing


def _paths(entries: Any) -> list[str]:
    """Return the paths of a list of wells or images; those that lead out of the plate are no paths."""
    given = [entry.get("path") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    paths = [PurePosixPath(path) for path in given if isinstance(path, str) and path]
    return [str(path) for path in paths if not path.is_absolute() and ".." not in path.parts]
