"""``Course``: how a batch or a training stands, from waiting for its turn to its end, and what its dock shows of that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from napari_tileseg.widgets.states import Phase

if TYPE_CHECKING:
    from napari_tileseg.widgets.states import Bar, Message, Prospect

__all__ = ["Course", "Press", "View", "moved", "over", "press"]

Press = Literal["start", "cancel", "pause", "continue", "new", "nothing"]


@dataclass(frozen=True)
class Course:
    """How the latest of them stands.

    Parameters
    ----------
    phase : Phase
    title : str
        ``"raw → labels, Nuclei 2D"``.
    task : str
        What is done before the first file or step: ``"Saving layer 1 of 2"``.
    done, total : int
        Files or steps that are over, and all of them.
    seconds_left : float or None
    pausing : bool
        Somebody has asked for a pause.
    waiting : int
        Runs before this one.
    sentence, details : str
        What went wrong.
    """

    while_active: ClassVar[Press] = "cancel"
    """What the primary button does while it goes on."""

    phase: Phase = Phase.NONE
    title: str = ""
    task: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    pausing: bool = False
    waiting: int = 0
    sentence: str = ""
    details: str = ""

    @property
    def folded(self) -> bool:
        """Whether the form makes room for what comes of it."""
        return self.phase.active or self.phase.resumable or self.phase is Phase.DONE

    @property
    def share(self) -> float | None:
        """How much of it is done, from 0 to 1; None while that is not known."""
        return self.done / self.total if self.total else None


_Course = TypeVar("_Course", bound=Course)


@dataclass(frozen=True)
class View:
    """Everything around the form, ready to be shown; an empty `second` hides the second button."""

    button: str
    enabled: bool
    primary: bool
    second: str
    folded: bool
    setup: str
    box: str
    bar: Bar | None = None
    message: Message | None = None
    second_enabled: bool = True


def moved(course: _Course, phase: Phase, **values: Any) -> _Course:
    """Return the course one step further; one that is being cancelled keeps saying so."""
    kept = course.phase is Phase.CANCELLING
    return replace(course, phase=course.phase if kept else phase, **values)


def over(course: _Course, phase: Phase, **values: Any) -> _Course:
    """Return the course at its end: nothing is paused any more."""
    return replace(course, phase=phase, pausing=False, **values)


def press(prospect: Prospect, course: Course) -> Press:
    """Say what the primary button does now."""
    if course.phase is Phase.CANCELLING:
        return "nothing"
    if course.phase.active:
        return course.while_active
    if course.phase.resumable:
        return "continue"
    if course.folded:
        return "new"
    return "start" if prospect.ready else "nothing"
