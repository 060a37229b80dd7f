"""``next_side``: lengths of the sides of tiles that a network takes, a multiple of a number plus a remainder."""

from __future__ import annotations

__all__ = ["next_side", "previous_side"]


def next_side(size: int, multiple: int, remainder: int = 0) -> int:
    """Return the shortest length from `size` on that is ``multiple * k + remainder`` and positive.

    Parameters
    ----------
    size : int
    multiple : int
        At least 1.
    remainder : int
        From 0 to below `multiple`.
    """
    return max(-(-(size - remainder) // multiple) * multiple + remainder, remainder or multiple)


def previous_side(size: int, multiple: int, remainder: int = 0) -> int:
    """Return the longest length up to `size` that is ``multiple * k + remainder``; the shortest of all where there is none."""
    return max((size - remainder) // multiple * multiple + remainder, remainder or multiple)
