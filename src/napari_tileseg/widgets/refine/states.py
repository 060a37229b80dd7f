"""What the Refine dock shows, as a pure function of what it works on and how that stands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_tileseg.widgets.refine.tools import tool_of
from napari_tileseg.widgets.states import Action, Bar, Message, duration

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Refine", "View", "counted", "edits", "recovered_words", "view"]


@dataclass(frozen=True)
class Refine:
    """How the work on the chosen labels stands.

    Parameters
    ----------
    labels : str or None
        Name of the layer; None when there is none.
    locked : str
        Why it cannot be corrected now; empty if it can.
    large : bool
        It has several scales: a region of it can be edited at a time.
    only_read : bool
        It can only be read: a copy can be corrected.
    window : bool
        It is such a region.
    tool : str
        Name of the tool that is held; empty for none.
    picked : str
        What was clicked with it so far: ``"Object 12 is picked."``
    busy : str
        What goes on in another thread: ``"Smoothing"``; empty for nothing.
    edits : int
        Steps that were made and not undone.
    kept : float or None
        Seconds since the newest step was put on the disk; None while one is not there yet.
    keeps : bool
        Whether steps are put on the disk by themselves; labels on the disk are changed there at once.
    recovered, recovered_marks : int
        Steps found from a program that ended by force, and of how many objects something was said there.
    told : Message or None
        What came of the last deed.
    """

    labels: str | None = None
    locked: str = ""
    large: bool = False
    only_read: bool = False
    window: bool = False
    tool: str = ""
    picked: str = ""
    busy: str = ""
    edits: int = 0
    kept: float | None = None
    keeps: bool = True
    recovered: int = 0
    recovered_marks: int = 0
    told: Message | None = None


@dataclass(frozen=True)
class View:
    """What stands below the fields, ready to be shown."""

    tools: bool
    message: Message | None
    note: str
    bar: Bar | None
    button: str
    pressable: bool
    tool: str


def view(state: Refine) -> View:
    """Put the state into words."""
    working = state.labels is not None and not state.locked and not state.large
    return View(
        tools=working and not state.busy,
        message=_message(state),
        note=_note(state),
        bar=Bar(state.busy) if state.busy else None,
        button="Cancel" if state.busy else "Save...",
        pressable=bool(state.labels is not None or state.busy),
        tool=state.tool if working else "",
    )


def edits(count: int) -> str:
    """Return ``"1 edit"``, ``"12 edits"``."""
    return f"{count} edit{'s' * (count != 1)}"


def recovered_words(count: int, marks: int) -> str:
    """Say what was recovered: ``"2 edits and 5 marks were recovered."``."""
    parts = [edits(count)] * (count > 0) + [f"{marks} mark{'s' * (marks != 1)}"] * (marks > 0)
    return f"{' and '.join(parts)} {'was' if count + marks == 1 else 'were'} recovered."


ONLY_READ = "These labels can only be read."
"""Said of labels that a copy can be made of."""


def counted(counts: Mapping[str, int], tool: str, by: int) -> dict[str, int]:
    """Return how often each tool was used, after one more or one less; what was not used is not named."""
    changed = {**counts, tool: counts.get(tool, 0) + by}
    return {name: count for name, count in sorted(changed.items()) if count > 0}


def _message(state: Refine) -> Message | None:
    if (state.recovered or state.recovered_marks) and state.told is None and not state.tool:
        more = (Action.WORK_COPY,) * state.only_read or (Action.EDIT,) * state.large  # what these labels allow besides
        return Message("warning", recovered_words(state.recovered, state.recovered_marks), (Action.KEEP, Action.DISCARD, *more))
    if state.labels is None:
        return state.told or Message("info", "No labels layer.", (Action.SEGMENT,))
    if state.only_read:
        return state.told or Message("info", ONLY_READ, (Action.WORK_COPY,))
    if state.locked:
        return Message("info", state.locked)
    if state.large:
        return state.told or Message("info", "These labels are too large to be changed at once.", (Action.EDIT,))
    if state.told is not None:
        more = (Action.PUT_BACK,) if state.window and Action.PUT_BACK not in state.told.links else ()
        return replace(state.told, links=(*state.told.links, *more))
    tool = tool_of(state.tool)
    if tool is not None:
        return Message("info", f"{tool.label}: {state.picked}" if state.picked else tool.sentence)
    if state.window:
        return Message("info", "A region of larger labels. What you change goes back into them.", (Action.PUT_BACK,))
    return None


def _note(state: Refine) -> str:
    if state.labels is None or state.large or not state.edits:
        return ""
    words = edits(state.edits)
    if not state.keeps:
        return f"{words}, in the file."
    return f"{words}, kept {_ago(state.kept)} ago." if state.kept is not None else f"{words}, not kept yet."


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else duration(seconds)
