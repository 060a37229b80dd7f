"""Names and colours of labels: of classes those that were given, of objects a number and a colour of its own."""

from __future__ import annotations

from dataclasses import dataclass

from napari_tileseg.io.overlay import rgb
from napari_tileseg.io.segments import hue

__all__ = ["Look", "Looks"]


@dataclass(frozen=True)
class Look:
    """What one label is called and how it is shown.

    Parameters
    ----------
    name : str
        Of the label itself.
    kind : str
        Of its class; the same where labels are classes.
    color : tuple of int
        Red, green and blue of the class, 0 to 255.
    own : tuple of int
        Red, green and blue of the label itself.
    """

    name: str
    kind: str
    color: tuple[int, int, int]
    own: tuple[int, int, int]


@dataclass(frozen=True)
class Looks:
    """Whether labels are classes or objects, and the look of each.

    Labels that are more than the classes are objects, all of the last class.

    Parameters
    ----------
    classes, colors : tuple of str
        As they are given to a writer: the background first, and ``#rrggbb`` of each but that. Of masks (`overlapping`) the
        background may be missing.
    highest : int
        The largest label.
    overlapping : int
        How many masks there are along an axis C; 0 without one.
    """

    classes: tuple[str, ...]
    colors: tuple[str, ...]
    highest: int
    overlapping: int = 0

    @property
    def objects(self) -> bool:
        """Whether each label is an object."""
        return not self.overlapping and self.highest >= max(len(self.classes), 2)

    def of(self, label: int, layer: int = 0) -> Look:
        """Return the look of a label, or of the mask at a place along C."""
        if self.overlapping:
            names = self.classes if len(self.classes) == self.overlapping else self.classes[1:]
            return self._class(layer, names, f"class {layer + 1}")
        if not self.objects:
            return self._class(label - 1, self.classes[1:], f"label {label}")
        kind = self._class(max(len(self.classes) - 2, 0), self.classes[1:], "object")
        return Look(f"{kind.kind} {label}", kind.kind, kind.color, rgb(hue(label)))

    def _class(self, index: int, names: tuple[str, ...], other: str) -> Look:
        name = names[index] if 0 <= index < len(names) else other
        color = rgb(self.colors[index] if 0 <= index < len(self.colors) else hue(index + 1))
        return Look(name, name, color, color)
