"""The card of the selected model: what it takes, what it returns, where it comes from; plain text, whoever wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_tileseg.models.archive import printable
from napari_tileseg.units import unit_symbol
from napari_tileseg.widgets.models.rows import size_words
from napari_tileseg.widgets.models.states import seconds_words
from napari_tileseg.widgets.parts import Links, Note
from napari_tileseg.widgets.parts.fields import Wrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_tileseg.widgets.models.rows import Row
    from napari_tileseg.widgets.states import Action

__all__ = ["Card", "card_rows", "facts_words", "normalization_words"]

_ASSUMED = "(not said, assumed)"
_MOST_CLASSES = 12
_LONGEST = 160


def card_rows(row: Row, facts: Iterable[Any] = ()) -> list[tuple[str, str]]:
    """Return what a card says, as titles and texts; what its source does not say is marked.

    Parameters
    ----------
    row : Row
    facts : iterable of Facts
        What was measured on this computer.
    """
    if row.entry is not None:
        return _hub_rows(row)
    card = row.facts
    unknown = set(card.get("unknown") or ())

    def marked(text: str, *fields: str) -> str:
        return f"{text} {_ASSUMED}" if text and unknown & set(fields) else text

    names = [str(name) for name in card.get("channels", ())]
    generic = names == [f"channel {index + 1}" for index in range(len(names))] or len(names) == 1
    inputs = f"{row.dimensions}, {len(names)} channel{'s' * (len(names) != 1)}" + ("" if generic else f": {_list(names)}")
    inputs += " (grey repeated)" if card.get("grey") == "repeat" else ""
    window = " x ".join(str(side) for side in card.get("window", ()))
    spacing = card.get("spacing")
    pixel = " x ".join(f"{side:g}" for side in spacing) if spacing else ""
    pixel = f"{pixel} {unit_symbol(str(card.get('spacing_unit', '')))}" if pixel else "any"
    kind = str(card.get("kind", ""))
    where = f"{row.source}{f', {kind}' if kind not in ('', 'TileSeg', row.source) else ''}, {size_words(row.size)}".rstrip(", ")
    trust = {"needed": "needed: it can run any program", "trusted": "trusted by you"}.get(row.trust, "not needed")
    return [
        ("Takes", marked(inputs, "axes", "channels")),
        ("Values", marked(normalization_words(card.get("normalization") or {}), "normalization")),
        ("Pixel", marked(pixel, "spacing")),
        ("Finds", marked(f"{row.task}: {_list(row.classes)}", "classes", "output")),
        ("Window", marked(window, "window", "arguments")),
        ("Licence", marked(row.licence or "not named", "licence") if row.licence else "not said"),
        ("Source", where),
        ("Trust", trust),
        *((("Speed", words),) if (words := facts_words(facts)) else ()),
        ("SHA-256", f"{str(card.get('weights_sha256', ''))[:16]}..." if card.get("weights_sha256") else ""),
        ("Cite", printable(" ".join(str(card.get("citation", "")).split()), most=_LONGEST)),
    ]


def _hub_rows(row: Row) -> list[tuple[str, str]]:
    entry = row.entry
    sums = [f"{name} {text[:16]}..." for name, text in (("SHA-256", entry.sha256), ("SHA-1", getattr(entry, "sha1", ""))) if text]
    return [
        ("Finds", row.task),
        ("Takes", row.dimensions),
        ("Version", printable(str(entry.version))),
        ("Size", size_words(row.size) or "not said"),
        ("Licence", row.licence or "not said"),
        ("Source", printable(str(entry.url), most=200)),
        ("Checked", sums[0] if sums else "by its length only: no checksum is said"),
        ("Tags", printable(", ".join(str(tag) for tag in entry.tags), most=_LONGEST)),
    ]


def facts_words(facts: Iterable[Any]) -> str:
    """Say what was measured: ``"cuda:0: loads in 0.3 s, first tile 0.1 s, 0.4 GB"``, a device after the other."""
    told = []
    for item in facts:
        parts = [f"loads in {seconds_words(item.load_seconds)}"] if item.load_seconds is not None else []
        parts += [f"first tile {seconds_words(item.tile_seconds)}"] if item.tile_seconds is not None else []
        parts += [f"{item.memory / 1e9:.1f} GB"] if item.memory else []
        told += [f"{item.device}: {', '.join(parts)}"] if parts else []
    return "; ".join(told)


def normalization_words(rule: Mapping[str, Any]) -> str:
    """Say how intensities are scaled."""
    match rule.get("kind", "none"):
        case "none":
            return "as they are"
        case "percentile":
            return f"percentiles {rule.get('lower', 0):g} to {rule.get('upper', 100):g} become 0 to 1"
        case "zscore":
            return "mean 0, standard deviation 1"
        case "range":
            return f"{rule.get('low', 0):g} to {rule.get('high', 1):g} become 0 to 1"
        case "minmax":
            return "least to greatest become 0 to 1"
        case "steps":
            return "in steps of its own"
    return "each channel by a rule of its own"


def _list(names: Sequence[str]) -> str:
    shown = [printable(str(name)) for name in names[:_MOST_CLASSES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


class Card(QWidget):
    """Name, a sentence, what is known; and `links`, which stand below it where they do not scroll away.

    Signals
    -------
    chosen
        A link.
    """

    chosen = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self.setAccessibleName("Card")
        self.title = Wrapped()
        self.title.setObjectName("title")
        self.title.setAccessibleName("Model")
        self.about = Note()
        self.about.setAccessibleName("About the model")
        self.links = Links()
        self.links.chosen.connect(self.chosen)
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(6)
        self._grid.setVerticalSpacing(1)
        self._grid.setColumnStretch(1, 1)
        self._lines: list[tuple[QLabel, Note]] = []
        self.said: list[tuple[str, str]] = []
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.title)
        layout.addWidget(self.about)
        layout.addLayout(self._grid)

    def say(self, title: str, about: str, rows: Sequence[tuple[str, str]]) -> None:
        """Show another model; rows without text are left out."""
        self.title.setText(title)
        self.about.setText(about)
        self.about.setVisible(bool(about))
        self.said = [(name, text) for name, text in rows if text]
        while len(self._lines) < len(self.said):
            name, text = QLabel(), Note()
            name.setObjectName("small")
            place = len(self._lines)
            self._grid.addWidget(name, place, 0, Qt.AlignmentFlag.AlignTop)
            self._grid.addWidget(text, place, 1)
            self._lines.append((name, text))
        for number, (name, text) in enumerate(self._lines):
            there = number < len(self.said)
            name.setVisible(there)
            text.setVisible(there)
            if there:
                word, words = self.said[number]
                name.setText(word)
                text.setText(words)
                text.setAccessibleName(word)
                text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.updateGeometry()

    def show_links(self, actions: tuple[Action, ...]) -> None:
        """Offer these deeds."""
        self.links.show_links(actions)
