"""``Ledger``: one SQLite file in the output folder that knows what a batch has done; it survives whatever ends the program.

A row a task, found by the place of its result below the output folder. No time of day and no absolute path is in it: clocks are
set back, and folders are moved.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from napari_tileseg.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import PurePath

    from napari_tileseg.batch.task import Outcome, State, Task

__all__ = ["FOLDER", "Ledger", "Row", "key_of", "ledger_path"]

FOLDER = ".tileseg"
"""Folder in the output folder for all that is no result."""

_SCHEMA = 1
_PATIENCE = 10_000
"""Milliseconds to wait for somebody who is just reading."""

_TABLES = """
CREATE TABLE IF NOT EXISTS job (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (
    key TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    name TEXT NOT NULL,
    model TEXT NOT NULL,
    size INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    message TEXT NOT NULL DEFAULT '',
    counts TEXT NOT NULL DEFAULT '{}',
    instances INTEGER NOT NULL DEFAULT 0,
    anomaly TEXT NOT NULL DEFAULT '{}',
    seconds REAL NOT NULL DEFAULT 0,
    digest TEXT NOT NULL DEFAULT '',
    input_digest TEXT NOT NULL DEFAULT '',
    output_stamp TEXT NOT NULL DEFAULT '',
    attempts INTEGER NOT NULL DEFAULT 0,
    finishes INTEGER NOT NULL DEFAULT 0
);
"""

_LATER = {"anomaly": "TEXT NOT NULL DEFAULT '{}'"}
"""Columns that ledgers of earlier versions do not have."""


@dataclass(frozen=True)
class Row:
    """What the ledger knows of a task.

    Parameters
    ----------
    key : str
        Place of the result below the output folder.
    number, name, model, size
        As in `Task`.
    state, message, counts, instances, anomaly, seconds, digest, input_digest
        As in `Outcome`.
    output_stamp : str
        `stamps.output_stamp` of the result when it was finished.
    attempts : int
        How often work on it was begun.
    finishes : int
        How often it was done.
    """

    key: str
    number: int
    name: str
    model: str
    size: int = 0
    state: State = "waiting"
    message: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    instances: bool = False
    anomaly: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    digest: str = ""
    input_digest: str = ""
    output_stamp: str = ""
    attempts: int = 0
    finishes: int = 0


_COLUMNS = tuple(Row.__dataclass_fields__)


def ledger_path(output: Path) -> Path:
    """Return where the ledger of an output folder stands."""
    return output / FOLDER / "ledger.sqlite"


def key_of(task: Task, output: Path) -> str:
    """Return what finds a task in the ledger: the place of its result, below the output folder where it lies there."""
    place = Path(task.output)
    text = place.relative_to(output).as_posix() if place.is_relative_to(output) else f"{task.name} > {task.model}"
    return _text(text)


class Ledger:
    """Made by `open`; may be used from any thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path, self._connection = path, connection
        self._lock = threading.RLock()

    @classmethod
    def open(cls, output: Path) -> Ledger:
        """Open the ledger of an output folder, or begin it; its folder must be there.

        Raises
        ------
        OutputError
            If it cannot be written, is damaged, or of a newer version.
        """
        path = ledger_path(output)
        with _told(path):
            connection = _connect(path)
        ledger = cls(path, connection)
        try:
            ledger._check_schema()
        except BaseException:
            connection.close()
            raise
        return ledger

    @staticmethod
    def look(output: Path) -> dict[str, Row]:
        """Return the rows of an output folder's ledger by their keys without changing anything; none where there is no ledger.

        Raises
        ------
        OutputError
            If it cannot be read.
        """
        path = ledger_path(output)
        if not path.is_file():
            return {}
        with _told(path), contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE / 1000)) as connection:
            connection.execute("PRAGMA query_only = ON")
            begun = connection.execute("SELECT name FROM sqlite_master WHERE name = 'tasks'").fetchone()
            return _rows(connection) if begun else {}  # somebody may just be making it

    @staticmethod
    def objection(output: Path, settings: Mapping[str, Any]) -> str:
        """Return the sentence with which `agree` would refuse other settings, without changing anything; empty if it would not.

        Raises
        ------
        OutputError
            If the ledger cannot be read.
        """
        path = ledger_path(output)
        if not path.is_file():
            return ""
        with _told(path), contextlib.closing(sqlite3.connect(path, timeout=_PATIENCE / 1000)) as connection:
            connection.execute("PRAGMA query_only = ON")
            found = connection.execute("SELECT value FROM job WHERE name = 'settings'").fetchone()
        return _refusal(path, None if found is None else json.loads(found[0]), json.loads(json.dumps(settings)))

    def close(self) -> None:
        """Close it; what was told is on the disk anyway."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            self._connection.close()

    def agree(self, job: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        """Note the job, or make sure that an earlier one computed the same.

        Parameters
        ----------
        job : mapping
            To be shown; replaces that of the earlier run.
        settings : mapping of str to JSON-able
            Everything that changes a result, by the name that people know.

        Raises
        ------
        OutputError
            If the results that are there were made with other settings.
        """
        now = json.loads(json.dumps(settings))
        if refusal := _refusal(self._path, self._value("settings"), now):
            raise OutputError(refusal)
        with self._changing() as connection:
            for name, value in (("settings", now), ("job", dict(job))):
                connection.execute("INSERT OR REPLACE INTO job VALUES (?, ?)", (name, json.dumps(value)))

    def rows(self) -> dict[str, Row]:
        """Return all rows by their keys."""
        with self._lock, _told(self._path):
            return _rows(self._connection)

    def take_up(self, tasks: Iterable[tuple[str, Task]]) -> None:
        """Take up the tasks of a run: new ones wait, and so do those that another run was cut off from."""
        self.stop()
        with self._changing() as connection:
            connection.executemany(
                "INSERT INTO tasks (key, number, name, model, size) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET number = excluded.number, name = excluded.name, size = excluded.size",
                [(key, task.number, _text(task.name), _text(task.model), task.size) for key, task in tasks],
            )

    def stop(self) -> None:
        """Note that nothing is going on: what was begun and is not over waits."""
        with self._changing() as connection:
            connection.execute("UPDATE tasks SET state = 'waiting' WHERE state = 'running'")

    def start(self, key: str) -> int:
        """Note that work on a task begins; return which attempt it is, from 1."""
        with self._changing() as connection:
            found = connection.execute(
                "UPDATE tasks SET state = 'running', attempts = attempts + 1 WHERE key = ? RETURNING attempts", (key,)
            ).fetchone()
        return int(found[0])

    def finish(self, key: str, outcome: Outcome, *, output_stamp: str = "") -> None:
        """Note how a task ended."""
        with self._changing() as connection:
            connection.execute(
                "UPDATE tasks SET state = ?, message = ?, counts = ?, instances = ?, anomaly = ?, seconds = ?, digest = ?,"
                " input_digest = ?, output_stamp = ?, finishes = finishes + ? WHERE key = ?",
                (
                    outcome.state,
                    _text(outcome.message),
                    json.dumps(outcome.counts),
                    outcome.instances,
                    json.dumps(outcome.anomaly),
                    outcome.seconds,
                    outcome.digest,
                    outcome.input_digest,
                    output_stamp,
                    outcome.state == "done",
                    key,
                ),
            )

    def touch(self, key: str, output_stamp: str) -> None:
        """Note that a result is still the same, though somebody has moved or copied it."""
        with self._changing() as connection:
            connection.execute("UPDATE tasks SET output_stamp = ? WHERE key = ?", (output_stamp, key))

    def wait(self, keys: Iterable[str]) -> None:
        """Note that tasks are to be done (again)."""
        with self._changing() as connection:
            connection.executemany("UPDATE tasks SET state = 'waiting', message = '' WHERE key = ?", [(key,) for key in keys])

    def origins(self, now: frozenset[str]) -> frozenset[str]:
        """Note where the images lie, as digests; return where they lay in earlier runs, these places if there was none."""
        before = self._value("origins")
        with self._changing() as connection:
            known = sorted(now | set(before or ()))
            connection.execute("INSERT OR REPLACE INTO job VALUES ('origins', ?)", (json.dumps(known),))
        return now if before is None else frozenset(before)

    def _value(self, name: str) -> Any:
        with self._lock, _told(self._path):
            found = self._connection.execute("SELECT value FROM job WHERE name = ?", (name,)).fetchone()
        return None if found is None else json.loads(found[0])

    def _check_schema(self) -> None:
        with self._changing() as connection:
            version = int(connection.execute("PRAGMA user_version").fetchone()[0])
            if version > _SCHEMA:
                raise OutputError(f'"{self._path}" was written by a newer version of napari-tileseg. Update it, or choose another folder.')
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")

    @contextlib.contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """Give the connection inside one transaction."""
        with self._lock, _told(self._path), self._connection:
            yield self._connection


def _refusal(path: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """Say what is other than in an earlier run; nothing where all is the same."""
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)] if before is not None else []
    if before is None or not changed:
        return ""
    told = "; ".join(f"{name} (was {_shown(before.get(name))}, is {_shown(now.get(name))})" for name in changed)
    return (
        f'The results in "{path.parent.parent}" were made with other settings: {told}. '
        "Choose another output folder, or the settings of before."
    )


def _connect(path: Path) -> sqlite3.Connection:
    """Open the file in the first way that works: with a write-ahead log; without, where the disk is a network's; without locks."""
    refused: sqlite3.OperationalError | None = None
    for mode, address in (("WAL", ""), ("DELETE", ""), ("DELETE", "?nolock=1")):
        connection = sqlite3.connect(f"{_uri(path.absolute())}{address}", uri=True, timeout=_PATIENCE / 1000, check_same_thread=False)
        try:
            got = connection.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0]
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if got == 'wal' else 'FULL'}")
            connection.executescript(_TABLES)
            for column in set(_LATER) - _columns(connection):
                connection.execute(f"ALTER TABLE tasks ADD COLUMN {column} {_LATER[column]}")
            return connection
        except sqlite3.OperationalError as error:
            connection.close()
            refused = error
        except BaseException:
            connection.close()
            raise
    raise refused or sqlite3.OperationalError("no way to open it")


