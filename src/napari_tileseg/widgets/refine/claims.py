"""``Claim``: a file that a living program uses, so that no other takes it for left behind."""

from __future__ import annotations

import contextlib
from typing import IO, TYPE_CHECKING

from napari_tileseg.io.mapped import lock

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Claim", "claim"]


class Claim:
    """Holds a file until it is released, or until the program ends in whatever way.

    Parameters
    ----------
    file : file
        Open and locked.
    path : Path
        Its place; it goes when it is released.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file = file
        self._path = path

    def release(self) -> None:
        """Let others have it."""
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def claim(path: Path) -> Claim | None:
    """Claim a file; None if another program has it.

    Raises
    ------
    OSError
        If the folder takes no files.
    """
    place = path.with_name(path.name + ".lock")
    file = place.open("a+b")
    try:
        lock(file)
    except (BlockingIOError, PermissionError):
        file.close()
        return None
    except OSError:
        pass  # a file system without locks: nobody can tell
    return Claim(file, place)
