"""``PairsField``: which image goes with which labels, of those that are open; and these as files for the model's process."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_tileseg.errors import AxesError, InputError
from napari_tileseg.io.registry import write_image
from napari_tileseg.volume import Volume
from napari_tileseg.widgets.layers import array_of, facts_of, volume_from_layer
from napari_tileseg.widgets.parts import Combo
from napari_tileseg.worker.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari.layers import Layer

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["OURS", "Example", "LayerFiles", "PairsField", "examples_of", "natural_pairs", "possible_pairs"]

OURS = "tileseg_training"
"""Key in the metadata of layers that a training has made: they are no examples."""

Pair = tuple[Image, Labels]


def possible_pairs(layers: Sequence[Layer]) -> list[Pair]:
    """Return every image with every labels layer of its shape, those that lie on top first."""
    images = [layer for layer in reversed(list(layers)) if isinstance(layer, Image) and OURS not in layer.metadata]
    labels = [layer for layer in reversed(list(layers)) if isinstance(layer, Labels) and OURS not in layer.metadata]
    return [(image, truth) for truth in labels for image in images if _fit(image, truth)]


def natural_pairs(layers: Sequence[Layer]) -> list[Pair]:
    """Return each labels layer with its image: the one whose name it begins with, else the next one below it."""
    found: dict[int, Pair] = {}
    listed = list(layers)
    for image, truth in possible_pairs(layers):
        before = found.get(id(truth))
        if before is None or _closeness(image, truth, listed) > _closeness(before[0], truth, listed):
            found[id(truth)] = (image, truth)
    taken: set[int] = set()
    pairs = []
    for image, truth in found.values():
        if id(image) not in taken:  # of several labels of one image the topmost counts
            taken.add(id(image))
            pairs.append((image, truth))
    return pairs


def _closeness(image: Layer, truth: Layer, layers: list[Layer]) -> tuple[bool, int, int]:
    distance = layers.index(truth) - layers.index(image)
    named = truth.name.startswith(image.name)
    return named, len(image.name) if named else 0, -distance if distance > 0 else -1000 + distance


def _fit(image: Image, truth: Labels) -> bool:
    shape, wanted = _shape(image), tuple(int(size) for size in array_of(truth).shape)
    if image.rgb:
        return shape[:-1] == wanted
    without = [shape[:axis] + shape[axis + 1 :] for axis in range(len(shape) - 2)]
    return wanted == shape or wanted in without


def _shape(image: Image) -> tuple[int, ...]:
    return tuple(int(size) for size in array_of(image).shape)


class PairsField(QWidget):
    """A row a pair, a button that adds another one, and one that takes a row away.

    Signals
    -------
    changed
        Other pairs are meant.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("plain")
        self._possible: list[Pair] = []
        self._touched = False
        self.rows: list[tuple[Combo, QPushButton]] = []
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setSpacing(4)
        self.nothing = QLabel("none")
        self.nothing.setToolTip("Open images, and Labels layers of their size.")
        self.add_button = QPushButton("+")
        self.add_button.setObjectName("browse")
        self.add_button.setAccessibleName("Add a pair")
        self.add_button.setToolTip("Add a pair")
        self.add_button.clicked.connect(self.add)
        self._layout.addWidget(self.nothing)
        self._layout.addWidget(self.add_button, 0, Qt.AlignmentFlag.AlignRight)

    def pairs(self) -> list[Pair]:
        """Return what the rows hold, each pair once."""
        found: list[Pair] = []
        for combo, _ in self.rows:
            pair = combo.value
            if pair is not None and all(pair[0] is not one or pair[1] is not other for one, other in found):
                found.append(pair)
        return found

    def follow(self, layers: Sequence[Layer]) -> None:
        """Offer what is open now; rows that the user has not touched follow."""
        self._possible = possible_pairs(layers)
        kept = [pair for pair in self.pairs() if _within(pair, self._possible)]
        self._fill(kept if self._touched and kept else natural_pairs(layers))

    def add(self) -> None:
        """Add a pair that is in no row yet."""
        self._touched = True
        pairs = self.pairs()
        other = next((pair for pair in self._possible if not _within(pair, pairs)), None)
        if other is not None:
            self._fill([*pairs, other])
            self.changed.emit()

    def _remove(self, combo: Combo) -> None:
        self._touched = True
        self._fill([row.value for row, _ in self.rows if row is not combo])
        self.changed.emit()

    def _fill(self, pairs: Sequence[Pair]) -> None:
        while len(self.rows) > len(pairs):
            combo, _ = self.rows.pop()
            row = combo.parentWidget()
            if row is not None:
                self._layout.removeWidget(row)
                row.hide()
                row.deleteLater()
        while len(self.rows) < len(pairs):
            self._add_row()
        entries = [(f"{image.name} + {_short(image.name, truth.name)}", (image, truth)) for image, truth in self._possible]
        for (combo, _), pair in zip(self.rows, pairs, strict=True):
            held = next(value for _, value in entries if value[0] is pair[0] and value[1] is pair[1])
            combo.fill(entries, held)
        self.nothing.setVisible(not pairs)
        self.add_button.setVisible(len(self._possible) > len(pairs))
        self.updateGeometry()

    def _add_row(self) -> None:
        row = QWidget(self)
        row.setObjectName("plain")
        layout = QHBoxLayout(row)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        combo = Combo(f"Pair {len(self.rows) + 1}", "An image and its labels.")
        remove = QPushButton("-")
        remove.setObjectName("browse")
        remove.setAccessibleName(f"Leave pair {len(self.rows) + 1} out")
        remove.setToolTip("Leave this pair out")
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


