"""``EditJournal``: edits on the disk as they are made, so that they survive the program.

::

    TILESEG-EDITS 1
    HEAD  what the labels are, the process that writes, the caller's facts (JSON)
    BASE  a block of the labels as they were, one record each, if the journal keeps them
    EDIT  an edit that was done
    UNDO  the last edit that counts was undone
    REDO  it was done again
    MARK  what was said of objects: words of some rows of some columns of the layer's table (JSON)

Each record carries its length and a checksum. The file appears as a whole, under a temporary name first, and then only grows; what
a crash cuts off at its end, and only that, is left out when it is read. A write that fails is taken back before the next one.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import itertools
import json
import os
import platform
import re
import secrets
import struct
import threading
import time
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from napari_tileseg.errors import OutputError
from napari_tileseg.folders import edits_folder
from napari_tileseg.moving import move
from napari_tileseg.refine.blocks import blocks
from napari_tileseg.refine.delta import Delta, Edit
from napari_tileseg.refine.record import edit_bytes, edit_from

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas

    Marks = Mapping[str, Mapping[int, str]]
    """By column of the layer's table, by label: a word, empty where there is none any more."""

__all__ = ["SUFFIX", "EditJournal", "Recovered", "abandoned", "identity", "journal_path", "recover"]

SUFFIX = ".tileseg-edits"
"""How the names of journals end."""

_MAGIC = b"TILESEG-EDITS 1\n"
_FRAME = struct.Struct("<4sQI")  # kind, length, CRC-32 of kind, length and content

_TOKEN = 4
"""Bytes that tell journals of one file apart."""

_LONGEST = 200
"""Bytes of a file's name that are put into that of its journal."""

_ELSEWHERE = 1800.0
"""Seconds for which a journal that another computer writes counts as in use after its last change: nobody here can ask that program."""


@dataclass(frozen=True, eq=False)
class Recovered:
    """What a journal holds.

    Parameters
    ----------
    edits : tuple of Edit
        In the order in which they are to be applied; what was undone is left out.
    labels : str
        `identity` of the labels that they begin with.
    shape : tuple of int
    dtype : numpy.dtype
        Of those labels.
    base : ndarray, optional
        Those labels, if the journal keeps a copy.
    facts : mapping
        What the caller wrote at the beginning: name of the layer, scale, metadata.
    running : bool
        Whether the process that writes it is still there: then it is not lost.
    marks : mapping of str to mapping of int to str
        By column of the layer's table, by label: the word that was said last; empty where it was taken back.
    """

    edits: tuple[Edit, ...]
    labels: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    base: NDArray[Any] | None
    facts: Mapping[str, Any]
    running: bool
    marks: Marks = field(default_factory=dict)

    def fits(self, data: Any) -> bool:
        """Say whether some labels are those that the edits begin with; a file may have kept them in a smaller type."""
        return tuple(data.shape) == self.shape and identity(data) == self.labels and self._holds(np.dtype(data.dtype))

    def done_in(self, data: Any) -> bool:
        """Say whether some labels are those that the edits end with: they were saved in another way. Needs `base`."""
        if self.base is None or tuple(data.shape) != self.shape:
            return False
        done = self.base.copy()
        for edit in self.edits:
            edit.apply(done)
        return identity(data) == identity(done)

    def _holds(self, dtype: np.dtype[Any]) -> bool:
        if np.can_cast(self.dtype, dtype):
            return True
        highest = max((int(delta.after.max(initial=0)) for edit in self.edits for delta in edit.deltas), default=0)
        return highest <= np.iinfo(dtype).max


def identity(data: Any) -> str:
    """Return the SHA-256 of shape and sampled content (up to 256 small boxes) of labels, whatever type they are kept in."""
    shape = tuple(int(size) for size in data.shape)
    digest = hashlib.sha256(repr(shape).encode())
    counts = [4 if len(shape) - axis <= 4 else 1 for axis in range(len(shape))]
    starts = [sorted({int(at) for at in np.linspace(0, max(size - 8, 0), count)}) for size, count in zip(shape, counts, strict=True)]
    for corner in itertools.product(*starts):
        box = tuple(slice(at, min(at + 8, size)) for at, size in zip(corner, shape, strict=True))
        digest.update(np.ascontiguousarray(data[box], dtype="<i8").tobytes())
    return digest.hexdigest()


