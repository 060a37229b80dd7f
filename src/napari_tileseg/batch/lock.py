"""One run at a time in an output folder."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from napari_tileseg.batch.ledger import FOLDER
from napari_tileseg.errors import OutputError
from napari_tileseg.io.mapped import lock
from napari_tileseg.io.output import refused

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

__all__ = ["OutputLock"]


class OutputLock:
    """Holds an output folder, which is made if it is not there, as long as the block lasts and the program lives.

    Parameters
    ----------
    output : Path
        The folder.

    Raises
    ------
    OutputError
        On entering: if another run holds it, or it cannot be made.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._file: IO[bytes] | None = None

    def __enter__(self) -> OutputLock:
        folder = self._output / FOLDER
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / "lock").open("a+b")
        except FileExistsError:
            raise OutputError(f'"{self._output}" is a file, or holds a file "{FOLDER}". Choose a folder for the results.') from None
        except OSError as error:
            raise refused(folder, error) from error
        try:
            lock(self._file)
        except (BlockingIOError, PermissionError):
            self._file.close()
            raise OutputError(f'Another run writes into "{self._output}" right now. Wait for it, or choose another folder.') from None
        except OSError:
            pass  # a file system without locks: nobody can tell
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
