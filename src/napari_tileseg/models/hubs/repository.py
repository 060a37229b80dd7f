"""Repositories at Hugging Face, where newer bundles of MONAI live as single files instead of a zip."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from napari_tileseg.errors import DownloadError
from napari_tileseg.models.archive import is_safe_name
from napari_tileseg.models.hubs.addresses import shown

__all__ = ["Member", "address_of_list", "is_repository", "members"]

_HOST = "huggingface.co"
_PATH = re.compile(r"/([\w.-]+)/([\w.-]+)(?:/tree/([\w.+-]+))?/?", re.ASCII)
_MOST = 1000


@dataclass(frozen=True)
class Member:
    """One file of a repository.

    Parameters
    ----------
    name : str
        Path inside the repository, which cannot lead outside.
    url : str
    size : int
        Bytes.
    sha256 : str
        Empty for small files, for which the server gives none.
    """

    name: str
    url: str
    size: int
    sha256: str


def is_repository(url: str) -> bool:
    """Tell whether an address is that of a repository, and not of a file."""
    parts = urlsplit(url)
    return parts.hostname == _HOST and _PATH.fullmatch(parts.path) is not None and not parts.path.endswith(".zip")


def address_of_list(url: str, version: str = "") -> str:
    """Return the address of the list of a repository's files.

    Parameters
    ----------
    url : str
        See `is_repository`.
    version : str
        Tag or branch where the address names none; ``"main"`` if empty.
    """
    owner, name, revision = _parts(url, version)
    return f"https://{_HOST}/api/models/{owner}/{name}/tree/{revision}?recursive=true"


def members(document: Any, url: str, version: str = "") -> list[Member]:
    """Return the files of a repository.

    Parameters
    ----------
    document
        What the server lists.
    url, version : str
        As for `address_of_list`.

    Raises
    ------
    DownloadError
        If there are none, too many, or one whose name leads outside.
    """
    owner, name, revision = _parts(url, version)
    found: dict[str, Member] = {}
    for item in document if isinstance(document, list) else ():
        if not isinstance(item, dict) or item.get("type") != "file":
            continue
        path, size, large = item.get("path"), item.get("size"), item.get("lfs")
        if not isinstance(path, str) or not is_safe_name(path):
            raise DownloadError(f"{shown(url)} holds a file whose name could lead outside. Nothing was fetched.")
        if not isinstance(size, int) or size < 0 or path.startswith("."):
            continue
        digits = large.get("oid") if isinstance(large, dict) else ""
        digits = digits.lower() if isinstance(digits, str) and re.fullmatch(r"[0-9a-fA-F]{64}", digits) else ""
        address = f"https://{_HOST}/{owner}/{name}/resolve/{revision}/{quote(path)}"
        found[path.lower()] = Member(path, address, size, digits)
    if not 0 < len(found) <= _MOST:
        raise DownloadError(f"{shown(url)} lists {len(found)} files; 1 to {_MOST} are accepted. Fetch it with your browser, and import it.")
    return sorted(found.values(), key=lambda member: member.name)


def _parts(url: str, version: str) -> tuple[str, str, str]:
    found = _PATH.fullmatch(urlsplit(url).path)
    if found is None:
        raise DownloadError(f"{shown(url)} is no repository. Check the address.")
    return found[1], found[2], quote(found[3] or version or "main")
