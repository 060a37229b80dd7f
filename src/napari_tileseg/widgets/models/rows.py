"""``Row``: one model in the table, be it on this computer or on a hub, and the words for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_tileseg.models.archive import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["COLUMNS", "Row", "cell", "glyph", "hub_row", "local_row", "matches", "size_words", "tip"]

COLUMNS = ("Model", "Task", "Source", "Dim.", "Trust", "Size", "Licence", "Classes")
"""Heads of the table; a narrow dock shows the first ones."""

_TASKS = {
    "instances": "objects",
    "labels": "objects",
    "softmax": "classes",
    "regions": "classes",
    "semantic": "classes",
    "sigmoid": "overlapping",
    "multi-label": "overlapping",
    "anomaly": "anomalies",
}

_ENCODERS = ("anomaly_autoencoder", "f_anogan", "paired_generator")
"""Networks that have codes."""


@dataclass(frozen=True)
class Row:
    """One model.

    Parameters
    ----------
    ref : str
        What the command line takes: a name, or ``hub:HUB/NAME``.
    title : str
        For people.
    task : str
        ``"objects"``, ``"classes"``, ``"overlapping"``, ``"anomalies"``, or empty if not known.
    source : str
        ``"built in"``, ``"own"``, or the kind it was imported from; on a hub whether it is here.
    dimensions : str
        ``"2D"``, ``"3D"``, or empty.
    classes : tuple of str
        Without the background.
    size : int or None
        Bytes.
    licence : str
    trust : {"not needed", "trusted", "needed"}
    removable : bool
        Whether it lies in the user's own folder.
    damaged : bool
        Its files are missing or cannot be read.
    facts : mapping
        The whole card of a model that is here; empty for one on a hub.
    entry : Entry or None
        What the hub says.
    here : str
        Name of the model on this computer that a hub's one has become.
    """

    ref: str
    title: str
    task: str = ""
    source: str = ""
    dimensions: str = ""
    classes: tuple[str, ...] = ()
    size: int | None = None
    licence: str = ""
    trust: str = "not needed"
    removable: bool = False
    damaged: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    entry: Any = field(default=None, compare=False)
    here: str = ""

    @property
    def local(self) -> bool:
        """Whether it is on this computer."""
        return self.entry is None

    @property
    def name(self) -> str:
        """The name that Segment knows it by; empty if it is not here."""
        return str(self.facts.get("name", "")) if self.local else self.here

    @property
    def encodes(self) -> bool:
        """Whether it has codes for tiles and objects."""
        return self.facts.get("architecture") in _ENCODERS

    @property
    def draws(self) -> bool:
        """Whether it makes images up."""
        arguments = self.facts.get("arguments") or {}
        return self.encodes and (self.facts.get("architecture") != "anomaly_autoencoder" or arguments.get("network") == "vae")


def local_row(event: Mapping[str, Any]) -> Row:
    """Make a row of what ``tileseg models list --json`` says of a model.

    Parameters
    ----------
    event : mapping
        Its card, and its kind, trust, size and place.
    """
    name = str(event["name"])
    classes = tuple(str(item) for item in event.get("classes", ()))
    kind, place = str(event.get("kind", "")), str(event.get("place", ""))
    source = {"built in": "built in"}.get(place) or (kind if kind != "TileSeg" else "own")
    return Row(
        name,
        printable(str(event.get("title") or name)),
        task_words(str(event.get("output", ""))),
        source,
        "2D" if len(str(event.get("axes", ""))) == 3 else "3D",
        classes if event.get("output") == "sigmoid" else classes[1:],
        int(event.get("size", 0)) or None,
        printable(str(event.get("licence", ""))),
        str(event.get("trust", "not needed")),
        removable=place == "own",
        damaged=kind == "damaged",
        facts=dict(event),
    )


def hub_row(entry: Any, here: Mapping[str, str] | None = None) -> Row:
    """Make a row of a hub's entry.

    Parameters
    ----------
    entry : Entry
    here : mapping of str to str, optional
        Names of models on this computer by the references that they were downloaded from.
    """
    known = (here or {}).get(entry.ref, "")
    return Row(
        entry.ref,
        printable(entry.title or entry.name),
        task_words(entry.task),
        "here" if known else "not here",
        entry.dimensions,
        (),
        entry.size,
        printable(entry.licence),
        entry=entry,
        here=known,
    )


def task_words(task: str) -> str:
    """Say what a model finds; a word that is not known is said as it is."""
    return _TASKS.get(task, task)


def cell(row: Row, column: str) -> str:
    """Return the words of one cell."""
    match column:
        case "Model":
            return row.title
        case "Task":
            return row.task
        case "Source":
            return "needs trust" if row.trust == "needed" else "damaged" if row.damaged else row.source
        case "Dim.":
            return row.dimensions
        case "Trust":
            return "" if row.trust == "not needed" else row.trust
        case "Size":
            return size_words(row.size)
        case "Licence":
            return row.licence
        case "Classes":
            return ", ".join(row.classes)
    raise KeyError(column)


def glyph(row: Row) -> str:
    """Return the name of napari's icon before a model: a warning where it needs trust or is damaged, a check on hubs if it is here."""
    if row.trust == "needed":
        return "warning"
    if row.damaged:
        return "error"
    return "check" if row.here or row.trust == "trusted" else ""


def size_words(size: int | None) -> str:
    """Write a size: ``"5.0 MB"``, ``"1.2 GB"``; nothing if it is not known."""
    if size is None:
        return ""
    if size < 10**6:
        return f"{max(1, round(size / 1e3))} kB"
    return f"{size / 1e6:.0f} MB" if 10**7 <= size < 10**9 else f"{size / 1e6:.1f} MB" if size < 10**9 else f"{size / 1e9:.1f} GB"


def tip(row: Row) -> str:
    """Return everything the cells say, for the tooltip."""
    parts = [f"{column}: {text}" for column in COLUMNS[1:] if (text := cell(row, column))]
    return "\n".join([row.title, *parts])


def matches(row: Row, search: str) -> bool:
    """Whether a model has all the words that are looked for, whatever their case."""
    entry = row.entry
    said: Iterable[str] = (
        row.ref,
        row.title,
        *(cell(row, column) for column in COLUMNS[1:]),
        str(row.facts.get("description", "")),
        *((entry.description, *entry.tags) if entry is not None else ()),
    )
    text = "\n".join(said).casefold()
    return all(word in text for word in search.casefold().split())
