"""What the source of a model does not say, asked once: a small form, and the words that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_tileseg.models.archive import printable
from napari_tileseg.models.nets import NETWORKS
from napari_tileseg.units import unit_symbol
from napari_tileseg.widgets.parts import Combo, Edit, Fields, MessageBox
from napari_tileseg.widgets.parts.fields import Wrapped
from napari_tileseg.widgets.states import Message

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ASKED", "NETWORK", "Asking", "Question", "answer_words", "question_for"]

ASKED = ("axes", "channels", "classes", "output", "window", "normalization", "spacing", "licence")
"""What is asked, in the order in which it is asked."""

NETWORK = ("architecture", "arguments", "classes", "normalization", "spacing")
"""What is asked of weights whose network is not recognised."""

_TITLES = {
    "axes": "Images",
    "channels": "Channels",
    "classes": "Classes",
    "output": "Scores",
    "window": "Window",
    "normalization": "Values",
    "spacing": "Pixel size",
    "licence": "Licence",
    "architecture": "Network",
    "arguments": "Arguments",
    "name": "Name",
    "address": "Address",
}

_TIPS = {
    "axes": "Whether one tile is a plane or a volume.",
    "channels": "Names of the input channels with commas between them, or their number.",
    "classes": "Names of the classes with commas between them, the background first.",
    "output": "Whether a pixel can have several classes.",
    "window": "Size of one tile in pixels.",
    "normalization": "How intensities are scaled before the network sees them.",
    "spacing": "Pixel size it was trained at, with its unit: 0.5, 0.5 µm. Empty: any.",
    "licence": "SPDX expression, such as CC-BY-4.0. Empty: not known.",
    "architecture": "Name of the network: monai.UNet, or one of this program's.",
    "arguments": 'Its arguments as JSON: {"spatial_dims": 2, "in_channels": 1, ...}.',
    "name": "Under which it is kept.",
    "address": "https://...: a model, or a zip with one in it.",
}

_SCALES = (
    ("as they are", "none"),
    ("mean 0, deviation 1", "zscore"),
    ("percentiles 1 to 99.8", "percentile:1,99.8"),
    ("0 to 255 become 0 to 1", "range:0,255"),
    ("0 to 65535 become 0 to 1", "range:0,65535"),
)


@dataclass(frozen=True)
class Question:
    """What is to be asked of a model, before it is imported or afterwards.

    Parameters
    ----------
    ref : str
        The model, as the command line takes it.
    name : str
        What to call it.
    fields : tuple of str
        What is asked: of `ASKED` or `NETWORK`, or ``"name"``, or ``"address"`` alone.
    assumed : mapping
        What its card assumes.
    problem : str
        Why the last answers cannot be used.
    here : bool
        Whether the model is here already.
    """

    ref: str
    name: str
    fields: tuple[str, ...]
    assumed: Mapping[str, Any] = field(default_factory=dict, compare=False)
    problem: str = ""
    here: bool = False


def question_for(ref: str, name: str, card: Mapping[str, Any], *, here: bool = False) -> Question | None:
    """Return what is to be asked of a model; None if its source says all."""
    unknown = set(card.get("unknown") or ())
    asked = tuple(item for item in ASKED if item in unknown)
    return Question(ref, name, asked, card, here=here) if asked else None


def answer_words(question: Question, answers: Mapping[str, str]) -> list[str]:
    """Return the words of the command line for what was answered; what was left empty stays unknown.

    Parameters
    ----------
    question : Question
    answers : mapping of str to str
        What each field holds.
    """
    words: list[str] = []
    other_axes = "axes" in answers and answers["axes"] != str(question.assumed.get("axes", ""))[1:]
    for name in question.fields:
        text = answers.get(name, "").strip()
        if name == "spacing":
            text = text.replace("μ", "µ").replace(" ", "")
        if name in ("channels", "classes"):
            text = ",".join(part.strip() for part in text.split(","))
        untouched = name == "window" and text == _window(question.assumed)
        if text and not (untouched and other_axes):  # planes and volumes do not share a window
            words += [f"--{name}", text]
    return words


def _window(card: Mapping[str, Any]) -> str:
    return ", ".join(str(side) for side in card.get("window", ()))


def _assumed(name: str, card: Mapping[str, Any]) -> str:
    """Return what a field starts with."""
    value = card.get(name)
    match name:
        case "axes":
            return str(value or "CYX")[1:]
        case "channels" | "classes":
            return ", ".join(printable(str(item)) for item in value or ())
        case "window":
            return _window(card)
        case "spacing":
            unit = unit_symbol(str(card.get("spacing_unit", "micrometer")))
            return f"{', '.join(f'{side:g}' for side in value)} {unit}" if value else ""
    return str(value or "") if isinstance(value, str) else ""


class Asking(QWidget):
    """The form that asks.

    Signals
    -------
    changed
        A field changed.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self.setAccessibleName("What the model does not say")
        self.text = Wrapped()
        self.problem = MessageBox("Problem with the answers")
        self.fields = Fields()
        self.inputs: dict[str, Combo | Edit] = {}
        self._rows = QVBoxLayout()
        self._rows.addWidget(self.fields)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.text)
        layout.addLayout(self._rows)
        layout.addWidget(self.problem)
        self._asked: Question | None = None

    def ask(self, question: Question) -> None:
        """Show the fields of a question, filled in with what is assumed; what was typed stays while only its problem is another."""
        same = self._asked is not None and (self._asked.ref, self._asked.fields) == (question.ref, question.fields)
        self._asked = question
        self.problem.show_message(Message("error", question.problem) if question.problem else None)
        if same:
            return
        name = printable(question.name)
        if "architecture" in question.fields:
            self.text.setText(f"The network of {name} was not recognised. Name it, or choose another file.")
        elif question.fields == ("name",):
            self.text.setText(f"{name} needs another name.")
        elif question.fields == ("address",):
            self.text.setText("Where is the model? It is downloaded, and nothing of it runs unless you trust it.")
        else:
            self.text.setText(f"{name} does not say this. What stands here is assumed: correct it, or leave it.")
        self._rows.removeWidget(self.fields)
        self.fields.deleteLater()
        self.fields = Fields()
        self.inputs = {}
        for item in question.fields:
            field = self._field(item, question.assumed)
            self.inputs[item] = field
            self.fields.add(_TITLES[item], field)
        self._rows.addWidget(self.fields)
        self.fields.align(self.fields.label_width)

    def answers(self) -> dict[str, str]:
        """Return what the fields hold."""
        return {name: str(field.value or "") if isinstance(field, Combo) else field.text() for name, field in self.inputs.items()}

    def forget(self) -> None:
        """Have the next question asked anew."""
        self._asked = None

    def _field(self, name: str, card: Mapping[str, Any]) -> Combo | Edit:
        title, tip, text = _TITLES[name], _TIPS[name], _assumed(name, card)
        if name in ("axes", "output", "normalization"):
            combo = Combo(title, tip)
            chosen = text
            if name == "axes":
                choices = [("planes: Y X", "YX"), ("volumes: Z Y X", "ZYX")]
            elif name == "output":
                choices = [("one class for each pixel", "softmax"), ("classes may overlap", "sigmoid")]
                choices += [(f"as assumed ({text})", "")] if text not in ("softmax", "sigmoid", "") else []
                chosen = text if text in ("softmax", "sigmoid") else ""
            else:
                choices, chosen = list(_SCALES), _scale(card.get("normalization") or {})
                choices += [] if chosen else [("as assumed", "")]
            combo.fill(choices, chosen)
            combo.currentIndexChanged.connect(self.changed)
            return combo
        edit = Edit(title, tip)
        edit.setText(text)
        hints = {"spacing": "any", "licence": "not known", "address": "https://", "architecture": f"monai.UNet, {next(iter(NETWORKS))}"}
        edit.setPlaceholderText(hints.get(name, ""))
        edit.textEdited.connect(self.changed)
        return edit


def _scale(rule: Mapping[str, Any]) -> str:
    """Return the entry of the field Values that means a rule; empty if none does."""
    match rule.get("kind", "none"):
        case "none" | "zscore" as kind:
            return str(kind)
        case "percentile" if (rule.get("lower"), rule.get("upper")) == (1.0, 99.8):
            return "percentile:1,99.8"
        case "range" if rule.get("low") == 0 and rule.get("high") in (255, 65535):
            return f"range:0,{rule['high']:g}"
    return ""
