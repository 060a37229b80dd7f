"""What the Models dock shows, as pure functions of the selected model and of what goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_tileseg.models.archive import printable
from napari_tileseg.widgets.models.asking import ASKED, question_for
from napari_tileseg.widgets.models.rows import size_words
from napari_tileseg.widgets.states import Action, Bar, Message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_tileseg.widgets.models.rows import Row

__all__ = ["Refusal", "View", "Work", "ending", "press", "refused", "seconds_words", "view"]

Press = Literal["use", "download", "trust", "import", "cancel", "nothing"]
Kind = Literal[
    "",
    "looking",
    "importing",
    "checking",
    "downloading",
    "exporting",
    "finding",
    "removing",
    "revoking",
    "answering",
    "drawing",
    "embedding",
]

_SLOW: tuple[Kind, ...] = ("removing", "revoking")
"""What is over at once and cannot be cancelled half-way."""


@dataclass(frozen=True)
class Work:
    """What goes on; nothing if `kind` is empty.

    Parameters
    ----------
    kind : str
    ref : str
        The model, as the command line takes it.
    name : str
        What to call it.
    done : int
        Bytes that are downloaded.
    total : int or None
    cancelling : bool
    waiting : int
        Files that will be imported after this one.
    """

    kind: Kind = ""
    ref: str = ""
    name: str = ""
    done: int = 0
    total: int | None = None
    cancelling: bool = False
    waiting: int = 0

    @property
    def active(self) -> bool:
        return bool(self.kind)


@dataclass(frozen=True)
class Refusal:
    """A file that was not opened, because it could run code.

    Parameters
    ----------
    path : str
    what : str
        What would run: ``"line 7 says $__import__('os')"``.
    findings : tuple of str
        All that would run, where there is more than one.
    """

    path: str
    what: str
    findings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The file's name."""
        return printable(self.path.replace("\\", "/").rpartition("/")[2])

    @property
    def sentence(self) -> str:
        return f"{self.name} was not opened, because it can run any program: {printable(self.what, most=300)}."


@dataclass(frozen=True)
class View:
    """Everything around the table, ready to be shown."""

    button: str
    enabled: bool
    primary: bool
    row_links: tuple[Action, ...] = ()
    links: tuple[Action, ...] = ()
    bar: Bar | None = None


def press(row: Row | None, work: Work, *, asking: bool = False) -> Press:
    """Say what the primary button does now."""
    if work.active:
        return "nothing" if work.cancelling or work.kind in _SLOW else "cancel"
    if asking:
        return "import"
    if row is None or row.damaged:
        return "nothing"
    if row.trust == "needed":
        return "trust"
    return "use" if row.name else "download"


def view(row: Row | None, work: Work, *, asking: bool = False, here: bool = False) -> View:
    """Put the state into words.

    Parameters
    ----------
    row : Row or None
        The selected model.
    work : Work
    asking : bool
        Whether the dock asks what a model does not say.
    here : bool
        Whether that model is here already.
    """
    deed = press(row, work, asking=asking)
    words = {"use": "Use in Segment", "trust": "Trust...", "cancel": "Cancel", "nothing": "Use in Segment"}
    words["import"] = "Remember" if here else "Import"
    size = f" ({size_words(row.size)})" if row is not None and row.size is not None else ""
    words["download"] = f"Download{size}"
    if work.active and deed == "nothing":
        words["nothing"] = "Cancelling..." if work.cancelling else "Cancel"
    row_links, links = _links(row, work, asking=asking, here=here)
    return View(words[deed], deed != "nothing", deed not in ("cancel", "nothing"), row_links, links, _bar(work))


def _links(row: Row | None, work: Work, *, asking: bool, here: bool) -> tuple[tuple[Action, ...], tuple[Action, ...]]:
    if asking:
        return (), (Action.LATER if here else Action.BACK,) if not work.active else ()
    if row is None:
        return (), (Action.IMPORT,)
    if row.entry is not None:
        return (Action.TRY,) * bool(row.name and not work.active), (Action.IMPORT, Action.REFRESH)
    if work.active:
        return (Action.CARD,), (Action.IMPORT,)
    usable = not row.damaged and row.trust != "needed"
    own: tuple[Action, ...] = (Action.TRY, Action.CARD) if usable else (Action.CARD,)
    own += (Action.DRAW,) * (usable and row.draws) + (Action.CODES,) * (usable and row.encodes)
    own += (Action.SAY,) if question_for(row.ref, row.title, row.facts) else ()
    own += (Action.REVOKE,) if row.trust == "trusted" else ()
    deeds = () if row.damaged else (Action.VERIFY, Action.GIVE_ON)
    return own, (Action.IMPORT, *deeds, *((Action.DELETE,) if row.removable else ()))


