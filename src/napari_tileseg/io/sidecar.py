"""The JSON beside files that have no room for how they were made: tables, meshes and segmentations of DICOM."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from napari_tileseg.io.output import check_place, put_in_place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["check_sidecar", "read_sidecar", "sidecar_path", "write_sidecar"]

_KEYS = {"file", "classes", "colors", "provenance"}


def sidecar_path(path: Path) -> Path:
    """Return ``cells.stl.json`` for ``cells.stl``."""
    return path.with_name(f"{path.name}.json")


def check_sidecar(path: Path, *, overwrite: bool) -> bool:
    """Raise if the JSON beside a file could not be put there; return whether one that is there may be replaced.

    One of ours whose file is gone tells nothing any more, and may be, unasked.

    Raises
    ------
    OutputError
        One sentence.
    """
    replaced = overwrite or _is_orphan(path)
    check_place(sidecar_path(path), overwrite=replaced)
    return replaced


def write_sidecar(
    path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None, overwrite: bool
) -> Path:
    """Write what a file was made of beside it.

    Raises
    ------
    OutputError
        One sentence: why it could not be written there.
    """
    place = sidecar_path(path)
    told = {"file": path.name, "classes": list(classes), "colors": list(colors), "provenance": dict(provenance or {})}
    with put_in_place(place, overwrite=overwrite) as temporary:
        temporary.write_text(json.dumps(told, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return place


def read_sidecar(path: Path) -> dict[str, Any]:
    """Return the provenance that stands beside a file; empty if there is none that can be read."""
    found = _read(path).get("provenance")
    return found if isinstance(found, dict) else {}


def _is_orphan(path: Path) -> bool:
    """Say whether the JSON beside a file that is not there was written by `write_sidecar` for it."""
    return not os.path.lexists(path) and _read(path).keys() == _KEYS


def _read(path: Path) -> dict[str, Any]:
    """Return what the JSON beside a file says of it; nothing if it cannot be read, or is about another one."""
    try:
        told = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) and told.get("file") == path.name else {}
