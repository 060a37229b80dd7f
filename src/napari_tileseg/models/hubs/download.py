"""``download``: a model from a hub or an address, among the user's own models; nothing of it runs on the way."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.errors import DownloadError, ModelError, OutputError, TrustError
from napari_tileseg.folders import cache_folder, model_folder
from napari_tileseg.locks import lock
from napari_tileseg.models.archive import is_zip, parse_json, printable
from napari_tileseg.models.checksum import file_sha256
from napari_tileseg.models.hubs.addresses import check_url, file_name, is_url, shown
from napari_tileseg.models.hubs.catalog import find_entry
from napari_tileseg.models.hubs.connection import pause
from napari_tileseg.models.hubs.entry import SCHEME, URL, Entry
from napari_tileseg.models.hubs.fetch import Fetched, check_room, fetch, stopping
from napari_tileseg.models.hubs.record import Record, downloaded, read_record, write_record
from napari_tileseg.models.hubs.repository import address_of_list, is_repository, members
from napari_tileseg.models.imports import import_model
from napari_tileseg.models.loaders.describe import safe_name
from napari_tileseg.models.loaders.registry import loaders
from napari_tileseg.models.registry import BUNDLED, find_spec
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_tileseg.models.hubs.fetch import Cancel, Progress

__all__ = ["download", "is_remote", "obtain"]

_READY = ".ready.json"
"""File beside a download that waits for trust."""

_LARGEST_LIST = 8 * 2**20


def is_remote(ref: str) -> bool:
    """Tell whether a reference names a model of a hub or an address."""
    return ref.startswith(SCHEME) or is_url(ref)


def obtain(ref: str) -> Path:
    """Return the place of a model that was downloaded by this reference, and download it where there is none.

    Raises
    ------
    ModelNotFoundError, DownloadError, TrustError, OutputError
        As `download` does.
    """
    return downloaded(ref) or download(ref)


def download(
    entry_or_url: Entry | str,
    *,
    on_progress: Progress | None = None,
    cancel: Cancel = None,
    sha256: str = "",
) -> Path:
    """Download a model and import it; one that is here already is left as it is.

    It is fetched into the cache, compared with the checksums that are known, and imported like a file of this computer: what could run
    code needs trust as ever. A download that was cut off or cancelled goes on where it stopped. A file that could not be imported is kept.

    Parameters
    ----------
    entry_or_url : Entry or str
        From `catalog`; or ``"hub:monai/NAME"``; or an address, ``"https://..."``.
    on_progress : callable, optional
        Called with the bytes that are there, and all bytes where they are known; not always from 0, and from 0 again after a new start.
    cancel : callable or threading.Event, optional
        Asked ten times a second whether to stop.
    sha256 : str
        64 hexadecimal digits that the file must meet, whatever the hub says.

    Returns
    -------
    Path
        The package in the folder of the user's own models.

    Raises
    ------
    ModelNotFoundError
        If there is no such hub or model.
    DownloadError
        If it cannot be fetched, is not what it should be, or the disk is too small.
    ModelError
        If what was fetched is no model, or does not say enough of itself; the sentence says where the file is.
    TrustError
        If it cannot even be described without running code. Once it is trusted, the same call goes on.
    OutputError
        If it cannot be written among the models.
    Cancelled
        If somebody wanted to stop.
    """
    if sha256 and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise DownloadError(f'"{printable(sha256)}" is no SHA-256. Give 64 hexadecimal digits.')
    entry = entry_or_url if isinstance(entry_or_url, Entry) else _entry(entry_or_url, cancel)
    check_url(entry.url)
    folder = cache_folder() / "downloads" / hashlib.sha256(f"{entry.ref}\n{entry.url}".encode()).hexdigest()[:20]
    with _alone(folder, stopping(cancel)):
        if place := downloaded(entry.ref):
            _compare(place, sha256)
            return place
        fetched = _ready(folder, sha256)
        if fetched is None and is_repository(entry.url):
            fetched = _fetch_repository(entry, folder, sha256, on_progress, cancel)
        elif fetched is None:
            fetched = _fetch_file(entry, folder, sha256, on_progress, cancel)
        place = _import(entry, fetched, folder)
        shutil.rmtree(folder, ignore_errors=True)
        return place


def _entry(ref: str, cancel: Cancel) -> Entry:
    """Return what a reference stands for; of an address nothing more is known."""
    if ref.startswith(SCHEME):
        return find_entry(ref, cancel=cancel)
    check_url(ref)
    name = file_name(ref)
    return Entry(URL, name or "model", name or shown(ref), url=ref)


def _compare(place: Path, sha256: str) -> None:
    """Raise if a model that is here is not the one that is wanted."""
    record = read_record(place)
    if sha256 and record and record.sha256 != sha256.lower():
        raise DownloadError(
            f"{place.name} is here already, but was made of a file with SHA-256 {record.sha256[:12]}.... "
            f"Remove it first: tileseg models remove {place.name}."
        )


@contextlib.contextmanager
def _alone(folder: Path, stopping: Callable[[], bool]) -> Iterator[None]:
    """Wait until no other process downloads the same, so that two never write one file."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        stream = folder.with_name(f"{folder.name}.lock").open("a+b")
    except OSError as error:
        raise DownloadError(
            f"Nothing can be written to {folder.parent}: {error.strerror or error}. "
            "Choose another folder: tileseg settings set cache FOLDER."
        ) from error
    with stream:
        while True:
            try:
                lock(stream)
            except (BlockingIOError, PermissionError):
                pause(0.2, stopping)
                continue
            except OSError:
                pass  # a file system without locks: nobody can tell
            break
        yield


