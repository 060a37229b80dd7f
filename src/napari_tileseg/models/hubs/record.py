"""``Record``: where a downloaded model came from, kept inside its package."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from napari_tileseg.folders import model_folder
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FILE", "Record", "downloaded", "read_record", "write_record"]

FILE = "download.json"
"""Name of the file in the package."""


@dataclass(frozen=True)
class Record:
    """Where a downloaded model came from.

    Parameters
    ----------
    ref : str
        ``hub:...`` or the address.
    title, version, licence : str
        As the hub told; may be empty.
    url : str
        Without what followed a question mark.
    sha256 : str
        Of the file that was fetched; of a repository, of its files' names and checksums.
    checked : str
        Name of the checksum that the hub or the user gave and that was met: ``"sha256"``, ``"sha1"``; empty where there was none.
    date : str
        UTC, ISO 8601.
    """

    ref: str
    title: str
    version: str
    licence: str
    url: str
    sha256: str
    checked: str
    date: str


def write_record(package: Path, record: Record) -> None:
    """Write down where a package came from.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    temporary = package / f".{secrets.token_hex(6)}.json"
    try:
        temporary.write_text(json.dumps(asdict(record), indent=1) + "\n", encoding="utf-8")
        move(temporary, package / FILE)
    finally:
        temporary.unlink(missing_ok=True)


def read_record(package: Path) -> Record | None:
    """Return where a package came from; None where it was not downloaded."""
    try:
        record = Record(**json.loads((package / FILE).read_bytes()))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return record if all(isinstance(value, str) for value in asdict(record).values()) else None


def downloaded(ref: str) -> Path | None:
    """Return the user's own model that was downloaded by a reference; None where there is none."""
    folder = model_folder()
    packages = sorted(file.parent for file in folder.glob(f"*/{FILE}")) if folder.is_dir() else []
    return next((place for place in packages if (found := read_record(place)) and found.ref.lower() == ref.lower()), None)
