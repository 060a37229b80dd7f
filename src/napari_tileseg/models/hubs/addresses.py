"""Addresses: which may be fetched, where a mirror or a redirection may lead, and what a file from there is called."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from napari_tileseg.errors import DownloadError
from napari_tileseg.models.archive import is_safe_name, printable

if TYPE_CHECKING:
    from napari_tileseg.models.settings import Settings

__all__ = ["announced_name", "check_url", "file_name", "is_url", "mirrored", "redirected", "shown"]

_LONGEST = 4096
_SAFE = "%/:=&?~#+!$,;'@()*[]|"
"""What is left as it is when an address is made fit for a request line; the rest is escaped."""


def is_url(text: str) -> bool:
    """Tell whether a reference is an address of the web."""
    return text.lower().startswith(("http://", "https://"))


def check_url(url: str) -> SplitResult:
    """Take an address apart, after a look at whether it may be fetched.

    Raises
    ------
    DownloadError
        If it is none of the web, damaged, or holds a password, which would end up in logs and records.
    """
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or len(url) > _LONGEST or any(not letter.isprintable() or letter.isspace() for letter in url):
        raise DownloadError(f'"{printable(url)}" cannot be fetched. Give an address that starts with https:// or http://.')
    if parts.username is not None:
        raise DownloadError("The address holds a user name or password. Fetch the file with your browser, and import it.")
    return parts


def mirrored(url: str, settings: Settings) -> str:
    """Return the address to ask instead, where the user's settings name a mirror for its beginning."""
    for given, other in settings.mirrors:
        rest = url[len(given) :]
        if url.startswith(given) and (not rest or given.endswith("/") or rest[0] in "/?#"):
            return other + rest
    return url


def redirected(url: str, location: str) -> str:
    """Return where a redirection leads.

    Raises
    ------
    DownloadError
        If it leads out of the web, or from https to http.
    """
    target = quote(urljoin(url, location), safe=_SAFE)
    parts = urlsplit(target) if is_url(target) else None
    if parts is None or (urlsplit(url).scheme == "https" and parts.scheme != "https"):
        where = printable(location.partition(":")[0], most=40)
        raise DownloadError(f"{shown(url)} sends on to {where}:, which is not followed. Fetch the file with your browser, and import it.")
    check_url(target)
    return target


def shown(url: str) -> str:
    """Return an address fit for a sentence or a record: without what follows a question mark, which may hold a key."""
    return printable(url.partition("#")[0].partition("?")[0])


def file_name(url: str) -> str:
    """Return the name that an address gives its file; empty where it gives none that is safe."""
    return _safe(unquote(urlsplit(url).path).rpartition("/")[2])


def announced_name(disposition: str) -> str:
    """Return the name that a server gives a file (``Content-Disposition``); empty where it gives none that is safe."""
    found = re.search(r"filename\*\s*=\s*[\w-]*'[\w-]*'([^;\s]+)", disposition, re.ASCII)
    if found:
        return _safe(unquote(found[1]))
    found = re.search(r'filename\s*=\s*(?:"([^"]*)"|([^;\s]+))', disposition)
    return _safe(found[1] or found[2] or "") if found else ""


def _safe(name: str) -> str:
    return name if "/" not in name and not name.startswith(".") and is_safe_name(name) else ""
