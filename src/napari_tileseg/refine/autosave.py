"""``EditJournal``: edits on the disk as they are made, so that they survive the program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit

__all__ = ["EditJournal", "Recovered", "identity", "journal_folder", "recover"]


@dataclass(frozen=True, eq=False)
class Recovered:
    """What a journal holds.

    Parameters
    ----------
    edits : tuple of Edit
        In the order in which they are to be applied; what was undone is left out.
    labels : str
        `identity` of the labels that they begin with.
    base : ndarray, optional
        Those labels, if the journal keeps a copy.
    facts : dict
        What the caller wrote at the beginning (JSON): name of the layer, scale, metadata.
    """

    edits: tuple[Edit, ...]
    labels: str
    base: NDArray[Any] | None
    facts: dict[str, Any]


def identity(data: Any) -> str:
    """Return the SHA-256 of shape, type and sampled content of labels."""
    raise NotImplementedError


def journal_folder() -> Path:
    """Return the folder for journals of labels that lie in no file."""
    raise NotImplementedError


def recover(path: Path) -> Recovered:
    """Read a journal; a record that was cut off, and what follows it, is left out. OutputError if it is no journal."""
    raise NotImplementedError


class EditJournal:
    """A journal that is written.

    Parameters
    ----------
    path : Path
        The file; made when the first edit is written.
    canvas : Canvas
        The labels as they are before the first edit.
    facts : dict
        Kept with it (JSON).
    keep_base : bool
        Whether to keep a copy of the labels as well: where they lie in no file.
    """

    def __init__(self, path: Path, canvas: Canvas, *, facts: dict[str, Any] | None = None, keep_base: bool = False) -> None:
        raise NotImplementedError

    def add(self, edit: Edit) -> None:
        """Take an edit that was done. It is written by `flush`."""
        raise NotImplementedError

    def undone(self) -> None:
        """Take note that the last edit was undone."""
        raise NotImplementedError

    def redone(self) -> None:
        """Take note that the edit that was undone last was done again."""
        raise NotImplementedError

    @property
    def waiting(self) -> float:
        """Seconds since the oldest thing that is not written yet; 0 if all is."""
        raise NotImplementedError

    def flush(self) -> None:
        """Write what waits; may run in a thread. OutputError if the disk refuses: it waits on."""
        raise NotImplementedError

    def close(self, *, remove: bool = False) -> None:
        """Write what waits, and end; with `remove`, because the labels were saved, delete the file instead."""
        raise NotImplementedError