def journal_path(name: str, output: Path | None = None) -> Path:
    """Return a new place for the journal of some labels: beside their file if one may write there, else in the user's data folder.

    No two are the same, so that programs that have one file open do not mix their edits.

    Parameters
    ----------
    name : str
        Of the layer.
    output : Path, optional
        The file or folder in which the labels lie.
    """
    token = secrets.token_hex(_TOKEN)
    if output is not None and os.access(output.absolute().parent, os.W_OK):
        return output.absolute().with_name(f"{_beside(output)}{token}{SUFFIX}")
    plain = re.sub(r"[^\w-]+", "_", name)[:60] or "labels"
    return edits_folder() / f"{plain}-{token}{SUFFIX}"


def abandoned(output: Path | None = None) -> list[Path]:
    """Return the journals whose program has ended without saving, the newest first.

    Parameters
    ----------
    output : Path, optional
        Those beside this file; by default those in the user's data folder.
    """
    folder, names = edits_folder(), "*"
    if output is not None:
        folder, names = output.absolute().parent, glob.escape(_beside(output)) + "?" * 2 * _TOKEN
    found = []
    for path in folder.glob(names + SUFFIX):
        with contextlib.suppress(OutputError, OSError):
            changed = path.stat().st_mtime
            head = next(_records(path))[1]
            if not _running(json.loads(head), time.time() - changed):
                found.append((changed, path))
    return [path for _, path in sorted(found, reverse=True)]


def _beside(output: Path) -> str:
    """Return how the names of the journals beside a file begin: hidden, and as long as file systems take."""
    name = output.name
    if len(name.encode()) > _LONGEST:
        name = f"{name[:40]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return f".{name}."


def recover(path: Path) -> Recovered:
    """Read a journal. A record that was cut off or damaged, and what follows it, is left out.

    Raises
    ------
    OutputError
        If it cannot be read, or is no journal.
    """
    records = _records(path)
    head = json.loads(next(records)[1])
    shape, dtype = tuple(head["shape"]), np.dtype(head["dtype"])
    done: list[Edit] = []
    undone: list[Edit] = []
    marks: dict[str, dict[int, str]] = {}
    base, missing = (np.zeros(shape, dtype), int(head["base"])) if head["base"] else (None, 0)
    for kind, content in records:
        if kind == b"BASE" and base is not None:
            edit_from(content).apply(base)
            missing -= 1
        elif kind == b"EDIT":
            done.append(edit_from(content))
            undone.clear()
        elif kind == b"UNDO" and done:
            undone.append(done.pop())
        elif kind == b"REDO" and undone:
            done.append(undone.pop())
        elif kind == b"MARK":
            for column, words in json.loads(content).items():
                marks.setdefault(column, {}).update({int(label): str(word) for label, word in words.items()})
    running = _running(head, time.time() - path.stat().st_mtime)
    return Recovered(tuple(done), head["labels"], shape, dtype, base if not missing else None, head["facts"], running, marks)


