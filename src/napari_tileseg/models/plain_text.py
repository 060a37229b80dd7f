"""Text of unknown origin, made fit to be shown: no control characters, and nothing that Markdown or HTML takes for markup."""

from __future__ import annotations

__all__ = ["plain"]

_LONGEST = 2000


def plain(text: str) -> str:
    """Return text in one line."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text[:_LONGEST]).split())
    for mark, written in {"&": "&amp;", "<": "&lt;", ">": "&gt;", "[": "\\[", "`": "'", "!": "\\!"}.items():
        words = words.replace(mark, written)
    return words
