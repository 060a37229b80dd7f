"""``EditLog``: undo and redo, many steps long, in little memory, in one order with the steps of another history."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

from napari_tileseg.refine.delta import Edit
from napari_tileseg.refine.record import edit_bytes, edit_from

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["EditLog", "Mark"]


@dataclass(frozen=True)
class Mark:
    """A step that another history holds: undoing it is that history's work.

    Parameters
    ----------
    token : object
        Whatever the caller wants back.
    tool : str
        What to count it as.
    """

    token: Any = None
    tool: str = "paint"


@dataclass(frozen=True)
class _Spilled:
    """An edit that waits in the temporary file."""

    offset: int
    size: int
    tool: str


class EditLog:
    """Steps that were done, and those that were undone and can be done again.

    The log changes no labels: `undo` and `redo` return what the caller is to revert or apply (`Canvas.revert`), or the `Mark` of
    a step that another history is to undo or redo.

    Parameters
    ----------
    steps : int
        Most steps to keep; the oldest go.
    memory : int
        Bytes of compressed steps in memory; older ones wait in a temporary file.
    """

    def __init__(self, steps: int = 1000, memory: int = 1 << 28) -> None:
        self._steps, self._memory = steps, memory
        self._done: list[Edit | Mark | _Spilled] = []
        self._undone: list[Edit | Mark | _Spilled] = []
        self._file: IO[bytes] | None = None

    def add(self, edit: Edit) -> None:
        """Take a step that was done; what was undone before can no longer be done again. An edit without changes is no step."""
        if edit:
            self._push(edit.packed())

    def mark(self, token: Any = None, tool: str = "paint") -> None:
        """Take note that another history has done a step."""
        self._push(Mark(token, tool))

    def undo(self) -> Edit | Mark | None:
        """Return the last step, which is to be reverted; None if there is none."""
        return self._move(self._done, self._undone)

    def redo(self) -> Edit | Mark | None:
        """Return the step that was undone last, which is to be applied; None if there is none."""
        return self._move(self._undone, self._done)

    @property
    def last(self) -> Edit | Mark | None:
        """The step that `undo` would return, which stays where it is."""
        return self._read(self._done[-1]) if self._done else None

    @property
    def nbytes(self) -> int:
        """Bytes of the steps in memory."""
        return sum(step.nbytes for step in (*self._done, *self._undone) if isinstance(step, Edit))

    def __len__(self) -> int:
        """Return the number of steps that are done and not undone."""
        return len(self._done)

    def counts(self) -> dict[str, int]:
        """Return how many steps of each tool are done and not undone."""
        return dict(Counter(step.tool for step in self._done))

    def clear(self) -> None:
        """Forget everything."""
        self._done, self._undone = [], []
        if self._file is not None:
            self._file.close()
            self._file = None

    def _push(self, step: Edit | Mark) -> None:
        self._undone.clear()
        self._done.append(step)
        del self._done[: -self._steps]
        self._spill()
        if self._file is not None and not any(isinstance(kept, _Spilled) for kept in self._done):
            self._file.close()
            self._file = None

    def _move(self, source: list[Edit | Mark | _Spilled], target: list[Edit | Mark | _Spilled]) -> Edit | Mark | None:
        if not source:
            return None
        step = source.pop()
        target.append(step)
        return self._read(step)

    def _read(self, step: Edit | Mark | _Spilled) -> Edit | Mark:
        if not isinstance(step, _Spilled):
            return step
        assert self._file is not None  # something was spilled
        self._file.seek(step.offset)
        return edit_from(self._file.read(step.size))

    def _spill(self) -> None:
        """Move the oldest edits to a temporary file, until the others are small enough; the last one stays."""
        over = self.nbytes - self._memory
        for place, step in self._oldest():
            if over <= 0:
                return
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="tileseg-undo-")
            data = edit_bytes(step)
            offset = self._file.seek(0, 2)
            self._file.write(data)
            self._done[place] = _Spilled(offset, len(data), step.tool)
            over -= step.nbytes

    def _oldest(self) -> Iterator[tuple[int, Edit]]:
        for place, step in enumerate(self._done[:-1]):
            if isinstance(step, Edit):
                yield place, step
