"""``Making``: what a model makes besides labels, as layers: images that it makes up, and the space of its codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QDialog, QHBoxLayout, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_tileseg.errors import TileSegError
from napari_tileseg.io import read_volume
from napari_tileseg.training.unsupervised.embedding import read_embedding
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.embedding import show_embedding
from napari_tileseg.widgets.parts import Fields
from napari_tileseg.widgets.parts.fields import Wrapped, tame
from napari_tileseg.widgets.states import Message
from napari_tileseg.widgets.train.pairs import LayerFiles, examples_of, images_of, natural_pairs
from napari_tileseg.widgets.train.rows import OURS
from napari_tileseg.worker.scratch import Scratch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import napari

    from napari_tileseg.widgets.models.chore import Ended
    from napari_tileseg.widgets.models.rows import Row
    from napari_tileseg.widgets.models.session import ModelsSession

__all__ = ["DrawDialog", "Making", "read_drawn"]

_MOST = 10_000
_SEEDS = 2**31 - 1

_CAUTION = "They show nothing real: use them to train beside real images, never to test or validate."


class DrawDialog(QDialog):
    """How many images, and which: a window that is not modal.

    Signals
    -------
    asked
        Number and seed.
    """

    asked = Signal(int, int)

    def __init__(self, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle(f"Samples of {title}")
        self.setModal(False)
        self.count, self.seed = QSpinBox(), QSpinBox()
        for spin, name, tip, least, most, value in (
            (self.count, "Number", "How many images are made up.", 1, _MOST, 16),
            (self.seed, "Seed", "The same seed gives the same images; asking for more changes none of the first.", 0, _SEEDS, 0),
        ):
            spin.setRange(least, most)
            spin.setValue(value)
            spin.setToolTip(tip)
            tame(spin, name)
        fields = Fields()
        fields.add("Number", self.count)
        fields.add("Seed", self.seed)
        note = Wrapped()
        note.setText(_CAUTION)
        self.button = QPushButton("Draw")
        self.button.setDefault(True)
        self.button.clicked.connect(self._on_draw)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.button)
        layout = QVBoxLayout(self)
        layout.addWidget(fields)
        layout.addWidget(note)
        layout.addLayout(row)

    def _on_draw(self) -> None:
        self.asked.emit(self.count.value(), self.seed.value())
        self.close()


class Making(QObject):
    """Has samples drawn and codes found in a process of their own, and shows them.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    session : ModelsSession
    """

    def __init__(self, viewer: napari.viewer.Viewer, session: ModelsSession) -> None:
        super().__init__(session)
        self._viewer = viewer
        self._session = session
        self._scratch: Scratch | None = None
        self._files = LayerFiles()
        self._bridge = Bridge(self)
        session.segment.closing.connect(self.close)

    def ask_number(self, row: Row, parent: QWidget) -> DrawDialog:
        """Ask how many images a model is to make up, and have it done."""
        dialog = DrawDialog(row.title, parent)
        dialog.asked.connect(lambda count, seed: self.draw(row.ref, row.title, count, seed))
        dialog.show()
        return dialog

    def draw(self, ref: str, name: str, count: int, seed: int) -> None:
        """Have a model make images up, and show them as layers."""
        folder = self._folder("samples")
        words = ["generate", ref, "-n", str(count), "--seed", str(seed), "-o", str(folder / "made"), "--format", "tif", "--json"]

        def read(ended: Ended) -> None:
            paths = [str(event["path"]) for event in ended.events if event.get("event") == "sample"]
            self._bridge.background(lambda: read_drawn(folder / "made", paths), lambda answer: self._on_drawn(ref, seed, answer))

        self._session.perform("drawing", ref, words, read, name=name)

    def _on_drawn(self, ref: str, seed: int, answer: Any) -> None:
        if self._failed(answer):
            return
        images, masks = answer
        rgb = images.ndim == 4 and images.shape[-1] == 3
        marks = {"synthetic": True, "model": ref, "seed": seed, OURS: ref}
        stem = f"{ref}_synthetic_seed{seed}"
        self._viewer.add_layer(Image(images, name=stem, rgb=rgb, contrast_limits=(0, 1), metadata=marks))
        if masks is not None:
            self._viewer.add_layer(Labels(masks, name=f"{stem}_masks", metadata=marks))
        self._tell("done", f"{len(images)} synthetic images are open; the slider below the canvas goes through them. {_CAUTION}")

    def find_codes(self, row: Row) -> None:
        """Find what numbers a model has for each tile of the active image, or object of its labels, and show them as points."""
        chosen = self._subject()
        if chosen is None or self._session.work.active:
            if chosen is None:
                self._tell("warning", "No image is active. Click an image in the layer list, and try again.")
            return
        image, labels = chosen
        try:
            examples = images_of([image]) if labels is None else examples_of([(image, labels)], None)
        except TileSegError as error:
            self._tell("error", str(error))
            return
        layer: Layer = image if labels is None else labels
        self._bridge.background(lambda: self._files.save(examples)[0], lambda answer: self._on_saved(row, layer, answer))

    def _on_saved(self, row: Row, layer: Layer, answer: Any) -> None:
        if self._failed(answer):
            return
        image, labels = answer
        table = self._folder("codes") / "codes.csv"
        words = ["embed", row.ref, str(image), "-o", str(table), *(["--labels", str(labels)] if labels is not None else []), "--json"]

        def read(ended: Ended) -> None:
            self._bridge.background(lambda: read_embedding(table), lambda answer: self._on_codes(layer, answer))

        self._session.perform("embedding", row.ref, words, read, name=row.title)

    def _on_codes(self, layer: Layer, answer: Any) -> None:
        if self._failed(answer):
            return
        try:
            show_embedding(self._viewer, answer, layer=layer)
        except TileSegError as error:
            self._tell("error", str(error))
            return
        self._viewer.reset_view()
        what = "objects" if answer.labels.any() else "tiles"
        self._tell("done", f"{len(answer.codes)} {what}: what looks alike lies close together. A click on a code goes to its place.")

    def close(self) -> None:
        """Delete what lies on the disk for a while."""
        self._bridge.close()
        self._files.close()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def _subject(self) -> tuple[Image, Labels | None] | None:
        """Return the active image, or that of the active labels, with its labels if it has some."""
        active = self._viewer.layers.selection.active
        pairs = natural_pairs(list(self._viewer.layers))
        found = next((pair for pair in pairs if active in pair), None)
        if found is not None:
            return found
        return (active, None) if isinstance(active, Image) else None

    def _folder(self, name: str) -> Path:
        if self._scratch is None:
            self._scratch = Scratch()
        return self._scratch.folder(name)

    def _failed(self, answer: Any) -> bool:
        if not isinstance(answer, Exception):
            return False
        self._tell("error", str(answer) if isinstance(answer, TileSegError) else f"What was made could not be read: {answer}.")
        return True

    def _tell(self, kind: Any, text: str) -> None:
        self._session.told.emit(Message(kind, text))


def read_drawn(folder: Path, paths: Sequence[str]) -> tuple[Any, Any]:
    """Read what ``tileseg generate`` has written; not for Qt's thread.

    Parameters
    ----------
    folder : Path
        Where it was written to.
    paths : sequence of str
        Of the images.

    Returns
    -------
    images : ndarray of float32, shape (N, Y, X), (N, Y, X, 3) or (N, C, Y, X)
        From 0 to 1.
    masks : ndarray of int or None, shape (N, Y, X)

    Raises
    ------
    InputError
        If a file is not there.
    """
    images = np.stack([np.asarray(read_volume(path).data) for path in paths])
    if images.ndim == 4 and images.shape[1] == 3:
        images = np.ascontiguousarray(np.moveaxis(images, 1, -1))
    masks = sorted((folder / "labels").glob("*.ome.tif"))
    if not masks:
        return images, None
    return images, np.stack([np.asarray(read_volume(mask).data) for mask in masks])
