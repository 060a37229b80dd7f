"""``LayerRows``: what is learnt from, of the layers that are open, a row each; a button adds a row, another one takes it away."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from napari.layers import Image
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_tileseg.widgets.parts import Combo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer

__all__ = ["OURS", "ImagesField", "LayerRows", "same", "within"]

OURS = "tileseg_training"
"""Key in the metadata of layers that a training has made: they are no examples."""

Choice = tuple["Layer", ...]


class LayerRows(QWidget):
    """A row for each choice; what can be chosen follows the layers that are open.

    Signals
    -------
    changed
        Something else is chosen.
    """

    changed = Signal()
    noun = "layer"
    tip = ""
    missing = ""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        # Else the column is as wide as hidden rows of it are, which is nothing.
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self._possible: list[Choice] = []
        self._touched = False
        self.rows: list[tuple[Combo, QPushButton]] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self.nothing = QLabel("none")
        self.nothing.setToolTip(self.missing)
        self.add_button = QPushButton("+")
        self.add_button.setObjectName("browse")
        self.add_button.setAccessibleName(f"Add {self.noun}")
        self.add_button.setToolTip(f"Add {self.noun}")
        self.add_button.clicked.connect(self.add)
        self._layout.addWidget(self.nothing)
        self._layout.addWidget(self.add_button, 0, Qt.AlignmentFlag.AlignRight)

    @abstractmethod
    def possible(self, layers: Sequence[Layer]) -> Sequence[Choice]:
        """Return all that can be chosen."""

    @abstractmethod
    def natural(self, layers: Sequence[Layer]) -> Sequence[Choice]:
        """Return what is chosen while nobody says otherwise."""

    @abstractmethod
    def told(self, choice: Choice) -> str:
        """Put a choice into words."""

    def chosen(self) -> list[Choice]:
        """Return what the rows hold, each choice once."""
        found: list[Choice] = []
        for combo, _ in self.rows:
            if combo.value is not None and not within(combo.value, found):
                found.append(combo.value)
        return found

    def follow(self, layers: Sequence[Layer]) -> None:
        """Offer what is open now; rows that the user has not touched follow."""
        self._possible = list(self.possible(layers))
        kept = [choice for choice in self.chosen() if within(choice, self._possible)]
        self._fill(kept if self._touched and kept else self.natural(layers))

    def add(self) -> None:
        """Add a choice that is in no row yet."""
        self._touched = True
        chosen = self.chosen()
        other = next((choice for choice in self._possible if not within(choice, chosen)), None)
        if other is not None:
            self._fill([*chosen, other])
            self.changed.emit()

    def _remove(self, combo: Combo) -> None:
        self._touched = True
        self._fill([row.value for row, _ in self.rows if row is not combo])
        self.changed.emit()

    def _fill(self, choices: Sequence[Choice]) -> None:
        while len(self.rows) > len(choices):
            combo, _ = self.rows.pop()
            row = combo.parentWidget()
            if row is not None:
                self._layout.removeWidget(row)
                row.hide()
                row.deleteLater()
        while len(self.rows) < len(choices):
            self._add_row()
        entries = [(self.told(choice), choice) for choice in self._possible]
        for (combo, _), choice in zip(self.rows, choices, strict=True):
            combo.fill(entries, next(value for _, value in entries if same(value, choice)))
        self.nothing.setVisible(not choices)
        self.add_button.setVisible(len(self._possible) > len(choices))
        self.updateGeometry()

    def _add_row(self) -> None:
        row = QWidget(self)
        row.setObjectName("plain")
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        name = f"{self.noun.rpartition(' ')[2]} {len(self.rows) + 1}"
        combo = Combo(name.capitalize(), self.tip)
        remove = QPushButton("-")
        remove.setObjectName("browse")
        remove.setAccessibleName(f"Leave {name} out")
        remove.setToolTip(f"Leave this {self.noun.rpartition(' ')[2]} out")
        remove.setSizePolicy(QSizePolicy.Policy.Fixed, QSizePolicy.Policy.Fixed)
        combo.currentIndexChanged.connect(self._on_row)
        remove.clicked.connect(lambda: self._remove(combo))
        layout.addWidget(combo, 1)
        layout.addWidget(remove)
        self._layout.insertWidget(len(self.rows), row)
        self.rows.append((combo, remove))

    def _on_row(self) -> None:
        self._touched = True
        self.changed.emit()


class ImagesField(LayerRows):
    """Images that are learnt from without labels; what a run or a training has made is not taken by itself."""

    noun = "an image"
    tip = "It shows only what is normal, or what more is to be made of."
    missing = "Open images."

    def possible(self, layers: Sequence[Layer]) -> list[Choice]:
        """Return every image that was not made here, those that lie on top first."""
        made = (OURS, "tileseg")
        return [(layer,) for layer in reversed(list(layers)) if isinstance(layer, Image) and not any(key in layer.metadata for key in made)]

    def natural(self, layers: Sequence[Layer]) -> list[Choice]:
        """Return all of them."""
        return self.possible(layers)

    def told(self, choice: Choice) -> str:
        return str(choice[0].name)


def same(one: Choice, other: Choice) -> bool:
    """Tell whether two choices are of the same layers: layers are equal only to themselves."""
    return len(one) == len(other) and all(first is second for first, second in zip(one, other, strict=True))


def within(choice: Choice, choices: Sequence[Choice]) -> bool:
    """Tell whether a choice is among others."""
    return any(same(choice, other) for other in choices)