def _uri(path: PurePath) -> str:
    """Return the address of a file as SQLite takes it: the server of a Windows share must stand in the path, not before it."""
    uri = path.as_uri()
    return uri if uri.startswith("file:///") else uri.replace("file://", "file:////", 1)


def _rows(connection: sqlite3.Connection) -> dict[str, Row]:
    columns = [name for name in _COLUMNS if name in _columns(connection)]  # one that is only looked at may be of an earlier version
    found = connection.execute(f"SELECT {', '.join(columns)} FROM tasks ORDER BY number").fetchall()
    rows = (dict(zip(columns, values, strict=True)) for values in found)
    return {values["key"]: _row(values) for values in rows}


def _row(values: dict[str, Any]) -> Row:
    told: dict[str, Any] = {name: json.loads(values[name]) for name in ("counts", "anomaly") if name in values}
    return Row(**{**values, **told, "instances": bool(values["instances"])})


def _columns(connection: sqlite3.Connection) -> set[str]:
    return {name for _, name, *_ in connection.execute("PRAGMA table_info(tasks)")}


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn what SQLite says into a sentence."""
    folder = path.parent.parent
    try:
        yield
    except sqlite3.OperationalError as error:
        if "full" in str(error):
            raise OutputError(
                f'The disk that holds "{folder}" is full. Free some space and start the same run again: it goes on where it stopped.'
            ) from error
        raise OutputError(
            f'The ledger "{path}" could not be written: {error}. Start the same run again when it can be, or choose another folder.'
        ) from error
    except sqlite3.DatabaseError as error:
        raise OutputError(
            f'The ledger "{path}" is damaged: {error}. Choose another output folder, or delete the ledger to do all images again.'
        ) from error


def _text(value: str) -> str:
    """Return text that can be stored: names of files may hold bytes that are no UTF-8."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(cast("object", value))
