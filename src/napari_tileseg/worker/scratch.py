"""The folder where arrays wait between two processes: private, and cleaned up even after a crash."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import re
import shutil
import stat
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from napari_tileseg.errors import OutputError
from napari_tileseg.io.mapped import allocate, lock
from napari_tileseg.units import file_size

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Scratch", "allocate", "check_space", "file_size", "free_bytes", "remove_stale"]

_LOG = logging.getLogger(__name__)
_LOCK = "owner.lock"
_GATE = ".lock"
_NAME = re.compile(r"tileseg-\d+-\w+")


class Scratch:
    """A folder of this process alone; a lock that the system takes back with the process tells the living from the dead.

    Parameters
    ----------
    base : Path, optional
        Where to make it; ``napari-tileseg-<user>`` in the system's folder for temporary files by default.

    Raises
    ------
    OutputError
        If no folder can be made there.
    """

    def __init__(self, base: Path | None = None) -> None:
        try:
            self.base = _given(base) if base else _private(Path(tempfile.gettempdir()) / f"napari-tileseg-{_user()}")
            with _locked(self.base / _GATE):  # nobody may judge the new folder before it carries its own lock
                self.path = Path(tempfile.mkdtemp(prefix=f"tileseg-{os.getpid()}-", dir=self.base))
                self._owner: IO[bytes] | None = (self.path / _LOCK).open("w+b")
                with contextlib.suppress(OSError):  # a file system without locks: the folder then always counts as alive
                    lock(self._owner)
        except OSError as error:
            place = base or tempfile.gettempdir()
            raise OutputError(
                f"No scratch folder can be made in {place}: {error.strerror or error}. Point TMPDIR to a folder you may write to."
            ) from error
        # Large files take seconds to delete, and the caller may be a window.
        threading.Thread(target=remove_stale, args=(self.base,), name="tileseg-sweep", daemon=True).start()
        self._leftovers: list[Path] = []

    def folder(self, name: str) -> Path:
        """Make a folder inside, with `name` at the start of its name."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.path))

    def discard(self, folder: Path) -> None:
        """Delete a folder inside; what a live map still holds on Windows is tried again later."""
        self._leftovers = [left for left in [*self._leftovers, folder] if not _delete(left)]

    def close(self) -> None:
        """Delete everything; where a live map forbids it (Windows), the next program to start does it."""
        if self._owner is None:
            return
        self._owner.close()
        self._owner = None
        _delete(self.path)


def check_space(folder: Path, needed: int) -> None:
    """Refuse a run for which the scratch disk has no room.

    Raises
    ------
    OutputError
        With the needed and the free space.
    """
    free = free_bytes(folder)
    if needed > free:
        raise OutputError(
            f"The run needs {file_size(needed)} in {folder.parent}; {file_size(free)} are free. "
            "Free some space, or point TMPDIR to another disk and start again."
        )


def free_bytes(folder: Path) -> int:
    """Return the room that is left on the disk of a folder."""
    return shutil.disk_usage(folder).free


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()


def _given(base: Path) -> Path:
    base.mkdir(parents=True, exist_ok=True)
    return base


def _private(base: Path) -> Path:
    """Make the folder, or check that it is ours; another one is made where somebody else holds the name."""
    with contextlib.suppress(FileExistsError):
        base.mkdir(mode=0o700)
    if not hasattr(os, "getuid"):
        return base  # on Windows the folder for temporary files is private already
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix="napari-tileseg-"))
    if found.st_mode & 0o077:
        base.chmod(0o700)
    return base


def remove_stale(base: Path) -> None:
    """Delete what processes that are dead by now have left in `base`."""
    with contextlib.suppress(OSError):
        with _locked(base / _GATE):
            stale = [folder for folder in base.iterdir() if _is_scratch(folder) and not _alive(folder / _LOCK)]
        for folder in stale:  # a dead folder stays dead: names are never used twice
            _delete(folder)


def _is_scratch(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink() and bool(_NAME.fullmatch(folder.name))


def _alive(path: Path) -> bool:
    """Tell whether some process still holds the lock of its folder."""
    try:
        with path.open("r+b") as file:
            lock(file)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that others hold for moments only; a file system without locks gives none."""
    with path.open("a+b") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            with contextlib.suppress(OSError):
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            yield
            file.seek(0)
            with contextlib.suppress(OSError):
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _delete(folder: Path) -> bool:
    """Delete a folder; return whether it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()
