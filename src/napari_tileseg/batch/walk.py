"""What lies in a folder: the images in it, and what is left out, each with the reason."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.errors import Cancelled, InputError
from napari_tileseg.io.dicom_series import dicom_files, holds_dicom
from napari_tileseg.io.files import is_zarr, readable
from napari_tileseg.io.registry import find_format, suffix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Found", "Rules", "Walk", "natural"]

_COUNTED = 20_000
"""Files of one store whose sizes are added up; nobody waits for the chunks of a store of millions."""

_RANKS = {"/": -1, ".": 0}
"""Where what ends a folder's name, or a file's before its suffix, sorts: before letters (1) and numbers (2)."""

_COMPANIONS = (".mrxs",)
"""Formats whose pixels stand in a folder of the same name beside the file."""


@dataclass(frozen=True)
class Rules:
    """Which files count.

    Parameters
    ----------
    pattern, exclude : tuple of str
        As the shell understands them, whatever the case; those with a ``/`` are held against the whole path below the folder.
    recursive : bool
        Whether folders in the folder are looked into.
    skipped : Path or None
        A folder that is no input: where the results go.
    saved : Path or None
        A folder whose files count as if they stood in the root.
    """

    pattern: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    recursive: bool = False
    skipped: Path | None = None
    saved: Path | None = None


@dataclass(frozen=True)
class Found:
    """One image.

    Parameters
    ----------
    path : Path
        Absolute; links are kept. A folder where its DICOM files are meant.
    place : str
        Path below the input folder, with ``/``, as the file system spells it; ``.`` for that folder itself.
    size : int
        Bytes.
    """

    path: Path
    place: str
    size: int = 0


@dataclass
class Walk:
    """Goes through inputs and keeps what it finds; a file that can be reached in two ways is taken once.

    Parameters
    ----------
    root : Path or None
        The folder that names are relative to; None where the inputs have none in common.
    rules : Rules
    stop : callable
        Asked for every folder; true stops.
    """

    root: Path | None
    rules: Rules
    stop: Callable[[], bool] = lambda: False
    found: list[Found] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    _links: list[tuple[Path, str]] = field(default_factory=list)
    _seen: dict[str, str] = field(default_factory=dict)

    def add(self, path: Path) -> None:
        """Take a file, a store or everything that counts in a folder.

        Raises
        ------
        InputError
            If a folder may not be read.
        """
        if os.path.isdir(path) and not _is_store(path):
            self._folder(path)
        else:
            self._named(path)

    def finish(self) -> None:
        """Take the links to files, now that all real files are known: a link to one of those is left out."""
        for path, place in sorted(self._links, key=lambda link: natural(link[1])):
            self._take(path, place)
        self._links.clear()
        self.found.sort(key=lambda item: natural(item.place))
        self.left_out.sort(key=lambda item: natural(item[0]))

    def place(self, path: Path) -> str:
        """Return the path below the root."""
        if path.parent == self.rules.saved:
            return path.name
        return (path.relative_to(self.root) if self.root is not None else Path(path.parent.name, path.name)).as_posix()

    def _named(self, path: Path) -> None:
        """Take what somebody has named; it need not fit the pattern, nor be there: its task says so."""
        place = self.place(path)
        if self._excluded(place):
            return
        if os.path.exists(path) and find_format(path) is None:
            self._leave(place, "it is of no known format")
        elif os.path.islink(path) and os.path.exists(path):
            self._links.append((path, place))
        else:
            self._take(path, place)

    def _folder(self, folder: Path) -> None:
        """Look through a folder, real ones below it first, so that of two ways to one folder the straight one counts."""
        straight, links = deque([folder]), deque[Path]()
        first = True
        while straight or links:
            if self.stop():
                raise Cancelled("Cancelled while the images were being listed.")
            now = straight.popleft() if straight else links.popleft()
            try:
                entries = sorted(os.scandir(now), key=lambda entry: natural(entry.name))
            except OSError as error:
                if first:
                    raise InputError(
                        f'The folder "{now}" could not be read: {error.strerror}. Ask its owner, or choose another.'
                    ) from error
                self._leave(f"{self.place(now)}/", f"the folder could not be read: {error.strerror}")
                continue
            first = False
            if not self._first_time(now, f"{self.place(now)}/", "folder"):
                continue
            own = {entry.name.lower() for entry in entries}
            slices = self._slices(now)
            for entry in entries:
                if entry.name in slices:
                    continue
                path = now / entry.name
                if _is_folder(entry) and not _is_store(path):
                    if self.rules.recursive and self._enters(path, own):
                        (links if entry.is_symlink() else straight).append(path)
                else:
                    self._entry(entry, path)

    def _slices(self, folder: Path) -> set[str]:
        """Take the DICOM files of a folder as one image, the folder; return their names."""
        if not holds_dicom(folder):
            return set()
        files = [file for file in dicom_files(folder) if self._wanted(self.place(file))]
        if files:
            self.found.append(Found(folder, self.place(folder), sum(file.stat().st_size for file in files)))
        return {file.name for file in files}

    def _wanted(self, place: str) -> bool:
        return not self.rules.pattern or any(_fits(place, pattern) for pattern in self.rules.pattern)

    def _enters(self, folder: Path, siblings: set[str]) -> bool:
        if folder.name.startswith(".") or _same(folder, self.rules.skipped):
            return False
        if any(f"{folder.name.lower()}{suffix}" in siblings for suffix in _COMPANIONS):
            return False
        return not self._excluded(f"{self.place(folder)}/")

    def _entry(self, entry: os.DirEntry[str], path: Path) -> None:
        """Take a file or store of a folder, if it counts."""
        place = self.place(path)
        if not self._wanted(place):
            return
        known = bool(suffix_of(path))
        if entry.name.startswith("."):
            if known:
                self._leave(place, "it is hidden")
            return
        if self._excluded(place):
            return
        if not known:
            self._leave(place, "it is no image")
        elif (found := find_format(path)) is not None and found.labels_only:
            self._leave(place, "it holds labels, no image")
        elif entry.is_symlink():
            self._links.append((path, place)) if os.path.exists(path) else self._leave(place, "the link leads nowhere")
        elif not (entry.is_file() or entry.is_dir()):
            self._leave(place, "it is no file")  # a pipe would be waited for
        else:
            self._take(path, place)

    def _take(self, path: Path, place: str) -> None:
        if os.path.exists(path) and not (os.path.isdir(path) or stat.S_ISREG(path.stat().st_mode)):
            self._leave(place, "it is no file")
        elif self._first_time(path, place, "file"):
            self.found.append(Found(path, place, _size(path)))

    def _first_time(self, path: Path, place: str, kind: str) -> bool:
        """Note where a path really leads; say so where another one has led there before."""
        real = os.path.realpath(path)
        before = self._seen.setdefault(real, place)
        if before is place:
            return True
        if before != place:  # the same path named twice is no news
            self._leave(place, f"it is the same {kind} as {readable(before)}")
        return False

    def _excluded(self, place: str) -> bool:
        """Say whether a path, or a folder on the way to it, is excluded, and note it."""
        for pattern in self.rules.exclude:
            whole = place.rstrip("/")
            parts = whole.split("/")
            if _fits(whole, pattern.rstrip("/")) or any(_fits(part, pattern.rstrip("/")) for part in parts):
                self._leave(place, f"it is excluded by {pattern}")
                return True
        return False

    def _leave(self, place: str, reason: str) -> None:
        self.left_out.append((readable(place), reason))


def natural(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return a key that sorts as people do: ``a2`` before ``a10``, ``a`` before ``a2``, whatever the case; folders keep together."""
    parts = (part for part in re.split(r"(\d+|[./])", text.casefold()) if part)
    return tuple((2, int(part), "") if part.isdecimal() else (_RANKS.get(part, 1), 0, part) for part in parts), text


def _fits(place: str, pattern: str) -> bool:
    against = place if "/" in pattern else place.rsplit("/", 1)[-1]
    return fnmatch.fnmatchcase(against.casefold(), pattern.casefold())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_store(path: Path) -> bool:
    return os.path.isdir(path) and (path.name.lower().endswith(".zarr") or is_zarr(path))


def _same(path: Path, other: Path | None) -> bool:
    return other is not None and os.path.normcase(os.path.realpath(path)) == os.path.normcase(os.path.realpath(other))


def _size(path: Path) -> int:
    """Return the bytes of a file, or of a store as far as its files can be counted in a moment."""
    try:
        if not os.path.isdir(path):
            return path.stat().st_size
        return sum(size for _, size in zip(range(_COUNTED), _sizes(path), strict=False))
    except OSError:
        return 0


def _sizes(folder: Path) -> Iterator[int]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _sizes(Path(entry.path))
        else:
            yield entry.stat(follow_symlinks=False).st_size
