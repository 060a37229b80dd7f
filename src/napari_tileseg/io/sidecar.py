"""The JSON beside files that have no room for how they were made: tables, meshes and segmentations of DICOM."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from napari_tileseg.io.output import check_place, put_in_place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["check_sidecar", "read_sidecar", "sidecar_path", "write_sidecar"]


def sidecar_path(path: Path) -> Path:
    """Return ``cells.stl.json`` for ``cells.stl``."""
    return path.with_name(f"{path.name}.json")


def check_sidecar(path: Path, *, overwrite: bool) -> None:
    """Raise if the JSON beside a file could not be put there.

    Raises
    ------
    OutputError
        One sentence.
    """
    check_place(sidecar_path(path), overwrite=overwrite)


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
    try:
        told = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    found = told.get("provenance") if isinstance(told, dict) and told.get("file") == path.name else None
    return found if isinstance(found, dict) else {}
