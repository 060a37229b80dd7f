"""``fetch``: one file from the web to the disk, whole and checked, whatever happens on the way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import secrets
import shutil
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from napari_tileseg.errors import DownloadError
from napari_tileseg.models.hubs.addresses import announced_name, shown
from napari_tileseg.models.hubs.connection import Answer, Broken, ask, pause
from napari_tileseg.models.settings import read_settings
from napari_tileseg.moving import move
from napari_tileseg.units import file_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari_tileseg.models.settings import Settings

    Cancel = Callable[[], bool] | threading.Event | None
    Progress = Callable[[int, int | None], None]

__all__ = ["Fetched", "check_room", "fetch", "stopping"]

LARGEST = 64 * 2**30
"""Most bytes of a file; no model has more."""

_STEP = 2**20
"""Bytes that make an attempt count as a success, so that a long download over a bad line may be cut many times."""

_SPARE = 2**26
"""Bytes that stay free on the disk."""

_LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched.

    Parameters
    ----------
    path : Path
    sha256 : str
        Of its bytes.
    checked : str
        Name of the checksum it was compared with: ``"sha256"``, ``"sha1"``, or empty.
    name : str
        What the server calls it; empty where it does not say, or says something unsafe.
    """

    path: Path
    sha256: str
    checked: str
    name: str


@dataclass
class _State:
    """What is known of a part, so that it is only continued with bytes of the same file."""

    url: str
    validator: str = ""
    total: int | None = None
    name: str = ""


def stopping(cancel: Cancel) -> Callable[[], bool]:
    """Return a function that tells whether somebody wants to stop."""
    if cancel is None:
        return lambda: False
    return cancel.is_set if isinstance(cancel, threading.Event) else cancel


def fetch(
    url: str,
    path: Path,
    *,
    checksums: Mapping[str, str] | None = None,
    size: int | None = None,
    largest: int = LARGEST,
    copied_to: Path | None = None,
    on_progress: Progress | None = None,
    cancel: Cancel = None,
    settings: Settings | None = None,
) -> Fetched:
    """Fetch a file; what an earlier call has left is continued if the server still has the same file.

    Two calls for one path must not run at the same time.

    Parameters
    ----------
    url : str
    path : Path
        Where it is put once it is whole and checked. Until then a part lies beside it.
    checksums : mapping of str to str, optional
        ``{"sha256": ...}`` or ``{"sha1": ...}``: hexadecimal digits that must be met.
    size : int, optional
        Bytes that it must have.
    largest : int
        Most bytes that are accepted.
    copied_to : Path, optional
        A folder that must have room for a copy, too.
    on_progress : callable, optional
        Called with the bytes that are there, and all bytes where they are known.
    cancel : callable or threading.Event, optional
        Asked whether to stop.
    settings : Settings, optional
        The user's by default.

    Raises
    ------
    DownloadError
        One sentence: why it cannot be fetched, and what to do.
    Cancelled
        If somebody wanted to stop; the part stays.
    """
    settings = settings or read_settings()
    if settings.offline:
        raise DownloadError(
            f"{shown(url)} was not fetched, because offline mode is on. Switch it off (tileseg settings set offline false), "
            "or fetch the file on another computer and import it (tileseg models import FILE)."
        )
    work = _Part(url, path, settings, stopping(cancel), on_progress or (lambda done, total: None), size, largest, copied_to)
    wanted = {name: digits.lower() for name, digits in (checksums or {}).items() if digits}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        continued = work.begin(known=bool(wanted))
        while True:
            work.complete()
            found, wrong = work.digests(wanted)
            if not wrong:
                return work.keep(found["sha256"], next(iter(wanted), ""))
            if not continued:
                work.drop()
                raise DownloadError(_mismatch(url, wrong, found[wrong], wanted[wrong]))
            continued = False  # what was there before may be what is wrong
            work.drop()
    except OSError as error:
        raise DownloadError(
            f"{path.name} cannot be written to {path.parent}: {error.strerror or error}. "
            "Free some space, or choose another folder (tileseg settings set cache FOLDER)."
        ) from error


def check_room(folder: Path, needed: int) -> None:
    """Raise if a disk has too little room.

    Raises
    ------
    DownloadError
        With what is needed and what is free.
    """
    there = _existing(folder)
    free = shutil.disk_usage(there).free
    if needed + _SPARE > free:
        remedy = "Choose another folder (tileseg settings set cache FOLDER), or free some space."
        raise DownloadError(f"Needs {file_size(needed)} on {there}; {file_size(free)} are free. {remedy}")


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