class EditJournal:
    """A journal that is written. Nothing is on the disk before the first `flush`.

    Its methods may be called from several threads.

    Parameters
    ----------
    path : Path
        The file, see `journal_path`; one that is there is replaced by the first `flush`.
    canvas : Canvas
        The labels as they are before the first edit; some of them are read.
    facts : mapping
        Kept with it (JSON).
    keep_base : bool
        Whether to keep a copy of the labels as well: where they lie in no file. All of them are read and compressed then.
    """

    def __init__(self, path: Path, canvas: Canvas, *, facts: Mapping[str, Any] | None = None, keep_base: bool = False) -> None:
        self.path = path
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._length = 0
        self._closed = False
        base = list(_base(canvas)) if keep_base else []
        process = psutil.Process()
        head = {
            "labels": identity(canvas.data),
            "shape": list(canvas.shape),
            "dtype": canvas.dtype.str,
            "base": len(base),
            "process": [process.pid, process.create_time()],
            "machine": _machine(),
            "facts": dict(facts or {}),
        }
        self._start: list[bytes] = [_record(b"HEAD", json.dumps(head).encode()), *base]
        self._queue: list[tuple[bytes, Edit | bytes]] = []
        self._since: float | None = None

    def add(self, edit: Edit) -> None:
        """Take an edit that was done. It is written by `flush`."""
        if edit:
            self._note(b"EDIT", edit)

    def undone(self) -> None:
        """Take note that the last edit was undone."""
        self._note(b"UNDO", b"")

    def redone(self) -> None:
        """Take note that the edit that was undone last was done again."""
        self._note(b"REDO", b"")

    def mark(self, marks: Marks) -> None:
        """Take note of what was said of objects: by column, by label, a word, empty to take it back."""
        if any(marks.values()):
            self._note(b"MARK", json.dumps(marks).encode())

    @property
    def waiting(self) -> float:
        """Seconds since the oldest thing that is not on the disk yet; 0 if all is."""
        with self._lock:
            return 0.0 if self._since is None else max(time.monotonic() - self._since, 1e-9)

    def flush(self) -> None:
        """Bring to the disk what waits.

        Raises
        ------
        OutputError
            If the disk refuses; what waits waits on.
        """
        with self._writing:
            with self._lock:
                taken, since, self._queue, self._since = self._queue, self._since, [], None
            if not taken or self._closed:
                return
            try:
                self._write([_record(kind, edit_bytes(said) if isinstance(said, Edit) else said) for kind, said in taken])
            except OSError as error:
                with self._lock:
                    self._queue, self._since = [*taken, *self._queue], since
                raise OutputError(
                    f'Edits cannot be kept in "{self.path.parent}": {error.strerror or error}. Save the labels soon.'
                ) from error

    def close(self, *, remove: bool = False) -> None:
        """Write what waits, and end; with `remove`, because the labels were saved or the edits are not wanted, delete the file.

        Raises
        ------
        OutputError
            If the disk refuses.
        """
        if not remove:
            self.flush()
        with self._writing, self._lock:
            self._queue, self._since, self._closed = [], None, True
            if remove:
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)

    def _note(self, kind: bytes, said: Edit | bytes) -> None:
        with self._lock:
            self._queue.append((kind, said))
            self._since = self._since if self._since is not None else time.monotonic()

    def _write(self, records: list[bytes]) -> None:
        if not self._length:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_name(f".{secrets.token_hex(6)}{self.path.name}.part")
            try:
                with temporary.open("wb") as stream:
                    stream.writelines([_MAGIC, *self._start, *records])
                    stream.flush()
                    os.fsync(stream.fileno())
                    length = stream.tell()
                move(temporary, self.path)
            finally:
                temporary.unlink(missing_ok=True)
            self._length, self._start = length, []
            return
        with self.path.open("r+b") as stream:
            stream.seek(self._length)
            stream.truncate()  # what an earlier try left
            stream.writelines(records)
            stream.flush()
            os.fsync(stream.fileno())
            self._length = stream.tell()


def _base(canvas: Canvas) -> Iterator[bytes]:
    """Yield the labels, as edits of an empty array."""
    for box in blocks(tuple(slice(0, size) for size in canvas.shape), canvas.chunks):
        values = canvas.read(box)
        if values.any():
            delta = Delta(tuple(part.start for part in box), np.zeros_like(values), values)
            yield _record(b"BASE", edit_bytes(Edit("base", (delta,))))


def _record(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(content, zlib.crc32(kind + struct.pack("<Q", len(content))))
    return _FRAME.pack(kind, len(content), check) + content


def _records(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and content of each record that is whole; the first one is the head."""
    wrong = OutputError(f'"{path.name}" is no journal of edits, or damaged at its beginning. It cannot be recovered.')
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise wrong
            first = True
            while frame := stream.read(_FRAME.size):
                if len(frame) < _FRAME.size:
                    break
                kind, length, check = _FRAME.unpack(frame)
                content = stream.read(length) if length <= size - stream.tell() else b""
                if len(content) != length or zlib.crc32(content, zlib.crc32(frame[:12])) != check:
                    break
                if first and kind != b"HEAD":
                    raise wrong
                first = False
                yield kind, content
            if first:
                raise wrong
    except OSError as error:
        raise OutputError(f'"{path}" cannot be read: {error.strerror or error}. Check the file and its permissions.') from error


def _running(head: Mapping[str, Any], age: float) -> bool:
    """Say whether the program that writes a journal is still there; `age` is how many seconds ago the file changed."""
    if head.get("machine", _machine()) != _machine():
        return age < _ELSEWHERE
    pid, born = head["process"]
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(born)) < 2  # a number is given again, but not at the same time
    except psutil.Error:
        return False


def _machine() -> str:
    """Return what tells this computer from others, without its name."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:16]
