"""Takes the pictures of the documentation: every state of the Segment dock, a batch, corrections, the models, from real runs.

Run it where there is a screen, or under a virtual one::

    xvfb-run -a -s "-screen 0 1366x768x24" python scripts/screenshots.py

The pictures go to ``docs/images``: the dock in every state and theme, and the whole window as ``segment.png`` (the README's),
``volume.png``, ``batch.png``, ``refine.png``, ``refine_review.png``, ``models.png`` and ``train.png``. ``--out`` and ``--only`` choose
otherwise.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import napari
import numpy as np
import tifffile
from napari.settings import get_settings
from PIL import Image
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QScrollArea

from napari_tileseg.io.samples import sample
from napari_tileseg.models.imports import import_model
from napari_tileseg.models.predictor import load_model
from napari_tileseg.pipeline import segment
from napari_tileseg.refine.objects import remove
from napari_tileseg.widgets.batch import BatchWidget
from napari_tileseg.widgets.bridge import close_supervisor, supervisor
from napari_tileseg.widgets.models import ModelsWidget
from napari_tileseg.widgets.models.trust import TrustDialog
from napari_tileseg.widgets.refine import RefineWidget
from napari_tileseg.widgets.refine.mouse import Click
from napari_tileseg.widgets.segment import SegmentWidget
from napari_tileseg.widgets.states import Action, Phase
from napari_tileseg.widgets.train import TrainWidget

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, HEIGHT = 1366, 768
THEMES = ("dark", "light")
PATIENCE = 600.0


class Studio:
    """One viewer with the dock, and a camera."""

    def __init__(self, out: Path, only: str = "") -> None:
        self.out = out
        self.only = only
        get_settings().application.save_window_geometry = False
        get_settings().application.confirm_close_window = False
        self.viewer = napari.Viewer(show=False, show_welcome_screen=False)
        self.dock = SegmentWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.dock, name="Segment (TileSeg)", area="right")
        self.viewer.window.show()
        self.viewer.window.resize(WIDTH, HEIGHT)
        self.pause(0.5)

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.005)

    def wait(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not until():
            if time.monotonic() > end:
                raise TimeoutError(f"the dock still says {self.dock.session.state}")
            self.pause(0.02)

    def shoot(self, name: str) -> None:
        if self.only and self.only not in name:
            return
        for theme in THEMES:
            self.viewer.theme = theme
            self.pause(0.3)
            self.save(f"segment_{name}_{theme}", whole=False)
        self.viewer.theme = THEMES[0]
        print(f"{name}: {self.dock.box.label.text()!r} | {self.dock.button.text()} | {self.dock.message.text.text()!r}")

    def save(self, name: str, *, whole: bool) -> None:
        """Write a picture of the window, or of the dock alone."""
        picture = self.viewer.window.screenshot(canvas_only=False, flash=False)[..., :3]
        if not whole:
            picture = picture[:, -self.dock.width() - 8 :]
        image = Image.fromarray(picture)
        image = image if whole else image.quantize(256, dither=Image.Dither.NONE)
        image.save(self.out / f"{name}.png", optimize=True)

    def click(self) -> None:
        QTest.mouseClick(self.dock.button, Qt.MouseButton.LeftButton)

    def phase(self, *phases: Phase) -> bool:
        return self.dock.session.state.phase in phases

    def clear(self) -> None:
        self.dock.session.forget()
        self.viewer.layers.clear()
        self.pause(0.3)


def take(studio: Studio) -> None:
    dock, viewer = studio.dock, studio.viewer
    studio.shoot("empty")
    viewer.open_sample("napari-tileseg", "nuclei-fluorescence")
    studio.wait(lambda: "tiles of" in dock.box.label.text())
    studio.pause(0.3)
    studio.shoot("ready")
    studio.click()
    studio.wait(lambda: studio.phase(Phase.DONE))
    studio.wait(lambda: "About" in dock.box.label.text())
    studio.shoot("done")
    if not studio.only:
        studio.pause(0.5)
        studio.save("segment", whole=True)
    unfold(studio)
    interrupted(studio)
    questions(studio)
    volume(studio)
    if not studio.only or "batch" in studio.only:
        batch(studio)
    if not studio.only or "refine" in studio.only:
        refine(studio)
    if not studio.only or "models" in studio.only:
        models(studio)
    if not studio.only or "train" in studio.only:
        train(studio)


def unfold(studio: Studio) -> None:
    """Open all folds: the dock scrolls."""
    folds = (studio.dock.form.where_fold, studio.dock.form.options_fold, studio.dock.form.results_fold)
    for fold in folds:
        fold.open()
    studio.pause(0.2)
    studio.shoot("unfolded")
    scroll = studio.dock.findChild(QScrollArea)
    scroll.verticalScrollBar().setValue(scroll.verticalScrollBar().maximum())
    studio.pause(0.2)
    studio.shoot("unfolded_end")
    for fold in folds:
        fold.open(False)


def interrupted(studio: Studio) -> None:
    """Cancel a run of several frames, carry it on, and kill its process."""
    dock, viewer = studio.dock, studio.viewer
    studio.clear()
    image, _ = sample("nuclei-fluorescence")
    frames = np.stack([np.asarray(image.data)] * 24)
    viewer.add_image(frames, name="time_lapse", axis_labels=("t", "y", "x"))
    studio.pause(0.5)
    studio.click()
    studio.wait(lambda: dock.session.result is not None and dock.session.result.shown)
    studio.shoot("running")
    studio.click()
    studio.wait(lambda: studio.phase(Phase.CANCELLED))
    studio.shoot("cancelled")
    studio.click()
    studio.wait(lambda: studio.phase(Phase.RUNNING) and dock.session.state.done > 0)
    os.kill(supervisor().pid, signal.SIGKILL)
    studio.wait(lambda: studio.phase(Phase.DIED))
    studio.shoot("died")
    dock.act(Action.AGAIN)
    studio.wait(lambda: dock.session.result is not None and dock.session.result.shown)
    viewer.layers.remove("time_lapse_nuclei-2d")
    studio.wait(lambda: studio.phase(Phase.REMOVED))
    studio.pause(0.3)
    studio.shoot("removed")


def questions(studio: Studio) -> None:
    """Ask about an axis; refuse a window; name what is no image."""
    dock, viewer = studio.dock, studio.viewer
    studio.clear()
    viewer.add_image(np.random.default_rng(0).random((12, 300, 400)).astype(np.float32), name="a stack with a rather long name, 2026-11-20")
    dock.form.model.choose("nuclei-2d")
    studio.pause(0.5)
    studio.shoot("ambiguous")
    dock.act(Action.TIME)
    dock.form.options.set_window("250")
    dock.form.options.changed.emit()
    studio.pause(0.5)
    studio.shoot("refused")
    dock.form.options.reset()
    studio.clear()
    viewer.add_points(np.zeros((1, 2)), name="spots")
    studio.pause(0.3)
    studio.shoot("points")


def volume(studio: Studio) -> None:
    """Segment the MRI, in three dimensions."""
    viewer = studio.viewer
    studio.clear()
    viewer.open_sample("napari-tileseg", "hippocampus-mri")
    studio.pause(0.5)
    studio.click()
    studio.wait(lambda: studio.phase(Phase.DONE, Phase.FAILED))
    studio.pause(0.5)
    studio.shoot("volume")
    if not studio.only:
        studio.pause(0.5)
        studio.save("volume", whole=True)


def batch(studio: Studio) -> None:
    """Segment a folder, one file of which breaks off, and look at a result."""
    viewer = studio.viewer
    studio.clear()
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "plate_07" / "raw"
        raw.mkdir(parents=True)
        pixels = np.asarray(sample("nuclei-fluorescence")[0].data)
        for number in range(24):
            place = raw / f"{'ABCD'[number // 6]}0{number % 6 + 1}.tif"
            tifffile.imwrite(place, np.roll(pixels, (17 * number, 29 * number), (0, 1))[:360, :480])
        whole = (raw / "A03.tif").read_bytes()
        (raw / "A03.tif").write_bytes(whole[: len(whole) // 3])
        dock = BatchWidget(viewer)
        viewer.window.add_dock_widget(dock, name="Batch (TileSeg)", area="right", tabify=True)
        dock.form.images.write(str(raw))
        studio.wait(lambda: dock.order is not None)
        QTest.mouseClick(dock.button, Qt.MouseButton.LeftButton)
        studio.wait(lambda: dock.session.state.done > 10)
        done = next(number for number, row in enumerate(dock.session.table.rows) if row.state == "done")
        place = dock.files.visualRect(dock.files.model().mapFromSource(dock.session.table.index(done, 0))).center()
        QTest.mouseClick(dock.files.viewport(), Qt.MouseButton.LeftButton, pos=place)
        studio.wait(lambda: len(viewer.layers) == 2)
        viewer.reset_view()
        studio.pause(0.5)
        studio.save("batch", whole=True)
        studio.wait(lambda: not dock.session.active)


def models(studio: Studio) -> None:
    """Bring models of several kinds, look at one that could run code, and try another one."""
    viewer = studio.viewer
    studio.clear()
    kept = {name: os.environ.get(name) for name in ("TILESEG_MODELS", "TILESEG_CACHE")}
    tests = Path(__file__).parents[1] / "tests" / "models"
    with tempfile.TemporaryDirectory() as folder:
        for name in kept:
            os.environ[name] = str(Path(folder) / name.rpartition("_")[2].lower())
        results = tests / "loaders" / "nnunet" / "Dataset901_Hippocampus"
        import_model(f"nnunet:{results / 'nnUNetTrainer__nnUNetPlans__3d_fullres'}", name="hippocampus-nnunet")
        import_model(str(tests / "bioimageio" / "onnx-2d-v5.zip"), name="edges-onnx")
        import_model(str(tests / "bioimageio" / "source-2d-v4.zip"), name="stranger")
        dock = ModelsWidget(viewer)
        viewer.window.add_dock_widget(dock, name="Models (TileSeg)", area="right", tabify=True)
        viewer.open_sample("napari-tileseg", "nuclei-histology")
        studio.wait(lambda: len(dock.models.shown) == 5)
        dock.models.choose("stranger")
        QTest.mouseClick(dock.button, Qt.MouseButton.LeftButton)
        studio.wait(lambda: any(isinstance(item, TrustDialog) and item.isVisible() for item in QApplication.topLevelWidgets()))
        dialog = next(item for item in QApplication.topLevelWidgets() if isinstance(item, TrustDialog))
        studio.pause(0.5)
        dialog.grab().save(str(studio.out / "models_trust.png"))
        dialog.close()
        dock.models.choose("nuclei-2d")
        dock.act(Action.VERIFY)
        studio.wait(lambda: not dock.session.work.active)
        dock.act(Action.TRY)
        studio.wait(lambda: studio.phase(Phase.DONE))
        dock.parent().raise_()
        studio.pause(0.5)
        studio.save("models", whole=True)
        dock.session.close()
    for name, value in kept.items():
        os.environ.pop(name)
        if value is not None:
            os.environ[name] = value


def refine(studio: Studio) -> None:
    """Segment the nuclei, correct a few, and hold the tool that splits, with a seed in an object."""
    os.environ["TILESEG_EDITS"] = tempfile.mkdtemp()  # the user's own edits are not for pictures
    viewer = studio.viewer
    studio.clear()
    viewer.open_sample("napari-tileseg", "nuclei-fluorescence")
    studio.dock.form.keep_scores.setChecked(True)
    studio.wait(lambda: "tiles of" in studio.dock.box.label.text())
    studio.click()
    studio.wait(lambda: studio.phase(Phase.DONE))
    studio.dock.form.keep_scores.setChecked(False)
    dock = RefineWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Refine (TileSeg)", area="right", tabify=True)
    viewer.reset_view()
    studio.wait(lambda: dock.session.work is not None and dock.session.work.canvas.looked)
    labels = dock.session.work.canvas.index.ids().tolist()
    for label in labels[3:6]:
        dock.session.attempt(lambda label=label: remove(dock.session.work.canvas, label))
    cleanup = next(fold for fold in dock.folds if fold.title == "Clean up")
    cleanup.open()
    cleanup.amount.setValue(cleanup.amount.value() * 4)
    dock.session.take_up("split")
    sizes = {label: dock.session.work.canvas.index.size(label) for label in labels}
    box = dock.session.work.canvas.index.box(max(sizes, key=sizes.__getitem__))
    point = tuple((part.start + part.stop) // 2 for part in box)
    dock.session.deeds.click(Click(max(sizes, key=sizes.__getitem__), point))
    studio.wait(lambda: "ould" in cleanup.note.text())
    studio.wait(lambda: dock.session.state.kept is not None)
    studio.pause(0.5)
    studio.save("refine", whole=True)
    dock.session.put_away()
    cleanup.open(False)
    review, objects = (next(fold for fold in dock.folds if fold.title == title) for title in ("Review", "Objects"))
    review.open()
    studio.wait(lambda: dock.session.sheets.sheet is not None)
    for word in ("accepted", "accepted", "fix", "accepted", "rejected"):
        if review.current is None:
            review.go_on()
        review.say_of(word)
    objects.open()
    studio.pause(1.0)
    studio.save("refine_review", whole=True)


def train(studio: Studio) -> None:
    """Train a new model on five small fields, and look at the worst one while it goes on."""
    viewer = studio.viewer
    studio.clear()
    kept = os.environ.get("TILESEG_MODELS")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TILESEG_MODELS"] = folder
        pixels = np.asarray(sample("nuclei-fluorescence")[0].data)
        found = np.asarray(segment(pixels, load_model("nuclei-2d", device="cpu"), axes="YX").labels)
        for number, (y, x) in enumerate(((0, 0), (0, 260), (200, 100), (260, 0), (260, 420)), start=1):
            part = np.s_[y : y + 256, x : x + 256]
            viewer.add_image(pixels[part], name=f"field_{number}")
            viewer.add_labels(found[part], name=f"field_{number}_corrected")
        dock = TrainWidget(viewer)
        viewer.window.add_dock_widget(dock, name="Train (TileSeg)", area="right", tabify=True)
        settings = {"batch": "2", "epochs": "16", "epoch_steps": "10", "window": "128, 128", "val_share": "0.4", "learning_rate": "0.003"}
        for name, text in settings.items():
            page = next(page for page in dock.form.pages.values() if name in page.widgets)
            page.widgets[name].setText(text)
            page.widgets[name].textEdited.emit(text)
        studio.wait(lambda: dock.button.isEnabled())
        studio.pause(0.5)
        studio.save("train_ready", whole=False)
        QTest.mouseClick(dock.button, Qt.MouseButton.LeftButton)
        studio.wait(lambda: bool(dock.results.names))
        for layer in viewer.layers:
            layer.visible = layer.name.startswith(dock.results.names[0]) and "corrected" not in layer.name
        dock.results.selectRow(0)
        dock.results.picked.emit(dock.results.names[0])
        studio.wait(lambda: len(viewer.layers) == 11 and dock.session.state.epoch > 12)
        viewer.reset_view()
        studio.pause(0.5)
        studio.save("train", whole=True)
        for theme in THEMES:
            viewer.theme = theme
            studio.pause(0.3)
            studio.save(f"train_running_{theme}", whole=False)
        viewer.theme = THEMES[0]
        studio.wait(lambda: not dock.session.active)
        studio.pause(0.5)
        studio.save("train_done", whole=False)
        dock.session.close()
    os.environ.pop("TILESEG_MODELS")
    if kept is not None:
        os.environ["TILESEG_MODELS"] = kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "images")
    parser.add_argument("--only", default="", help="take only pictures with this in their name")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    studio = Studio(arguments.out, arguments.only)
    try:
        take(studio)
    finally:
        close_supervisor()
        studio.viewer.close()


if __name__ == "__main__":
    main()
