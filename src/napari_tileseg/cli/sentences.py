"""What a person reads of a batch: a line for each image, and one at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_tileseg.batch.events import TaskEnded
    from napari_tileseg.batch.run import Report

__all__ = ["brief", "ending", "found", "left", "outcome", "printable"]


def printable(text: str) -> str:
    r"""Write a name on one line: what would move the cursor or cannot be encoded is escaped (``\n``, ``\x1b``, ``\udcff``)."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def brief(seconds: float) -> str:
    """Say how long, shortly: ``"2.9 s"``, ``"48 s"``, ``"5 min"``, ``"3.1 h"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def found(event: TaskEnded) -> str:
    """Say what is in an image: ``"86 objects"``, or ``"anterior 2352, posterior 1963"``."""
    if event.instances:
        count = sum(event.counts.values())
        return f"{count} object{'s' * (count != 1)}"
    return ", ".join(f"{name} {count}" for name, count in event.counts.items())


def outcome(event: TaskEnded) -> str:
    """Say how one image ended: ``"A01_s1.tif: 86 objects, 2.9 s"``, ``"A01_s3.tif failed: ..."``; warnings stand in brackets."""
    name = printable(event.name)
    message = printable(" ".join(event.message.splitlines()))
    if event.state != "done":
        return f"{name} {event.state}: {message}" if message else f"{name} {event.state}"
    return f"{name}: {', '.join(part for part in (found(event), brief(event.seconds)) if part)}" + (f" ({message})" if message else "")


def ending(end: Report) -> str:
    """Sum up: ``"94 done (37 of them before), 1 skipped, 1 failed in 5 min."``."""
    parts = [f"{end.done} done" + (f" ({end.before} of them before)" if end.before else "")]
    states = (("skipped", end.skipped), ("failed", end.failed), ("waiting", end.waiting))
    parts += [f"{count} {state}" for state, count in states if count]
    return f"{', '.join(parts)} in {brief(end.seconds)}."


def left(seconds: float | None) -> str:
    """Say how long it will go on, as the end of a line: ``", 5 min left"``; nothing while nobody knows."""
    return "" if seconds is None else f", {brief(seconds)} left"
