"""``Archive``: the files of a model in a folder or zip, none of which can lead outside it or grow beyond measure."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from napari_tileseg.errors import ModelError, ModelNotFoundError
from napari_tileseg.folders import cache_folder
from napari_tileseg.models.checksum import file_sha256
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

__all__ = ["Archive", "Limits", "is_safe_name", "is_zip", "parse_json", "printable"]

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\\:*?\"<>|]")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_LONGEST_NAME = 255
_LONGEST_PATH = 1024
_BLOCK = 2**20


@dataclass(frozen=True)
class Limits:
    """How large a model may be.

    Parameters
    ----------
    members : int
        Most files.
    total : int
        Most bytes of all files together.
    ratio : int
        Most bytes that one byte of a zip may become. Weights hardly shrink; text shrinks to a tenth.
    document : int
        Most bytes of a file that is read whole.
    """

    members: int = 10_000
    total: int = 64 * 2**30
    ratio: int = 100
    document: int = 16 * 2**20


def is_safe_name(name: str) -> bool:
    """Tell whether a relative name with forward slashes stays inside its folder, on every system."""
    parts = name.split("/")
    return (
        0 < len(name) <= _LONGEST_PATH
        and not _FORBIDDEN.search(name)
        and all(part not in ("", ".", "..") and len(part.encode()) <= _LONGEST_NAME and not _DEVICES.fullmatch(part) for part in parts)
        and not any(part.endswith((" ", ".")) for part in parts)
    )


def printable(name: str, *, most: int = 100) -> str:
    """Return a name fit for a sentence: control characters are written as escapes, long names are cut."""
    text = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in name)
    return text if len(text) <= most else text[: most - 40] + "..." + text[-30:]


def is_zip(path: Path) -> bool:
    """Tell whether a file is a zip archive; never raises."""
    try:
        return path.is_file() and zipfile.is_zipfile(path)
    except OSError:
        return False


class Archive:
    """The files of a model, by their names relative to its folder or to the top of its zip.

    All names, links and sizes are checked when it is made; nothing is unpacked until `file` or `folder` is called.

    Parameters
    ----------
    path : Path
        A folder or a zip file.
    limits : Limits, optional
        How large it may be.

    Raises
    ------
    ModelNotFoundError
        If nothing is there.
    ModelError
        If it is neither, is damaged, holds a name or a link that leads outside, or is larger than allowed.
    """

    def __init__(self, path: Path | str, *, limits: Limits | None = None) -> None:
        self.path = Path(path)
        self.limits = limits or Limits()
        if not self.path.exists():
            raise ModelNotFoundError(f"There is no model at {printable(str(self.path))}. Give the path of a model.")
        self.zipped = not self.path.is_dir()
        """Whether it is a zip."""
        self._sizes: dict[str, int] = self._scan_zip() if self.zipped else self._scan_folder()

    @property
    def names(self) -> list[str]:
        """Names of all files, with forward slashes, sorted."""
        return sorted(self._sizes)

    def __contains__(self, name: object) -> bool:
        return name in self._sizes

    def size(self, name: str) -> int:
        """Return the bytes of one file."""
        return self._sizes[self._known(name)]

    def find(self, basename: str) -> str | None:
        """Return the file of that name that lies highest: at the top, or in one folder; None where there is none."""
        found = [name for name in self._sizes if name.rpartition("/")[2] == basename and name.count("/") <= 1]
        return min(found, key=lambda name: (name.count("/"), name), default=None)

    def read(self, name: str, *, largest: int | None = None) -> bytes:
        """Return the bytes of one file.

        Raises
        ------
        ModelError
            If there is no such file, it is damaged, or has more bytes than `largest` (the limit of a document by default).
        """
        most = self.limits.document if largest is None else largest
        if self.size(name) > most:
            raise ModelError(f"{printable(name)} in {self._label} has {self.size(name)} bytes; {most} are accepted. Get the model again.")
        with self.open(name) as stream:
            return stream.read(most + 1)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open one file for reading from the beginning.

        Raises
        ------
        ModelError
            If there is no such file, or it is damaged; also where that shows only inside the block.
        """
        self._known(name)
        with self._sentences(name):
            if not self.zipped:
                with (self.path / name).open("rb") as stream:
                    yield stream
                return
            with zipfile.ZipFile(self.path) as archive, archive.open(name) as member:
                yield member

    def json(self, name: str) -> Any:
        """Return what a JSON file says; see `parse_json`."""
        return parse_json(self.read(name), f"{printable(name)} in {self._label}")

    def file(self, name: str) -> Path:
        """Return one file on the disk: in the folder itself, or unpacked into a private cache.

        Raises
        ------
        ModelError
            If there is no such file, it is damaged, or the disk is full.
        """
        self._known(name)
        if not self.zipped:
            return self.path / name
        place = self._cache() / name
        if not (place.is_file() and place.stat().st_size == self._sizes[name]):
            self._unpack(name, place)
        return place

    def folder(self) -> Path:
        """Return a folder with all files: the folder itself, or a private cache into which the zip was unpacked."""
        if not self.zipped:
            return self.path
        for name in self._sizes:
            self.file(name)
        return self._cache()

    @property
    def _label(self) -> str:
        return printable(self.path.name)

    def _known(self, name: str) -> str:
        if name not in self._sizes:
            raise ModelError(f"{self._label} holds no file {printable(name)}. Get the model again.")
        return name

    def _cache(self) -> Path:
        # By content: another zip of the same name never meets what this one left.
        if not hasattr(self, "_sha256"):
            self._sha256 = file_sha256(self.path)
        return cache_folder() / "models" / self._sha256[:32]

    def _unpack(self, name: str, place: Path) -> None:
        temporary = place.with_name(f".{secrets.token_hex(6)}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self.open(name) as stream, temporary.open("xb") as target:
                shutil.copyfileobj(stream, target, _BLOCK)
            move(temporary, place)
        except OSError as error:
            raise ModelError(
                f"{printable(name)} in {self._label} cannot be unpacked: {error.strerror or error}. Free some space, or unpack it yourself."
            ) from None
        finally:
            temporary.unlink(missing_ok=True)

    def _scan_folder(self) -> dict[str, int]:
        root = self.path.resolve()
        sizes: dict[str, int] = {}
        for folder, folders, files in os.walk(self.path, followlinks=False):
            for entry in (*folders, *files):
                place = Path(folder, entry)
                name = place.relative_to(self.path).as_posix()
                if place.is_symlink() and not place.resolve().is_relative_to(root):
                    raise ModelError(f"{printable(name)} in {self._label} is a link to a place outside. Put the file itself there.")
                if entry in files and place.is_file():
                    sizes[name] = place.stat().st_size
                    self._check_amount(len(sizes), 0)
        return sizes

    def _scan_zip(self) -> dict[str, int]:
        with self._sentences(""), zipfile.ZipFile(self.path) as archive:
            infos = archive.infolist()
        sizes: dict[str, int] = {}
        seen: set[str] = set()
        for info in infos:
            name = info.filename
            if not is_safe_name(name.removesuffix("/")):
                raise ModelError(f'{self._label} holds the name "{printable(name)}", which could lead outside. It was not opened.')
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise ModelError(f"{printable(name)} in {self._label} is a link or no plain file. It was not opened.")
            if info.flag_bits & 1:
                raise ModelError(f"{self._label} is encrypted. Unpack it, and give the folder.")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                # Others may take gigabytes of memory to unpack a byte.
                raise ModelError(f"{printable(name)} in {self._label} is packed in an unusual way. Unpack it, and give the folder.")
            if info.is_dir():
                continue
            if name.lower() in seen:
                raise ModelError(f"{self._label} holds {printable(name)} twice, so what it says is not certain. Get the model again.")
            seen.add(name.lower())
            if info.file_size > _BLOCK and info.file_size > self.limits.ratio * max(info.compress_size, 1):
                raise ModelError(
                    f"{printable(name)} in {self._label} would grow from {info.compress_size} to {info.file_size} bytes, "
                    "which no model does. It was not unpacked."
                )
            sizes[name] = info.file_size
            self._check_amount(len(sizes), sum(sizes.values()) if len(sizes) % 256 == 0 else 0)
        total = sum(sizes.values())
        self._check_amount(len(sizes), total)
        if total > _BLOCK and total > self.limits.ratio * self.path.stat().st_size:  # members that share their bytes
            raise ModelError(f"{self._label} would grow from {self.path.stat().st_size} to {total} bytes. It was not unpacked.")
        return sizes

    def _check_amount(self, count: int, total: int) -> None:
        if count > self.limits.members:
            raise ModelError(f"{self._label} holds more than {self.limits.members} files, so it is no model. Give one model.")
        if total > self.limits.total:
            raise ModelError(f"{self._label} holds {total} bytes; {self.limits.total} are accepted. Unpack it, and give the folder.")

    @contextlib.contextmanager
    def _sentences(self, name: str) -> Iterator[None]:
        what = f"{printable(name)} in {self._label}" if name else self._label
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError, ValueError) as error:
            if isinstance(error, RecursionError):
                raise
            raise ModelError(f"{what} is damaged: {printable(str(error)) or type(error).__name__}. Get the model again.") from None
        except OSError as error:
            raise ModelError(f"{what} cannot be read: {error.strerror or error}. Check the file and its permissions.") from None


def parse_json(content: bytes | str, what: str) -> Any:
    """Return what a JSON text says.

    Parameters
    ----------
    content : bytes or str
        UTF-8.
    what : str
        How to call it in a sentence: ``"model.json in nuclei.zip"``.

    Raises
    ------
    ModelError
        If it is no JSON, or nested too deeply.
    """
    try:
        return cast("Any", json.loads(content))
    except RecursionError:
        raise ModelError(f"{what} is nested too deeply to be read. Get the model again.") from None
    except ValueError as error:  # also bytes that are no UTF-8, and numbers of thousands of digits
        raise ModelError(f"{what} is damaged: {printable(str(error))}. Get the model again.") from None