def _fetch_file(entry: Entry, folder: Path, sha256: str, on_progress: Progress | None, cancel: Cancel) -> Fetched:
    known = {"sha256": sha256 or entry.sha256, "sha1": entry.sha1}
    given = file_name(entry.url)
    found = fetch(
        entry.url,
        folder / "file",
        checksums=known,
        size=entry.size,
        copied_to=model_folder(),
        on_progress=on_progress,
        cancel=cancel,
    )
    name = next((name for name in (given, found.name) if _tells(name)), "")
    if not name:
        name = safe_name(given.partition(".")[0] or entry.name) + (".zip" if is_zip(found.path) else Path(given).suffix)
    path = folder / name
    move(found.path, path)
    return Fetched(path, found.sha256, found.checked, name)


def _fetch_repository(entry: Entry, folder: Path, sha256: str, on_progress: Progress | None, cancel: Cancel) -> Fetched:
    """Fetch all files of a repository into a folder that becomes the model."""
    if sha256:
        raise DownloadError(f"{shown(entry.url)} is a folder of files, which has no SHA-256 of its own. Leave it out.")
    listed = fetch(address_of_list(entry.url, entry.version), folder / "list.json", largest=_LARGEST_LIST, cancel=cancel).path
    files = members(parse_json(listed.read_bytes(), f"The list of {shown(entry.url)}"), entry.url, entry.version)
    total, done = sum(file.size for file in files), 0
    check_room(folder, total)
    target = folder / safe_name(entry.name)
    digest = hashlib.sha256()
    for file in files:
        place = target / file.name
        if not (place.is_file() and place.stat().st_size == file.size and file_sha256(place) == (file.sha256 or file_sha256(place))):
            before = done

            def tell(count: int, _: int | None, before: int = before) -> None:
                if on_progress is not None:
                    on_progress(before + count, total)

            fetch(file.url, place, checksums={"sha256": file.sha256}, size=file.size, on_progress=tell, cancel=cancel)
        done += file.size
        digest.update(f"{file.name}\0{file_sha256(place)}\n".encode())
    checked = "sha256" if any(file.sha256 for file in files) else ""
    return Fetched(target, digest.hexdigest(), checked, target.name)


def _tells(name: str) -> bool:
    """Tell whether a file's name says what kind of model it may be."""
    return any(name.lower().endswith(suffix) for loader in loaders() for suffix in loader.suffixes)


def _import(entry: Entry, fetched: Fetched, folder: Path) -> Path:
    """Import what was fetched, and write down where it came from."""
    try:
        label = safe_name(entry.name) if entry.hub != URL else find_spec(str(fetched.path)).name
        place = import_model(str(fetched.path), name=_free(label, entry.hub))
    except TrustError:
        _keep_ready(folder, fetched)
        raise
    except ModelError as error:
        raise ModelError(f"{error} What was fetched is kept: {fetched.path}") from error
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    record = Record(entry.ref, entry.title, entry.version, entry.licence, shown(entry.url), fetched.sha256, fetched.checked, now)
    try:
        write_record(place, record)
    except OSError as error:
        raise OutputError(f"{place.name} is here, but it cannot be noted where it came from: {error.strerror or error}.") from error
    return place


def _free(label: str, hub: str) -> str:
    """Return a name that no other model has."""
    candidates = [label, f"{label}-{hub}", *(f"{label}-{number}" for number in range(2, 100))]
    return next((name for name in candidates if not any((folder / name).exists() for folder in (model_folder(), BUNDLED))), label)


def _keep_ready(folder: Path, fetched: Fetched) -> None:
    """Remember a whole file that waits for trust, so that it is not fetched again."""
    with contextlib.suppress(OSError):
        facts = {"name": fetched.path.name, "sha256": fetched.sha256, "checked": fetched.checked}
        (folder / _READY).write_text(json.dumps(facts), encoding="utf-8")


def _ready(folder: Path, sha256: str) -> Fetched | None:
    """Return a file that waited for trust, if it is still the same."""
    try:
        facts = json.loads((folder / _READY).read_text(encoding="utf-8"))
        path, found = folder / Path(facts["name"]).name, str(facts["sha256"])
        same = path.is_file() and file_sha256(path) == found and (not sha256 or found == sha256.lower())
        return Fetched(path, found, str(facts["checked"]), path.name) if same else None
    except (OSError, ValueError, KeyError, TypeError, ModelError):
        return None