def _bar(work: Work) -> Bar | None:
    later = f", {work.waiting} more to come" if work.waiting else ""
    match work.kind:
        case "":
            return None
        case _ if work.cancelling:
            return Bar("Tidying up")
        case "downloading" if work.done:
            whole = f" of {work.total / 1e6:.0f}" if work.total else ""
            return Bar(f"Downloading {work.done / 1e6:.0f}{whole} MB", min(1.0, work.done / work.total) if work.total else None)
        case "downloading":
            return Bar(f"Asking for {work.name}")
    words = {
        "looking": f"Looking at {work.name}",
        "importing": f"Importing {work.name}",
        "checking": f"Checking {work.name}",
        "exporting": f"Writing {work.name}",
        "finding": f"Finding out what {work.name} would run",
        "removing": f"Removing {work.name}",
        "revoking": f"Taking trust back from {work.name}",
        "answering": f"Trying {work.name} with what was said",
        "drawing": f"Drawing images from {work.name}",
        "embedding": f"Finding the codes of {work.name}",
    }
    return Bar(words[work.kind] + later)


def refused(event: Mapping[str, Any] | None) -> Refusal | None:
    """Return which file waits for trust, if that is what an error tells."""
    if event is None or event.get("error") != "TrustError" or not event.get("path"):
        return None
    findings = event.get("findings") or ()
    return Refusal(str(event["path"]), str(event.get("what", "")), tuple(str(item) for item in findings))


def ending(work: Work, answer: Mapping[str, Any]) -> Message:
    """Say how something ended well.

    Parameters
    ----------
    work : Work
    answer : mapping
        What the command printed last.
    """
    name = printable(str(answer.get("name") or work.name))
    match work.kind:
        case "importing" | "downloading":
            tests, reason = _tests(answer.get("tests") or ()), answer.get("not_tested")
            assumed = answer.get("unknown") or ()
            notes = [tests] if tests else []
            notes += [f"Assumed: {', '.join(str(item) for item in assumed)}."] if assumed else []
            trust = bool(reason) and "Trust it only" in str(reason)
            notes += ["It needs trust before it can run."] if trust else [str(reason)] if reason else []
            links = (Action.SAY,) if set(ASKED) & set(assumed) else ()
            return Message("warning" if trust or "failed" in tests else "done", " ".join([f"{name} is here now.", *notes]), links)
        case "answering":
            left = answer.get("unknown") or ()
            still = f" Still not said: {', '.join(str(item) for item in left)}." if left else ""
            return Message("done", f"What was said of {name} is remembered.{still}")
        case "checking" | "finding":
            loaded, tile = seconds_words(answer.get("seconds_to_load")), seconds_words(answer.get("seconds_for_tile"))
            tests = _tests(answer.get("tests") or ())
            text = f"{name} works: its files are whole; on the processor it loads in {loaded}, and one tile takes {tile}."
            return Message("warning" if "failed" in tests else "done", f"{text} {tests}".strip())
        case "exporting":
            return Message("done", f"{work.name} is written.")
        case "removing":
            return Message("done", f"{name} is removed.")
        case "revoking":
            return Message("done", f"{work.name} is not trusted any more.")
    return Message("done", f"{name} is ready.")


def seconds_words(seconds: Any) -> str:
    """Write a time: ``"0.3 s"``, ``"12 s"``."""
    value = float(seconds) if isinstance(seconds, int | float) else 0.0
    if value < 0.05:
        return "less than 0.1 s"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def _tests(tests: Sequence[Mapping[str, Any]]) -> str:
    """Say how the tests came out that a model brings along."""
    wrong = [test for test in tests if not test.get("passed")]
    if not tests:
        return ""
    if not wrong:
        return f"Its {len(tests)} tests passed." if len(tests) > 1 else "Its test passed."
    name, share = printable(str(wrong[0].get("name", ""))), float(wrong[0].get("share", 1.0))
    return f"{len(wrong)} of its {len(tests)} tests failed: in {name}, {share:.2%} of the values differ."
