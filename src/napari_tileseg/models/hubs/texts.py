"""Texts of an index, which anybody may have written, made fit for an `Entry`."""

from __future__ import annotations

from typing import Any

__all__ = ["dimensions_of", "line", "names", "task_of"]

_MOST_TAGS = 50
_LONGEST_TAG = 60


def line(value: Any, *, most: int = 500) -> str:
    """Return a text on one line without control characters, cut to `most`; empty where it is none."""
    if not isinstance(value, str):
        return ""
    words = "".join(letter if letter.isprintable() else " " for letter in value[: 2 * most]).split()
    text = " ".join(words)
    return text if len(text) <= most else text[: most - 3].rstrip() + "..."


def names(value: Any) -> tuple[str, ...]:
    """Return a list of short texts, such as tags; what is none is left out."""
    if not isinstance(value, list | tuple):
        return ()
    found = [text for item in value[:_MOST_TAGS] if (text := line(item, most=_LONGEST_TAG))]
    return tuple(dict.fromkeys(found))


def task_of(tags: tuple[str, ...]) -> str:
    """Return what a model's tags say that it finds: ``"instances"``, ``"semantic"``, or empty."""
    known = {tag.lower().replace("_", "-").replace(" ", "-") for tag in tags}
    if "instance-segmentation" in known:
        return "instances"
    return "semantic" if "semantic-segmentation" in known else ""


def dimensions_of(tags: tuple[str, ...]) -> str:
    """Return ``"2D"`` or ``"3D"`` where a model's tags say one of them and not the other."""
    known = {tag.upper() for tag in tags} & {"2D", "3D"}
    return known.pop() if len(known) == 1 else ""
