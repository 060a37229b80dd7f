"""A folder becomes a folder of labels: run for real, past bad files, cut off and gone on with, looked at file by file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from batch_desk import PATIENCE, make_folder
from napari.layers import Image, Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_tileseg.batch.job import BatchJob
from napari_tileseg.io.registry import read_volume
from napari_tileseg.widgets import bridge, followed
from napari_tileseg.widgets.batch import BatchWidget
from napari_tileseg.widgets.states import Action, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


@pytest.fixture
def ready(batch: Callable[..., Any], folder: Path, settings_file: Path) -> Callable[[], Any]:
    """Return a function that shows a dock with a folder in it, ready to start."""

    def make() -> Any:
        here = batch(show=True)
        here.use(folder, settings_file)
        return here

    return make


# Before


def test_an_empty_dock_says_what_it_wants(batch: Callable[..., Any]) -> None:
    here = batch()
    assert here.box == "Choose a folder of images, or open layers."
    assert (here.dock.button.text(), here.dock.button.isEnabled()) == ("Start", False)


def test_fields_come_filled_in(batch: Callable[..., Any], folder: Path, settings_file: Path) -> None:
    here = batch()
    here.viewer.open(str(folder / "image03.tif"), plugin="napari")
    here.until(lambda: here.form.images.text())
    assert here.form.images.text() == str(folder)
    assert here.form.output.text() == str(folder.parent / "raw_labels")
    here.settle()
    assert here.box.startswith("12 images")
    assert [row.state for row in here.rows.values()] == ["waiting"] * 12
    assert here.dock.button.isEnabled()
    here.form.output.write(str(folder.parent / "elsewhere"))
    here.form.images.write(str(folder / "image01.tif"))
    here.settle()
    assert here.form.output.text() == str(folder.parent / "elsewhere"), "what the user wrote stays"
    assert list(here.rows) == ["image01.tif"]


@pytest.mark.parametrize(
    ("images", "place", "word"),
    [("nowhere", "images", "nowhere"), ("empty", "images", "no image"), ("raw", "output", "results")],
)
def test_a_sentence_stands_by_its_cause(
    batch: Callable[..., Any], folder: Path, settings_file: Path, images: str, place: str, word: str
) -> None:
    (folder.parent / "empty").mkdir()
    here = batch(show=True)
    here.dock.use_job(settings_file)
    here.form.images.write(str(folder.parent / images))
    if place == "output":
        here.form.format.choose(".tif")
        here.form.output.write(str(folder))
    here.until(lambda: here.form.problems[place].shown is not None)
    assert word in here.form.problems[place].shown.text
    assert not here.dock.button.isEnabled()
    assert [name for name, box in here.form.problems.items() if box.shown is not None] == [place]
    here.form.images.write(str(folder))
    here.form.output.write(str(folder.parent / "labels"))
    here.settle()
    assert not any(box.shown for box in here.form.problems.values())


def test_the_model_fits_the_first_image_where_nobody_chose(batch: Callable[..., Any], tmp_path: Path) -> None:
    here = batch()
    here.form.images.write(str(make_folder(tmp_path / "plain", 1)))
    here.settle()
    assert here.dock.order.job.models == ("nuclei-2d",)
    assert here.form.about.text().startswith("Nuclei 2D")
    assert "nuclei-2d" not in here.form.ticks


def test_settings_are_those_of_segment(batch: Callable[..., Any], desk: Callable[..., Any], folder: Path) -> None:
    other = desk()
    here = batch(viewer=other.viewer)
    other.viewer.add_image(np.zeros((40, 48), np.float32), name="noise")
    other.dock.form.model.choose("small-classes")
    other.dock.form.options.set_window("16")
    here.form.images.write(str(folder))
    here.settle()
    job = here.dock.order.job
    assert (job.models, job.options.window) == (("small-classes",), (16, 16))
    assert here.form.about.text() == "small-classes, window 16, 16"
    other.dock.form.model.choose("small-masks")
    here.until(lambda: here.dock.order is not None and here.dock.order.job.models == ("small-masks",))
    other.dock.form.options.set_window("no number")
    here.until(lambda: here.form.problems["settings"].shown is not None)


def test_what_the_form_holds_is_the_job(ready: Callable[[], Any], folder: Path) -> None:
    here = ready()
    form = here.form
    form.pattern.setText("image0*.tif; image11*")
    form.exclude.setText("image03.tif")
    form.recursive.setChecked(True)
    form.format.choose(".ome.zarr")
    for fold in form.folds:
        fold.open()
    form.ticks["small-classes"].setChecked(True)
    form.axes.setText("y x")
    form.level.setValue(0)
    form.scores.setChecked(True)
    form.objects.setChecked(True)
    form.template.setText("{stem}_{model}")
    form.workers.setValue(2)
    form.changed.emit()
    here.until(lambda: here.dock.order is not None and len(here.rows) == 20)
    job = here.dock.order.job
    assert job.pattern == ("image0*.tif", "image11*")
    assert job.exclude == ("image03.tif",)
    assert job.models == ("small-objects", "small-classes")
    assert (job.recursive, job.format, job.axes, job.objects, job.options.scores) == (True, ".ome.zarr", "YX", True, True)
    assert here.dock.order.workers == 2
    assert form.saving_fold.inside == "scores, objects, report"
    assert form.others_fold.inside == "small-classes"
    assert form.reading_fold.inside == "axes Y X, without image03.tif"
    assert form.running_fold.inside == "2 processes here"
    form.axes.setText("")
    form.channels.setText("one")
    form.changed.emit()
    here.until(lambda: here.form.problems["settings"].shown is not None)
    assert 'Channels "one"' in here.form.problems["settings"].shown.text


# A whole batch


def test_a_folder_past_a_bad_file(ready: Callable[[], Any], folder: Path) -> None:
    here = ready()
    (folder / "image04.tif").write_bytes((folder / "image04.tif").read_bytes()[:900])
    (folder / "notes.txt").write_text("no image")
    here.form.changed.emit()
    here.until(lambda: here.dock.order is not None and "left out" in here.box)
    here.start()
    assert here.dock.setup.header.isVisible()
    assert not here.form.isVisible(), "the form folds away"
    assert here.dock.setup.header.text().startswith("Set-up: raw → raw_labels, small-objects")
    here.finish()
    assert here.text.startswith("11 done, 1 failed in ")
    assert here.dock.message.shown.kind == "warning"
    assert here.dock.button.text() == "New batch"
    assert here.rows["image04.tif"].state == "failed"
    assert len(list((folder.parent / "raw_labels").glob("*.ome.tif"))) == 11
    texts = [here.dock.shown.itemText(place) for place in range(here.dock.shown.count())]
    assert texts == ["All (12)", "Waiting (0)", "Running (0)", "Done (11)", "Skipped (0)", "Failed (1)"]
    here.dock.shown.choose("failed")
    assert here.dock.files.model().rowCount() == 1
    here.click_row("image04.tif")
    assert "image04.tif" in here.dock.about_row.shown.text
    assert here.dock.about_row.shown.links == (Action.RETRY, Action.OPEN, Action.SHOW)
    assert not here.layers, "a failed file is not opened unasked"


def test_a_file_is_tried_again(ready: Callable[[], Any], folder: Path) -> None:
    here = ready()
    whole = (folder / "image04.tif").read_bytes()
    for name in ("image04.tif", "image07.tif"):
        (folder / name).write_bytes(b"")
    here.start()
    here.finish()
    assert "2 failed" in here.text
    (folder / "image04.tif").write_bytes(whole)
    here.click_row("image04.tif")
    here.follow(Action.RETRY)
    here.finish()
    assert here.rows["image04.tif"].state == "done"
    assert here.rows["image07.tif"].state == "failed"
    (folder / "image07.tif").write_bytes(whole)
    here.follow(Action.RETRY_FAILED)
    here.finish()
    assert here.text.startswith("12 done in ")
    assert "11 of 12 were done before." in here.text


def test_a_file_is_tried_again_when_the_others_are_done(ready: Callable[[], Any], folder: Path) -> None:
    here = ready()
    whole = (folder / "image00.tif").read_bytes()
    (folder / "image00.tif").write_bytes(b"")
    here.start()
    here.until(lambda: here.rows["image00.tif"].state == "failed")
    here.dock.second.click()
    here.until(lambda: here.session.state.paused)
    (folder / "image00.tif").write_bytes(whole)
    here.click_row("image00.tif")
    here.follow(Action.RETRY)
    assert here.rows["image00.tif"].again
    assert "when the other files are done" in here.dock.about_row.shown.text
    here.dock.second.click()
    here.until(lambda: here.rows["image00.tif"].state == "done" and not here.session.active)
    assert here.phase is Phase.DONE


def test_a_new_batch_begins_with_the_form(ready: Callable[[], Any]) -> None:
    here = ready()
    here.start()
    here.finish()
    here.click()
    assert here.phase is Phase.NONE
    assert here.form.isVisible()
    assert not here.dock.setup.header.isVisible()
    here.settle()
    assert here.dock.button.text() == "Start"
    here.start()
    here.finish()
    assert here.text.startswith("12 done in ")
    assert "12 of 12 were done before." in here.text


@pytest.mark.slow
def test_several_models_and_everything_beside(ready: Callable[[], Any], folder: Path) -> None:
    here = ready()
    here.form.ticks["small-classes"].setChecked(True)
    here.form.objects.setChecked(True)
    here.form.pattern.setText("image0[0-2]*")
    here.form.changed.emit()
    here.until(lambda: here.dock.order is not None and len(here.rows) == 6)
    here.start()
    here.finish()
    assert here.text.startswith("6 done in ")
    assert Action.REPORT in here.dock.message.shown.links
    output = folder.parent / "raw_labels"
    assert (output / "report.html").is_file()
    assert len(list(output.glob("*.ome.tif"))) == 6
    assert any("class" in row.message or row.counts for row in here.rows.values())


# Cut off, and gone on with


def test_cancel_and_continue(ready: Callable[[], Any]) -> None:
    here = ready()
    here.start()
    here.until(lambda: here.over() >= 2)
    here.click()
    assert here.dock.button.text() == "Cancelling..."
    here.finish(Phase.CANCELLED)
    done = here.session.state.done
    assert 2 <= done < 12
    assert here.text == f"Cancelled. {done} of 12 files are done; Continue does the others."
    assert (here.dock.button.text(), here.dock.second.text()) == ("Continue", "New batch")
    assert not any(row.state == "running" for row in here.rows.values())
    here.click()
    here.finish()
    assert here.text.startswith("12 done in ")
    assert f"{done} of 12 were done before." in here.text
    assert sum(row.before for row in here.rows.values()) == done


def test_pause_and_resume(ready: Callable[[], Any]) -> None:
    here = ready()
    here.start()
    here.until(lambda: here.over() >= 1)
    here.click(here.dock.second)
    here.until(lambda: here.session.state.paused)
    assert here.dock.second.text() == "Resume"
    here.until(lambda: here.dock.progress.format().startswith("Paused after "))
    here.click(here.dock.second)
    here.until(lambda: not here.session.state.paused)
    here.finish()
    assert here.text.startswith("12 done in ")


@pytest.mark.slow
@posix
def test_the_process_dies_and_the_batch_goes_on(ready: Callable[[], Any]) -> None:
    here = ready()
    here.start()
    here.until(lambda: here.over() >= 2)
    os.kill(bridge.supervisor().pid, signal.SIGKILL)
    here.finish(Phase.DIED)
    assert here.text.startswith("The model's process ended, most likely for lack of memory. ")
    assert here.text.endswith(" of 12 files are safe.")
    here.click()
    here.finish()
    assert here.text.startswith("12 done in ")


def test_another_run_writes_there(ready: Callable[[], Any], folder: Path) -> None:
    here = ready()
    from napari_tileseg.batch.lock import OutputLock

    output = folder.parent / "raw_labels"
    output.mkdir()
    with OutputLock(output):
        here.click()
        here.finish(Phase.FAILED)
    assert "run" in here.text
    assert here.dock.button.text() == "Start", "the form is there to be changed"
    assert here.form.isVisible()


def test_a_closed_dock_stops_nothing(ready: Callable[[], Any], qtbot: Any) -> None:
    here = ready()
    viewer, session = here.viewer, here.session
    here.start()
    here.until(lambda: here.over() >= 1)
    viewer.window.remove_dock_widget(here.dock)
    again = BatchWidget(viewer)
    viewer.window.add_dock_widget(again, name="Batch (TileSeg)", area="right")
    assert again.session is session
    assert again.files.model().rowCount() == 12
    assert not again.setup.header.isHidden()
    here.dock = again
    here.form = again.form
    here.finish()
    assert here.text.startswith("12 done in ")


def test_a_notification_only_where_the_dock_is_hidden(ready: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    here = ready()
    told: list[str] = []
    monkeypatch.setattr(followed, "show_info", told.append)
    here.start()
    here.finish()
    assert told == []
    here.session.forget()
    here.dock._on_change()
    here.settle()
    here.dock.parentWidget().hide()
    here.dock.start()
    here.finish()
    assert len(told) == 1
    assert told[0].startswith("raw → raw_labels, small-objects: 12 done in ")


def test_napari_asks_before_it_closes_and_the_job_goes_on_without_it(
    ready: Callable[[], Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(followed, "ask_before_closing", lambda run, words: asked.append(words))
    here = ready()
    here.start()
    here.until(lambda: here.over() >= 2)
    here.click(here.dock.second)  # or a quick computer would be done before the window is closed
    here.until(lambda: here.session.state.paused)
    assert asked == ["batch raw → raw_labels, small-objects"]
    order, run = here.session.order, here.session._run
    here.viewer.close()
    here.qtbot.wait(50)
    assert run.wait(PATIENCE)
    assert run.state in ("cancelled", "died")
    job = tmp_path / "job.json"
    job.write_text(order.job.model_dump_json())
    command = [sys.executable, "-m", "napari_tileseg.cli", "run", str(job)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((folder.parent / "raw_labels").glob("*.ome.tif"))) == 12


# Looked at


def test_a_click_opens_image_and_result_and_the_next_takes_their_place(ready: Callable[[], Any]) -> None:
    here = ready()
    here.start()
    here.finish()
    here.click_row("image02.tif")
    here.until(lambda: len(here.layers) == 2)
    assert here.layers == ["image02", "image02_small-objects"]
    assert isinstance(here.viewer.layers[0], Image)
    labels = here.viewer.layers[1]
    assert isinstance(labels, Labels)
    np.testing.assert_array_equal(labels.data, read_volume(here.rows["image02.tif"].output).data)
    labels.contour = 2
    here.click_row("image05.tif")
    here.until(lambda: here.layers == ["image05", "image05_small-objects"])
    assert here.viewer.layers[1].contour == 2, "what was set for one file is kept for the next"
    here.qtbot.keyClick(here.dock.files, Qt.Key.Key_Down)
    here.until(lambda: here.layers == ["image06", "image06_small-objects"])


def test_layers_that_were_painted_on_stay(ready: Callable[[], Any]) -> None:
    here = ready()
    here.start()
    here.finish()
    here.click_row("image02.tif")
    here.until(lambda: len(here.layers) == 2)
    here.viewer.layers[1].paint((3, 3), 7)
    here.click_row("image03.tif")
    here.until(lambda: len(here.layers) == 4)
    here.click_row("image04.tif")
    here.until(lambda: "image04_small-objects" in here.layers and "image03" not in here.layers)
    assert here.layers == ["image02", "image02_small-objects", "image04", "image04_small-objects"]


def test_a_result_that_is_gone_is_said(ready: Callable[[], Any]) -> None:
    here = ready()
    here.start()
    here.finish()
    Path(here.rows["image02.tif"].output).unlink()
    here.click_row("image02.tif")
    here.until(lambda: here.dock.about_row.shown is not None)
    assert "image02" in here.dock.about_row.shown.text
    here.until(lambda: here.layers == ["image02"])


# Layers, jobs, commands


def test_layers_without_files_are_saved_first(batch: Callable[..., Any], folder: Path, settings_file: Path, tmp_path: Path) -> None:
    here = batch(show=True)
    here.dock.use_job(settings_file)
    here.form.output.write(str(tmp_path / "out"))
    from_file = here.viewer.open(str(folder / "image03.tif"), plugin="napari")[0]
    changed = here.viewer.open(str(folder / "image04.tif"), plugin="napari")[0]
    changed.data = changed.data + 1
    made = np.random.default_rng(2).normal(size=(3, 40, 48)).astype(np.float32)
    here.viewer.add_image(made, name="made/here", scale=(1, 0.5, 0.5), axis_labels=("t", "y", "x"))
    here.form.images.write("All open layers")
    here.settle()
    assert "2 layers have no files of their own and are saved first" in here.box
    assert list(here.rows) == ["image03.tif", "image04.ome.tif", "made_here.ome.tif"]
    here.start()
    here.finish()
    assert here.text.startswith("3 done in ")
    saved = read_volume(tmp_path / "out" / ".tileseg" / "layers" / "made_here.ome.tif")
    np.testing.assert_array_equal(np.asarray(saved.data[...]), made)
    assert saved.axes == "TYX"
    assert saved.spacing["Y"] == 0.5
    assert sorted(path.name for path in (tmp_path / "out").glob("*.ome.tif")) == [
        "image03.ome.tif",
        "image04.ome.tif",
        "made_here.ome.tif",
    ]
    here.click_row("image03.tif")
    here.until(lambda: "image03_small-objects" in here.layers)
    assert here.layers.count("image03") == 1, "the layer that is open already serves"
    here.session.forget()
    here.viewer.layers.selection = {from_file}
    here.form.images.write("Selected layers")
    here.settle()
    assert list(here.rows) == ["image03.tif"]


def test_the_same_layers_are_not_done_twice(batch: Callable[..., Any], settings_file: Path, tmp_path: Path) -> None:
    here = batch(show=True)
    here.dock.use_job(settings_file)
    here.viewer.add_image(np.random.default_rng(2).normal(size=(40, 48)).astype(np.float32), name="made")
    here.form.output.write(str(tmp_path / "out"))
    here.form.images.write("All open layers")
    for _ in range(2):
        here.settle()
        here.start()
        here.finish()
        here.click()
    here.settle()
    here.start()
    here.finish()
    assert "1 of 1 were done before." in here.text


def test_a_saved_batch_fills_the_form(ready: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = ready()
    path = tmp_path / "kept.json"
    monkeypatch.setattr("napari_tileseg.widgets.deeds.QFileDialog.getSaveFileName", lambda *args: (str(path), ""))
    here.form.objects.setChecked(True)
    here.form.pattern.setText("image0*")
    here.form.changed.emit()
    here.until(lambda: here.dock.order is not None and len(here.rows) == 10)
    here.form.running_fold.open()
    here.follow(Action.EXPORT)
    job = BatchJob.model_validate_json(path.read_text())
    assert job == here.dock.order.job
    here.form.objects.setChecked(False)
    here.form.pattern.setText("")
    here.form.images.write("")
    here.dock.use_job(path)
    here.settle()
    assert here.dock.order.job == job
    assert here.form.settings.currentText() == "As in kept.json"
    (tmp_path / "none.json").write_text('{"kind": "cake"}')
    here.dock.use_job(tmp_path / "none.json")
    assert "none.json" in here.form.problems["settings"].shown.text


def test_the_command_does_the_same(ready: Callable[[], Any], folder: Path) -> None:
    here = ready()
    here.form.pattern.setText("image0[0-3]*")
    here.form.changed.emit()
    here.until(lambda: here.dock.order is not None and len(here.rows) == 4)
    here.form.running_fold.open()
    here.follow(Action.COMMAND)
    clipboard = QApplication.clipboard()
    assert clipboard is not None
    import shlex

    words = (
        shlex.split(clipboard.text())
        if sys.platform != "win32"
        else [word.strip('"') for word in shlex.split(clipboard.text(), posix=False)]
    )
    assert words[:2] == ["tileseg", "batch"]
    done = subprocess.run(
        [sys.executable, "-m", "napari_tileseg.cli", *words[1:]], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list((folder.parent / "raw_labels").glob("*.ome.tif"))) == 4
    here.start()
    here.finish()
    assert "4 of 4 were done before." in here.text


def test_details_and_folders(ready: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    here = ready()
    opened: list[str] = []
    monkeypatch.setattr("napari_tileseg.widgets.batch.deeds.QDesktopServices.openUrl", lambda url: opened.append(url.toLocalFile()) or True)
    here.start()
    here.finish()
    here.follow(Action.FOLDER)
    here.follow(Action.REPORT)
    output = folder.parent / "raw_labels"
    assert opened == [str(output), str(output / "report.html")]
    here.follow(Action.DETAILS)
    from napari_tileseg.widgets.dialogs import TextDialog

    dialog = here.dock.findChild(TextDialog)
    assert '"small-objects"' in dialog.view.toPlainText()
    dialog.close()


def test_a_plate_is_a_folder_of_images(batch: Callable[..., Any], settings_file: Path, tmp_path: Path) -> None:
    plate = make_plate(tmp_path / "plate.zarr")
    here = batch(show=True)
    here.use(plate, settings_file)
    assert len(here.rows) == 2
    here.start()
    here.finish()
    assert here.text.startswith("2 done in ")
    name = next(iter(here.rows))
    here.click_row(name)
    here.until(lambda: len(here.layers) == 2)
    assert isinstance(here.viewer.layers[1], Labels)


def make_plate(path: Path) -> Path:
    """Write a plate of one well with two fields."""
    import zarr

    axes = [{"name": name, "type": "space"} for name in "yx"]
    scale = [{"type": "scale", "scale": [1.0, 1.0]}]
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.attrs["plate"] = {
        "version": "0.4",
        "rows": [{"name": "A"}],
        "columns": [{"name": "1"}],
        "wells": [{"path": "A/1", "rowIndex": 0, "columnIndex": 0}],
    }
    well = root.create_group("A/1")
    well.attrs["well"] = {"version": "0.4", "images": [{"path": "0"}, {"path": "1"}]}
    rng = np.random.default_rng(0)
    for field in "01":
        image = well.create_group(field)
        datasets = [{"path": "0", "coordinateTransformations": scale}]
        image.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
        array = image.create_array("0", shape=(64, 64), chunks=(64, 64), dtype="float32")
        array[...] = rng.normal(size=(64, 64)).astype(np.float32)
    return path
