"""The BioImage.IO collection: what its index says of its models.

Three layouts are read: the list that the collection's server gives (each item with an ``id``, a ``type`` and the model's description as
``manifest``), the ``index.json`` of the collection's pages (``items`` with ``id``, ``type`` and ``versions``), and the ``collection.json``
of earlier years (``collection`` with ``nickname`` and ``rdf_source``). A model is fetched as the zip that the server makes of it.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

from napari_tileseg.models.hubs.entry import Entry
from napari_tileseg.models.hubs.texts import dimensions_of, line, names, task_of

__all__ = ["ADDRESSES", "entries"]

_SERVER = "https://hypha.aicell.io/bioimage-io/artifacts"

ADDRESSES = (
    f"{_SERVER}/bioimage.io/children?limit=10000&stage=false&filters=%7B%22type%22%3A%22model%22%7D",
    "https://bioimage-io.github.io/collection/index.json",
)
"""Where the index is; the next one counts where one cannot be had."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}", re.ASCII)


def entries(document: Any) -> list[Entry]:
    """Return the models of an index; whatever is odd in it is left out."""
    items = document
    if isinstance(document, dict):
        items = next((document[key] for key in ("items", "collection") if isinstance(document.get(key), list)), [])
    found: dict[str, Entry] = {}
    for item in items if isinstance(items, list) else ():
        entry = _entry(item) if isinstance(item, dict) and item.get("type") == "model" else None
        if entry is not None:
            found.setdefault(entry.name, entry)
    return [found[name] for name in sorted(found, key=str.lower)]


def _entry(item: dict[str, Any]) -> Entry | None:
    told = item["manifest"] if isinstance(item.get("manifest"), dict) else item
    identifier = next((value for key in ("alias", "nickname", "id") if isinstance(value := item.get(key), str)), "")
    name = identifier.rpartition("/")[2]
    if not _NAME.fullmatch(name) or ".." in identifier.split("/"):
        return None
    versions = item.get("versions")
    last = versions[-1] if isinstance(versions, list) and versions else ""
    version = line(last.get("version") if isinstance(last, dict) else last, most=40) or line(told.get("version"), most=40)
    tags = names(told.get("tags"))
    return Entry(
        "bioimageio",
        name,
        line(told.get("name"), most=120) or name,
        description=line(told.get("description")),
        version=version,
        url=_package(item, name),
        licence=line(told.get("license"), most=60),
        task=task_of(tags),
        dimensions=dimensions_of(tags),
        tags=tags,
    )


def _package(item: dict[str, Any], name: str) -> str:
    """Return the address of a model's zip."""
    given = item.get("download_url")
    if isinstance(given, str) and given.startswith("https://") and given.partition("?")[0].endswith(".zip"):
        return line(given, most=4096)
    return f"{_SERVER}/{quote(name)}/create-zip-file"