def _short(image: str, labels: str) -> str:
    rest = labels.removeprefix(image).strip(" _-")
    return rest or labels


def _within(pair: Pair, pairs: Sequence[Pair]) -> bool:
    return any(pair[0] is one and pair[1] is other for one, other in pairs)


@dataclass(frozen=True, eq=False)
class Example:
    """A pair, taken while nothing changes it.

    Parameters
    ----------
    name : str
        Of the image; no other example has it.
    image, truth : Volume
        The arrays of the layers, which are not copied.
    """

    name: str
    image: Volume
    truth: Volume


def examples_of(pairs: Sequence[Pair], spec: ModelSpec | None, axes: str = "") -> list[Example]:
    """Take what a training needs of layers; nothing is read.

    Parameters
    ----------
    pairs : sequence of (Image, Labels)
    spec : ModelSpec or None
        Settles the meaning of axes that napari does not name.
    axes : str
        Of every image, where the user has named them.

    Raises
    ------
    AxesError, InputError
        If nobody can know what an axis is, or a layer is empty.
    """
    found: list[Example] = []
    for image, truth in pairs:
        letters = axes.replace(" ", "").upper() or facts_of(image).guess(spec)
        if "?" in letters:
            raise AxesError(f'The axes of the layer "{image.name}" are not known. Name them under Labels, Axes, one letter per dimension.')
        volume = volume_from_layer(image, letters)
        place = volume.drop("C")
        array = array_of(truth)
        wanted = tuple(size for axis, size in zip(volume.axes, volume.shape, strict=True) if axis != "C")
        if tuple(array.shape) != wanted:
            raise InputError(f'"{truth.name}" has shape {_times(array.shape)}, "{image.name}" {_times(wanted)}. Choose labels of its size.')
        name = safe = "".join(letter if letter.isalnum() or letter in "-_ " else "_" for letter in image.name).strip() or "image"
        while any(example.name == name for example in found):
            name = f"{safe} {sum(example.name.startswith(safe) for example in found) + 1}"
        found.append(Example(name, volume, Volume(array, *place, truth.name)))
    return found


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


class LayerFiles:
    """Layers as files, each written again only when its pixels are others; they go with this object."""

    def __init__(self) -> None:
        self._scratch: Scratch | None = None
        self._known: dict[tuple[Any, ...], Path] = {}

    def save(self, examples: Sequence[Example]) -> tuple[tuple[Path, Path], ...]:
        """Write what is not there yet; not for Qt's thread.

        Raises
        ------
        OutputError, InputError, RunError
            If a layer cannot be read, or its file not be written.
        """
        if self._scratch is None:
            self._scratch = Scratch()
        return tuple(self._saved(example) for example in examples)

    def folder(self) -> Path:
        """Make a folder that goes with the files."""
        if self._scratch is None:
            self._scratch = Scratch()
        return self._scratch.folder("views")

    def close(self) -> None:
        """Delete everything."""
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None
            self._known.clear()

    def _saved(self, example: Example) -> tuple[Path, Path]:
        image, truth = example.image, example.truth
        pixels, numbers = np.asarray(image.data), np.asarray(truth.data)
        return (
            self._put(example.name, image, pixels, lambda: image.with_data(_plain(pixels))),
            self._put(f"{example.name}_labels", truth, numbers, lambda: truth.with_data(_compact(numbers))),
        )

    def _put(self, name: str, volume: Volume, array: Any, ready: Callable[[], Volume]) -> Path:
        assert self._scratch is not None  # `save` has made it
        key = (name, volume.axes, volume.affine.tobytes(), volume.units, *_sum(array))
        if key not in self._known:
            path = self._scratch.folder("layer") / f"{name}.ome.tif"
            write_image(ready(), path)
            self._known[key] = path
        return self._known[key]


def _sum(array: Any) -> tuple[str, tuple[int, ...], int]:
    return str(array.dtype), tuple(array.shape), zlib.crc32(np.ascontiguousarray(array).tobytes())


def _plain(array: Any) -> Any:
    """Return an array in numbers that every TIFF file can hold."""
    if array.dtype in (np.int64, np.uint64, np.float16):
        return array.astype(np.float32)
    return array


def _compact(labels: Any) -> Any:
    """Return labels in the smallest whole numbers that hold them: TIFF knows none of 64 bits."""
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (0, 0)
    return labels.astype(np.int32 if low < 0 else np.min_scalar_type(high) if high < 2**32 else np.float64)
