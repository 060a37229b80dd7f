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
from napari_tileseg.widgets.embedding import show_embedding, show_embeddings
from napari_tileseg.widgets.parts import Fields
from napari_tileseg.widgets.parts.fields import Wrapped, tame
from napari_tileseg.widgets.states import Message
from napari_tileseg.widgets.train.pairs import LayerFiles, examples_of, images_of, natural_pairs
from napari_tileseg.widgets.train.rows import OURS
from napari_tileseg.widgets.train.samples import beside
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
        rows = images.shape[1:3] if rgb else images.shape[-2:]
        place, flat = (beside(self._viewer, rows, extra=images.ndim - 2 - rgb), beside(self._viewer, rows, extra=1))
        marks = {"synthetic": True, "model": ref, "seed": seed, OURS: ref}
        stem = f"{ref}_synthetic_seed{seed}"
        self._viewer.add_layer(Image(images, name=stem, rgb=rgb, contrast_limits=(0, 1), metadata=marks, **place))
        if masks is not None:
            self._viewer.add_layer(Labels(masks, name=f"{stem}_masks", metadata=marks, **flat))
        self._viewer.reset_view()
        self._tell("done", f"{len(images)} synthetic images are open; the slider below the canvas goes through them. {_CAUTION}")

    def find_codes(self, row: Row) -> None:
        """Find what numbers a model has for each tile of the selected images, or object of their labels, and show them as points."""
        chosen = self._subjects()
        if self._session.work.active:
            return
        if not chosen:
            self._tell("warning", "No image is active. Click an image in the layer list, and try again.")
            return
        pairs = [(image, labels) for image, labels in chosen if labels is not None]
        try:
            labelled = len(pairs) == len(chosen)
            examples = examples_of(pairs, None) if labelled else images_of([image for image, _ in chosen])
        except TileSegError as error:
            self._tell("error", str(error))
            return
        layers: dict[str, Layer] = {
            example.name: labels if labelled and labels is not None else image
            for example, (image, labels) in zip(examples, chosen, strict=True)
        }
        self._bridge.background(lambda: self._files.save(examples), lambda answer: self._on_saved(row, layers, answer))

    def _on_saved(self, row: Row, layers: dict[str, Layer], answer: Any) -> None:
        if self._failed(answer):
            return
        table = self._folder("codes") / "codes.csv"
        words = ["embed", row.ref, *(str(image) for image, _ in answer), "-o", str(table), "--json"]
        words += [word for _, labels in answer if labels is not None for word in ("--labels", str(labels))]

        def read(ended: Ended) -> None:
            self._bridge.background(lambda: read_embedding(table), lambda answer: self._on_codes(layers, answer))

        self._session.perform("embedding", row.ref, words, read, name=row.title)

    def _on_codes(self, layers: dict[str, Layer], answer: Any) -> None:
        if self._failed(answer):
            return
        try:
            if answer.images:
                show_embeddings(self._viewer, answer, layers)
            else:
                show_embedding(self._viewer, answer, layer=next(iter(layers.values())))
        except TileSegError as error:
            self._tell("error", str(error))
            return
        self._viewer.reset_view()
        what = "objects" if answer.labels.any() else "tiles"
        what += f" of {len(layers)} images" if len(layers) > 1 else ""
        self._tell("done", f"{len(answer.codes)} {what}: what looks alike lies close together. A click on a code goes to its place.")

    def close(self) -> None:
        """Delete what lies on the disk for a while."""
        self._bridge.close()
        self._files.close()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None

    def _subjects(self) -> list[tuple[Image, Labels | None]]:
        """Return the selected images, and those of selected labels, each with its labels if it has some."""
        pairs = natural_pairs(list(self._viewer.layers))
        found: list[tuple[Image, Labels | None]] = []
        for layer in self._viewer.layers:
            if layer not in self._viewer.layers.selection:
                continue
            pair = next(((image, labels) for image, labels in pairs if layer is image or layer is labels), None)
            chosen = pair if pair is not None else (layer, None) if isinstance(layer, Image) else None
            if chosen is not None and all(chosen[0] is not image for image, _ in found):
                found.append(chosen)
        return found

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
