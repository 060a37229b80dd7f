"""``catalog``: which models the hubs have, from an index that is fetched once a day and kept."""

from __future__ import annotations

import contextlib
import datetime
import difflib
import json
import secrets
import time
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import Cancelled, DownloadError, ModelError, ModelNotFoundError
from napari_tileseg.folders import cache_folder
from napari_tileseg.models.archive import parse_json, printable
from napari_tileseg.models.hubs import bioimageio, monai
from napari_tileseg.models.hubs.entry import SCHEME, Entry
from napari_tileseg.models.hubs.fetch import fetch
from napari_tileseg.models.settings import read_settings
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.models.hubs.fetch import Cancel

__all__ = ["HUBS", "catalog", "dated", "find_entry"]

HUBS: dict[str, str] = {"monai": "MONAI Model Zoo", "bioimageio": "BioImage.IO"}
"""Names of the hubs, and their titles."""

_READERS = {"monai": monai, "bioimageio": bioimageio}
_FRESH = 24 * 3600
_LARGEST = 32 * 2**20
"""Most bytes of an index."""

_LAYOUT = 1
_TYPES = {"str": str, "tuple[str, ...]": list, "int | None": int}


def catalog(hub: str = "", *, refresh: bool = False, cancel: Cancel = None) -> list[Entry]:
    """Return the models that a hub offers, or all hubs.

    An index of today is taken as it was kept; an older one is fetched again, and taken if that cannot be done: `dated` tells how old
    it is.

    Parameters
    ----------
    hub : str
        A name of `HUBS`; empty for all, where a hub that cannot be reached is left out as long as another one answers.
    refresh : bool
        Fetch the index anew, and raise if that cannot be done.
    cancel : callable or threading.Event, optional
        Asked whether to stop.

    Raises
    ------
    DownloadError
        If the index cannot be had.
    ModelNotFoundError
        If there is no such hub.
    Cancelled
        If somebody wanted to stop.
    """
    if hub:
        return _index(_known(hub), refresh, cancel)
    found: list[Entry] = []
    failures: list[DownloadError] = []
    for name in HUBS:
        try:
            found += _index(name, refresh, cancel)
        except DownloadError as error:
            failures.append(error)
    if len(failures) == len(HUBS):
        raise failures[0]
    return found


def dated(hub: str) -> datetime.datetime | None:
    """Return when the index of a hub was fetched, in UTC; None where there is none."""
    kept = _kept(_known(hub))
    return kept[0] if kept else None


def find_entry(ref: str, *, cancel: Cancel = None) -> Entry:
    """Return the model that a reference stands for.

    Parameters
    ----------
    ref : str
        ``"hub:monai/spleen_ct_segmentation"``.
    cancel : callable or threading.Event, optional
        Asked whether to stop.

    Raises
    ------
    ModelNotFoundError
        If there is no such hub, or it has no such model; the sentence names those that are called alike.
    DownloadError
        If the hub's index cannot be had.
    """
    hub, _, name = ref.removeprefix(SCHEME).partition("/")
    _known(hub)
    names: dict[str, Entry] = {}
    for refresh in (False, True):
        if refresh and (read_settings().offline or _age(hub) < 60):
            break  # it was fetched a moment ago
        names = {entry.name.lower(): entry for entry in _index(hub, refresh, cancel)}
        if name.lower() in names:
            return names[name.lower()]
    close = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f" Did you mean {names[close[0]].ref}?" if close else ""
    raise ModelNotFoundError(f'{HUBS[hub]} has no model "{printable(name)}".{hint} See tileseg models hub {hub}.')


def _known(hub: str) -> str:
    if hub not in HUBS:
        known = ", ".join(f"{SCHEME}{name}/NAME" for name in HUBS)
        raise ModelNotFoundError(f'There is no hub "{printable(hub)}". Known are {", ".join(HUBS)}: {known}.')
    return hub


def _index(hub: str, refresh: bool, cancel: Cancel) -> list[Entry]:
    kept = _kept(hub)
    settings = read_settings()
    if kept and not refresh and (settings.offline or _age(hub) < _FRESH):
        return kept[1]
    if settings.offline:
        raise DownloadError(
            f"The models of {HUBS[hub]} are not known, because offline mode is on. Switch it off once: tileseg settings set offline false."
        )
    try:
        return _fetch(hub, cancel)
    except Cancelled:
        raise
    except ModelError as error:
        if kept and not refresh:
            return kept[1]
        raise DownloadError(f"The models of {HUBS[hub]} are not known: {error}") from None


def _fetch(hub: str, cancel: Cancel) -> list[Entry]:
    """Fetch and read an index, and keep what it says."""
    settings = read_settings()
    settings = settings.model_copy(update={"retries": min(settings.retries, 2)})  # somebody waits for it, and there may be an older one
    failure: ModelError | None = None
    for address in _READERS[hub].ADDRESSES:
        place = _place(hub).with_name(f".{secrets.token_hex(6)}")
        try:
            fetch(address, place, largest=_LARGEST, cancel=cancel, settings=settings)
            found: list[Entry] = _READERS[hub].entries(parse_json(place.read_bytes(), f"The index of {HUBS[hub]}"))
            if found:
                _keep(hub, found)
                return found
            failure = failure or DownloadError(
                "its index lists none. Look for a newer version of this program: its layout may have changed."
            )
        except ModelError as error:
            failure = failure or error
        except OSError as error:
            failure = failure or DownloadError(f"{place.parent} cannot be read: {error.strerror or error}. Check its permissions.")
        finally:
            for rest in (place, place.with_name(f"{place.name}.part"), place.with_name(f"{place.name}.part.json")):
                with contextlib.suppress(OSError):
                    rest.unlink(missing_ok=True)
    raise failure or DownloadError("it has no address.")


def _place(hub: str) -> Path:
    return cache_folder() / "hubs" / f"{hub}.json"


def _keep(hub: str, found: list[Entry]) -> None:
    """Remember an index; where that cannot be written, it is fetched again next time."""
    place = _place(hub)
    temporary = place.with_name(f".{secrets.token_hex(6)}.json")
    try:
        document = {"layout": _LAYOUT, "fetched": time.time(), "entries": [asdict(entry) for entry in found]}
        temporary.write_text(json.dumps(document), encoding="utf-8")
        move(temporary, place)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _kept(hub: str) -> tuple[datetime.datetime, list[Entry]] | None:
    """Return date and models of the index that was kept; None where there is none, or it is damaged."""
    try:
        document = json.loads(_place(hub).read_bytes())
        if document["layout"] != _LAYOUT:
            return None
        found = [_entry(values) for values in document["entries"]]
        return datetime.datetime.fromtimestamp(document["fetched"], datetime.UTC), found
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _entry(values: dict[str, Any]) -> Entry:
    """Return an entry as it was kept.

    Raises
    ------
    TypeError
        If a value has another type.
    """
    for field in fields(Entry):
        value = values.get(field.name)
        if value is not None and not isinstance(value, _TYPES[str(field.type)]):
            raise TypeError(field.name)
    return Entry(**{**values, "tags": tuple(map(str, values.get("tags", ())))})


def _age(hub: str) -> float:
    """Return the seconds since an index was fetched; endless where there is none, or it is from the future."""
    kept = _kept(hub)
    seconds = (datetime.datetime.now(datetime.UTC) - kept[0]).total_seconds() if kept else -1.0
    return seconds if seconds >= 0 else float("inf")
