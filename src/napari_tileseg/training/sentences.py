"""``some`` and ``left_out``: sentences that name images, the first few of many."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["left_out", "some"]

_SHOWN = 5


def some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def left_out(names: Sequence[str], one: str, many: str = "") -> str:
    """Return a sentence that says which images are left out, and why.

    Parameters
    ----------
    names : sequence of str
    one, many : str
        The reason, of a single image and of several; the same if `many` is empty.
    """
    if len(names) == 1:
        return f'"{names[0]}" is left out: {one}.'
    return f"{len(names)} images are left out: {many or one} ({some(names)})."