class _Part:
    """A file on its way: its bytes so far, and what is known of it, each in a file beside the place it is meant for."""

    def __init__(
        self,
        url: str,
        path: Path,
        settings: Settings,
        stopping: Callable[[], bool],
        tell: Progress,
        size: int | None,
        largest: int,
        copied_to: Path | None,
    ) -> None:
        self.path = path
        self.part = path.with_name(f"{path.name}.part")
        self.facts = path.with_name(f"{path.name}.part.json")
        self.state = _State(url)
        self._settings = settings
        self._stopping = stopping
        self._tell = tell
        self._size = size
        self._largest = largest
        self._copied_to = copied_to
        self._surely_checked = False

    @property
    def done(self) -> int:
        try:
            return self.part.stat().st_size
        except FileNotFoundError:
            return 0

    def begin(self, *, known: bool) -> bool:
        """Take up what is there; tell whether anything is.

        Parameters
        ----------
        known : bool
            Whether a checksum will be compared, so that a part of another file is noticed in the end.
        """
        self._surely_checked = known
        try:
            state = _State(**json.loads(self.facts.read_text(encoding="utf-8")))
            if state.url == self.state.url and isinstance(state.validator, str) and (state.total is None or isinstance(state.total, int)):
                self.state = state
        except (OSError, ValueError, TypeError, RecursionError):
            pass
        if not (self.state.validator or known) or not self.facts.is_file():
            self.drop()
        return self.done > 0

    def drop(self) -> None:
        """Forget what is there."""
        self.part.unlink(missing_ok=True)
        self.facts.unlink(missing_ok=True)
        self.state = _State(self.state.url)

    def complete(self) -> None:
        """Fetch what is missing, with as many attempts as the settings allow."""
        failures, furthest = 0, self.done
        while True:
            try:
                self._attempt()
                return
            except Broken as error:
                if self.done >= furthest + _STEP:
                    failures, furthest = 0, self.done
                failures += 1
                if failures > self._settings.retries:
                    times = "" if failures == 1 else f" {failures} times"
                    kept = " What was fetched is kept." if self.done else ""
                    raise DownloadError(f"{shown(self.state.url)} could not be fetched{times}: {error}. Try again later.{kept}") from None
                # Not all at the same moment, where many were cut off by one failure.
                pause(max(error.wait, min(_LONGEST_PAUSE, 0.25 * 2**failures) * random.uniform(0.5, 1)), self._stopping)

    def digests(self, wanted: Mapping[str, str]) -> tuple[dict[str, str], str]:
        """Return the checksums of the whole file, and the name of one that is wrong."""
        found = {}
        for name in {"sha256", *wanted}:
            with self.part.open("rb") as stream:
                found[name] = hashlib.file_digest(stream, name).hexdigest()
        return found, next((name for name, digits in wanted.items() if found[name] != digits), "")

    def keep(self, sha256: str, checked: str) -> Fetched:
        """Put the file in its place."""
        with self.part.open("rb+") as stream:
            os.fsync(stream.fileno())
        move(self.part, self.path)
        self.facts.unlink(missing_ok=True)
        return Fetched(self.path, sha256, checked, self.state.name)

    def _attempt(self) -> None:
        start = self.done
        if start and start == self.state.total:
            return
        headers = {}
        if start and (self.state.validator or self._surely_checked):
            headers["Range"] = f"bytes={start}-"
            if self.state.validator:
                headers["If-Range"] = self.state.validator
        with ask(self.state.url, self._settings, self._stopping, headers) as answer:
            if not self._goes_on(answer, start):
                if answer.status != 200:
                    self.drop()
                    raise Broken("the server would not go on where it stopped")
                self._anew(answer)
            self._check_room()
            try:
                self._check()
                self._write(answer)
            except DownloadError:
                self.drop()  # whatever lies there is not this file
                raise

    def _goes_on(self, answer: Answer, start: int) -> bool:
        """Tell whether what comes follows on what is there."""
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("content-range", "").strip(), re.ASCII)
        if answer.status != 206 or not start or not found or int(found[1]) != start:
            return False
        validator = _validator(answer)
        if self.state.validator and validator and validator != self.state.validator:
            return False
        if self.state.total is not None and int(found[3]) != self.state.total:
            return False
        self.state.total = int(found[3])
        return True

    def _anew(self, answer: Answer) -> None:
        """Begin with an empty part."""
        name = announced_name(answer.headers.get("content-disposition", ""))
        self.state = _State(self.state.url, _validator(answer), answer.length, name)
        self.part.write_bytes(b"")
        temporary = self.facts.with_name(f".{secrets.token_hex(6)}.json")
        try:
            temporary.write_text(json.dumps(asdict(self.state)), encoding="utf-8")
            move(temporary, self.facts)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _check(self) -> None:
        """Look at the announced size before it is too late."""
        total = self.state.total
        if total is None:
            return
        if self._size is not None and total != self._size:
            raise DownloadError(
                f"{shown(self.state.url)} has {total} bytes, but {self._size} were expected. Look for a newer version of it, or try later."
            )
        if total > self._largest:
            raise DownloadError(_too_large(self.state.url, self._largest))

    def _check_room(self) -> None:
        total = self.state.total or 0
        needed = {self.path.parent: total - self.done}
        if self._copied_to is not None:
            other = _existing(self._copied_to)
            shared = other.stat().st_dev == self.path.parent.stat().st_dev
            needed[self.path.parent if shared else other] = total + (total - self.done if shared else 0)
        for folder, count in needed.items():
            check_room(folder, count)

    def _write(self, answer: Answer) -> None:
        done = self.done
        self._tell(done, self.state.total)
        with self.part.open("ab") as stream:
            for block in answer.blocks():
                done += len(block)
                if done > self._largest:
                    raise DownloadError(_too_large(self.state.url, self._largest))
                stream.write(block)
                self._tell(done, self.state.total)
        total = self.state.total
        if total is not None and done != total:
            if done > total:
                self.drop()
            raise Broken(f"{done} bytes came instead of {total}")


def _validator(answer: Answer) -> str:
    """Return what tells this state of the file from any other; empty where the server says nothing that suffices."""
    tag = answer.headers.get("etag", "")
    return tag if tag and not tag.startswith("W/") else answer.headers.get("last-modified", "")


def _too_large(url: str, largest: int) -> str:
    return f"{shown(url)} has more than {file_size(largest)}, so it is not what was looked for. Check the address."


def _mismatch(url: str, name: str, found: str, wanted: str) -> str:
    title = {"sha256": "SHA-256", "sha1": "SHA-1", "md5": "MD5"}.get(name, name)
    return (
        f"{shown(url)} is not what it should be: its {title} is {found[:12]}..., expected {wanted[:12]}.... "
        "It was deleted and nothing was opened. Try again later, or tell its author."
    )
