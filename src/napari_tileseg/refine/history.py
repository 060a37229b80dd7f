"""``EditLog``: undo and redo, many steps long, in little memory, in one order with the steps of another history."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_tileseg.refine.delta import Edit

__all__ = ["EditLog", "Mark"]


@dataclass(frozen=True)
class Mark:
    """A step that another history holds: undoing it is that history's work.

    Parameters
    ----------
    token : object
        Whatever the caller wants back.
    """

    token: Any = None


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
        raise NotImplementedError

    def add(self, edit: Edit) -> None:
        """Take a step that was done; what was undone before can no longer be done again."""
        raise NotImplementedError

    def mark(self, token: Any = None) -> None:
        """Take note that another history has done a step."""
        raise NotImplementedError

    def undo(self) -> Edit | Mark | None:
        """Return the last step, which is to be reverted; None if there is none."""
        raise NotImplementedError

    def redo(self) -> Edit | Mark | None:
        """Return the step that was undone last, which is to be applied; None if there is none."""
        raise NotImplementedError

    @property
    def can_undo(self) -> bool:
        raise NotImplementedError

    @property
    def can_redo(self) -> bool:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def counts(self) -> dict[str, int]:
        """Return how many steps of each tool are done and not undone."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget everything."""
        raise NotImplementedError
