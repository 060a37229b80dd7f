"""``Journal``: how far a run has come, on disk, so that it can be killed at any moment and continued.

Its folder holds ``journal.json`` and, where objects are found, the scores that still wait for their objects to end::

    rows of one sample, along the scan
        0 .......... base ......... frontier ......... rows ................ end
        in the labels              |  scores kept in chunk files             |  not computed
                     surroundings  |  labels of objects that reach across    |
                                   |  the frontier: one small file           |

Order makes it safe. Labels reach the disk first, then the chunk of scores that is new, then ``journal.json``, which is replaced
as a whole and names every file that counts; only then are files deleted that no longer count. A run that is killed in between
leaves the journal as it was one slab before, and at most some files that nobody names.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.joined import Joined
from napari_tileseg.engine.objects import Objects
from napari_tileseg.errors import OutputError
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari_tileseg.engine.decode import Decoder

__all__ = ["Journal", "JournalKeeper", "Keeper", "damaged", "disk_error"]

_NAME = "journal.json"
_FORMAT = 1
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows has no quota error


class Keeper:
    """How far the run of one sample has come, in memory: where a second try, with a smaller window say, goes on.

    Parameters
    ----------
    rows : int
        Rows along the scan that need not be computed.
    """

    def __init__(self, rows: int = 0) -> None:
        self.rows = rows
        self._decoder: Decoder | None = None

    def resume(self, fresh: Decoder) -> Decoder | None:
        """Return the decoder that has seen `rows` rows of scores; None where that cannot be had.

        Parameters
        ----------
        fresh : Decoder
            One that has seen nothing.
        """
        if self._decoder is not None:
            return self._decoder
        return fresh if not self.rows or not isinstance(fresh, Objects | Joined) else None

    def keep(self, rows: int, decoder: Decoder) -> None:
        """Take note that the decoder has seen `rows` rows of scores, and the sink all that it gave for them."""
        self.rows, self._decoder = rows, decoder


class JournalKeeper(Keeper):
    """The same on disk, for one sample of a journal."""

    def __init__(self, journal: Journal, sample: int) -> None:
        super().__init__(int(journal.state["rows"]) if journal.state["sample"] == sample else 0)
        self._journal = journal

    def resume(self, fresh: Decoder) -> Decoder | None:
        if self._decoder is None and self.rows and isinstance(fresh, Objects | Joined):
            self._journal.restore(fresh)
            self._decoder = fresh
        return super().resume(fresh)

    def keep(self, rows: int, decoder: Decoder) -> None:
        super().keep(rows, decoder)
        self._journal.keep(rows, decoder)


class Journal:
    """The record of one image's run in a folder of its own. Made by `open`.

    Attributes
    ----------
    folder : Path
    state : dict
        What a continued run needs besides scores: ``sample`` (number of the plane, frame or volume that is going on), ``rows``
        (of it, along the scan), and what `collect` gave. JSON.
    resumed : bool
        Whether an earlier run has left something.
    sync : callable
        Brings the labels so far to the disk; called before the journal speaks of them.
    collect : callable
        Returns what else a continued run needs to know (JSON); it becomes part of `state`.
    """

    def __init__(self, folder: Path, fingerprint: Mapping[str, str], state: dict[str, Any], *, resumed: bool) -> None:
        self.folder, self.state, self.resumed = folder, state, resumed
        self.sync: Callable[[], None] = lambda: None
        self.collect: Callable[[], dict[str, Any]] = dict
        self._fingerprint = dict(fingerprint)

    @classmethod
    def open(cls, folder: Path, fingerprint: Mapping[str, str], *, resume: bool = True) -> Journal:
        """Begin a journal, or go on with one.

        Parameters
        ----------
        folder : Path
            Made if it is not there; its parent must be.
        fingerprint : mapping of str to str
            Everything that can change a label: what it is, as a person would say it ("overlap"), and its value.
        resume : bool
            Whether to go on with what is there; it is forgotten otherwise.

        Raises
        ------
        OutputError
            If what is there was begun with another fingerprint, is damaged, or belongs to a newer version; or the disk refuses.
        """
        try:
            folder.mkdir(exist_ok=True)
            there = _read(folder / _NAME) if resume else None
            if there is not None:
                _compare(folder, there["fingerprint"], fingerprint)
                return cls(folder, fingerprint, there["state"], resumed=True)
            journal = cls(folder, fingerprint, {"sample": 0, "rows": 0}, resumed=False)
            (folder / _NAME).unlink(missing_ok=True)
            journal._sweep()
        except OSError as error:
            raise disk_error(error, folder) from error
        return journal

    @property
    def begun(self) -> bool:
        """Whether anything is finished."""
        return bool(self.state["sample"] or self.state["rows"])

    def save(self) -> None:
        """Bring the state to the disk.

        Raises
        ------
        OutputError
            If the disk is full or refuses; what it holds is as before.
        """
        self._write(self.state)

    def keeper(self, sample: int) -> JournalKeeper:
        """Return the keeper of one sample."""
        return JournalKeeper(self, sample)

    def keep(self, rows: int, decoder: Decoder) -> None:
        """Take note of another slab of the sample that goes on; see `Keeper.keep`."""
        changes: dict[str, Any] = {"rows": rows}
        try:
            self.sync()
            if isinstance(decoder, Objects):
                changes["objects"] = self._keep_objects(decoder)
            elif isinstance(decoder, Joined):
                changes["objects"] = self._keep_joined(decoder)
        except OSError as error:
            raise disk_error(error, self.folder) from error
        self._write({**self.state, **changes})

    def finish_sample(self, *, last: bool = False) -> None:
        """Take note that the sample is complete, and forget its scores; after the last one only saving is left."""
        try:
            self.sync()
        except OSError as error:
            raise disk_error(error, self.folder) from error
        self._write({**self.state, "sample": self.state["sample"] + 1, "rows": 0, "objects": None, "complete": last})

    def restore(self, decoder: Objects | Joined) -> None:
        """Bring a fresh decoder to where the journal is.

        Raises
        ------
        OutputError
            If files of the journal are damaged.
        """
        record = self.state["objects"]
        try:
            chunks = [np.load(self._file(chunk)) for chunk in record["chunks"]]
            with np.load(self._file(record["open"])) as arrays:
                opened = dict(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise damaged(self.folder) from error
        if isinstance(decoder, Joined):
            decoder.restore(record["numbers"], opened)
            return
        base = int(record["base"])
        scores = np.concatenate(chunks, axis=1)[:, base - int(record["chunks"][0]["start"]) :]
        decoder.restore(record["numbers"], opened, base, scores.copy())

    @staticmethod
    def over(folder: Path, output: Path) -> bool:
        """Whether a folder is that of a run which ended after its output was in place, and before all of the folder was deleted."""
        try:
            found = _read(folder / _NAME)
            written = output.stat().st_mtime_ns
            return found is None or (bool(found["state"].get("complete")) and written >= (folder / _NAME).stat().st_mtime_ns)
        except (OSError, OutputError):
            return False

    def remove(self) -> None:
        """Delete the folder with everything in it: the result is in place. The journal goes last, lest somebody goes on with half of it."""
        for path in self.folder.iterdir():
            if path.name != _NAME:
                with contextlib.suppress(OSError):  # Windows deletes no file that is mapped
                    path.unlink()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _keep_objects(self, decoder: Objects) -> dict[str, Any]:
        """Write the scores that are new, and what the decoder knows; return what names them."""
        base, stop = decoder.held
        before = (self.state.get("objects") or {}).get("chunks", [])
        chunks = [chunk for chunk in before if chunk["stop"] > base]
        start = max(chunks[-1]["stop"] if chunks else base, base)
        where = f"{self.state['sample']}-{stop}"
        if start < stop or not chunks:  # without any rows the file still tells their shape
            name = f"scores-{where}.npy"
            chunks.append({"start": start, "stop": stop, **self._put(name, lambda stream: np.save(stream, decoder.scores(start)))})
        numbers, arrays = decoder.state()
        opened = self._put(f"open-{where}.npz", lambda stream: np.savez_compressed(stream, labels=arrays["labels"], done=arrays["done"]))
        return {"base": base, "chunks": chunks, "open": opened, "numbers": numbers}

    def _keep_joined(self, decoder: Joined) -> dict[str, Any]:
        """Write all that the decoder holds: labels only, of two rows of tiles and of objects that go on."""
        numbers, arrays = decoder.state()
        name = f"open-{self.state['sample']}-{numbers['base']}-{secrets.token_hex(4)}.npz"
        opened = self._put(name, lambda stream: np.savez_compressed(stream, allow_pickle=False, **arrays))
        return {"base": numbers["base"], "chunks": [], "open": opened, "numbers": numbers}

    def _put(self, name: str, write: Callable[[Any], None]) -> dict[str, Any]:
        """Write a file and wait for the disk. Nobody names it yet, so it may be half-written without harm."""
        content = io.BytesIO()  # NumPy's own way to a file forgets why the system refuses
        write(content)
        with (self.folder / name).open("wb") as stream:
            stream.write(content.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
            return {"name": name, "size": stream.tell()}

    def _file(self, record: Mapping[str, Any]) -> Path:
        path = self.folder / str(record["name"])
        if path.stat().st_size != record["size"]:
            raise ValueError(f"{path} has another size than the journal says")
        return path

    def _write(self, state: dict[str, Any]) -> None:
        state = {**state, **self.collect()}
        body = {"format": _FORMAT, "fingerprint": self._fingerprint, "state": state}
        temporary = self.folder / f"{_NAME}.new"
        try:
            with temporary.open("w", encoding="utf-8") as stream:
                json.dump({**body, "checksum": _checksum(body)}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            move(temporary, self.folder / _NAME)
        except OSError as error:
            raise disk_error(error, self.folder) from error
        self.state = state
        self._sweep()

    def _sweep(self) -> None:
        """Delete chunk files that the journal does not name, as far as the system lets them go: the next time does the rest."""
        record = self.state.get("objects") or {"chunks": [], "open": {"name": ""}}
        named = {record["open"]["name"], *(chunk["name"] for chunk in record["chunks"])}
        for pattern in ("scores-*.npy", "open-*.npz"):
            for path in self.folder.glob(pattern):
                if path.name not in named:
                    with contextlib.suppress(OSError):
                        path.unlink()


def disk_error(error: OSError, folder: Path) -> OutputError:
    """Say why the disk refuses, and that the run can go on later."""
    if error.errno in _FULL:
        return OutputError(
            f'The disk that holds "{folder.parent}" is full. Free some space and start the same run again: it goes on where it stopped.'
        )
    return OutputError(f'"{folder}" could not be written: {error.strerror or error}. Start the same run again when it can be.')


def _checksum(body: Mapping[str, Any]) -> str:
    # Through JSON and back, so that tuples and lists, or keys that are numbers, count as the same.
    return hashlib.sha256(json.dumps(json.loads(json.dumps(body)), sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """Return what the journal says; None where there is none."""
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        checksum = body.pop("checksum")
        if body["format"] > _FORMAT or checksum != _checksum(body):
            raise damaged(path.parent)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path.parent) from error
    found: dict[str, Any] = body
    return found


def damaged(folder: Path) -> OutputError:
    """Say that what a journal holds cannot be used."""
    return OutputError(f'The journal of the unfinished run in "{folder}" is damaged or of a newer version. {_RESTART}')


def _compare(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to mix two runs."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if not changed:
        return
    told = [f"{name} (was {old}, is {new})" for name in changed for old, new in [(before.get(name, "none"), now.get(name, "none"))]]
    raise OutputError(f'The unfinished run in "{folder}" cannot go on, because something has changed: {"; ".join(told)}. {_RESTART}')


_RESTART = "Begin anew (--restart on the command line, resume=False in Python)."
