"""Whatever is put in: one clear sentence, nothing lost, and the next run works."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.errors import OutputError
from napari_tileseg.io import read_volume
from napari_tileseg.widgets import bridge
from napari_tileseg.widgets import save as saving
from napari_tileseg.widgets.states import Action, Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOISE = np.random.default_rng(1).normal(size=(40, 48)).astype(np.float32)


def is_sentence(text: str) -> bool:
    return bool(re.fullmatch(r"\S.*[.?]", text, re.DOTALL)) and "Error" not in text and "Traceback" not in text


def said(here: Any) -> str:
    """Everything that stands in the way of a run."""
    form = here.dock.form
    boxes = (form.question, form.options_problem, form.where_problem)
    return " ".join(box.shown.text for box in boxes if box.shown is not None)


def test_nothing_is_open(desk: Callable[..., Any]) -> None:
    here = desk()
    assert not here.dock.button.isEnabled()
    assert here.text == "No image is open."
    here.dock.segment()
    here.dock.segment_active()
    assert here.phase is Phase.NONE


@pytest.mark.parametrize("kind", ["points", "labels", "shapes"])
def test_another_kind_of_layer(desk: Callable[..., Any], kind: str) -> None:
    here = desk()
    {"points": here.viewer.add_points, "shapes": here.viewer.add_shapes, "labels": here.viewer.add_labels}[kind](
        np.zeros((4, 4), np.uint8) if kind == "labels" else None, name="mine"
    )
    here.until(lambda: here.box == f'"mine" is a {kind.title()} layer; images can be segmented. Open an image.')
    assert not here.dock.button.isEnabled()
    image = here.viewer.add_image(NOISE, name="noise")
    here.viewer.layers.selection.active = here.viewer.layers["mine"]
    assert here.dock.image is image, "the image stays chosen while another layer is active"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # napari divides by the size of an image without pixels
def test_what_cannot_be_an_image(desk: Callable[..., Any]) -> None:
    here = desk()
    taken = 0
    for data, words in (
        (np.zeros((0, 5), np.float32), "is empty"),
        (np.zeros((2,) * 6, np.float32), "6 dimensions; 2 to 5 are accepted"),
        (np.zeros((4, 5), np.complex64), "complex64"),
    ):
        try:
            here.viewer.add_image(data, name="odd", contrast_limits=(0, 1))
        except (TypeError, ValueError, OverflowError, NotImplementedError):
            here.viewer.layers.clear()
            continue  # napari itself does not take it
        taken += 1
        here.dock.form.model.choose("small-classes")
        assert words in said(here)
        assert is_sentence(said(here)), said(here)
        assert not here.dock.button.isEnabled()
        here.viewer.layers.clear()
    assert taken


def test_a_line_of_pixels(desk: Callable[..., Any]) -> None:
    here = desk()
    layer = here.viewer.add_image(NOISE, name="noise")
    here.dock.form.model.choose("small-classes")
    here.dock.form.axes.setText("X")
    here.dock.form.axes_edited.emit()
    assert "name 1" in said(here)
    assert is_sentence(said(here))
    assert layer in here.viewer.layers


def test_wrong_channels(desk: Callable[..., Any]) -> None:
    here = desk()
    here.viewer.add_image(NOISE, name="grey")
    here.dock.form.model.choose("small-pair")
    assert said(here) == "small-pair needs 2 channels (nuclei, membrane); the image has 1. Choose another model or image."
    assert not here.dock.button.isEnabled()
    here.dock.form.model.choose("small-classes")
    assert said(here) == ""
    assert here.dock.button.isEnabled()


def test_an_ambiguous_axis_is_asked_for(desk: Callable[..., Any]) -> None:
    here = desk()
    here.viewer.add_image(np.stack([NOISE] * 12), name="stack")
    form = here.dock.form
    form.model.choose("small-classes")
    assert form.axes.text() == "? Y X"
    assert form.question.text.text() == "What is the first axis (12 entries)?"
    assert form.question.links.shown == (Action.TIME, Action.DEPTH, Action.CHANNELS)
    assert not here.dock.button.isEnabled()
    assert here.box == "Waiting for the meaning of the first axis."
    here.follow(Action.TIME)
    assert form.axes.text() == "T Y X"
    assert form.question.shown is None
    assert "T = 12 frames" in form.mapping.text()
    assert here.dock.button.isEnabled()
    here.viewer.add_image(NOISE, name="other")
    here.viewer.layers.selection.active = here.viewer.layers["stack"]
    assert form.axes.text() == "T Y X", "the answer is remembered"


def test_options_that_do_not_fit(desk: Callable[..., Any]) -> None:
    here = desk()
    here.viewer.add_image(NOISE, name="noise")
    form = here.dock.form
    form.model.choose("nuclei-2d")
    form.options.set_window("250")
    assert form.options_problem.text.text() == "Window 250 is no multiple of 32. Use 256."
    assert here.box == "Waiting for a change in Options."
    assert not here.dock.button.isEnabled()
    form.options.reset_button.click()
    assert form.options_problem.shown is None
    assert here.dock.button.isEnabled()


def test_every_kind_of_number_is_segmented(desk: Callable[..., Any]) -> None:
    """One dock, one process, many images: the same result as in this process, or a sentence."""
    from napari_tileseg.pipeline import segment

    here = desk()
    scaled = ((NOISE - NOISE.min()) * 50).astype(np.float32)
    nan = NOISE.copy()
    nan[3, 4], nan[5, 6] = np.nan, np.inf
    images = {
        "bool": NOISE > 0,
        "int64": scaled.astype(np.int64),
        "uint32": scaled.astype(np.uint32),
        "float16": NOISE.astype(np.float16),
        "float64": NOISE.astype(np.float64),
        "big-endian": NOISE.astype(">f4"),
        "one pixel": np.ones((1, 1), np.float32),
        "constant": np.full((40, 48), 7, np.uint8),
        "not finite": nan,
        "negative strides": NOISE[::-1, ::2],
    }
    for name, data in images.items():
        here.viewer.add_image(data, name=name, contrast_limits=(0, 1))
        here.dock.form.model.choose("small-classes")
        here.run()
        assert here.phase is Phase.DONE, (name, here.session.state)
        assert is_sentence(here.text), (name, here.text)
        expected = segment(here.session.order.volume, "small-classes").labels
        np.testing.assert_array_equal(here.labels.data, expected, err_msg=name)
    told = {name: here.viewer.layers[f"{name}_small-classes"].metadata["tileseg"]["warnings"] for name in images}
    assert "2 values are NaN or infinite. They count as 0." in told["not finite"]
    assert told["constant"]
    assert not told["float64"]


def test_damaged_and_missing_weights(desk: Callable[..., Any], small_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("broken", "missing"):
        shutil.copytree(small_models / "small-classes", tmp_path / name)
        model = tmp_path / name / "model.json"
        model.write_text(model.read_text().replace("small-classes", name))
    (tmp_path / "broken" / "weights.safetensors").write_bytes(b"no weights")
    (tmp_path / "missing" / "weights.safetensors").unlink()
    shutil.copytree(small_models / "small-classes", tmp_path / "small-classes")
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path))
    bridge.close_supervisor()  # the process has its own environment
    here = desk()
    here.viewer.add_image(NOISE, name="noise")
    for name in ("broken", "missing"):
        assert here.dock.form.model.choose(name)
        here.run()
        assert here.phase is Phase.FAILED, here.session.state
        assert is_sentence(here.text), here.text
        assert Action.HELP in here.dock.message.shown.links
        assert [layer.name for layer in here.viewer.layers] == ["noise"]
    here.dock.form.model.choose("small-classes")
    here.run()
    assert here.phase is Phase.DONE, "the next run works"
    bridge.close_supervisor()


def test_saving(desk: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = desk()
    here.viewer.add_image(NOISE, name="noise")
    here.dock.form.model.choose("small-classes")
    here.run()
    asked: list[str] = []
    target = tmp_path / "noise.ome.tif"
    answers = {"path": target, "replace": False}
    monkeypatch.setattr(saving, "ask_path", lambda parent, start: asked.append(start) or answers["path"])
    monkeypatch.setattr(saving, "confirm_overwrite", lambda parent, path: answers["replace"])

    def save() -> None:
        here.follow(Action.SAVE)
        here.until(lambda: not here.text.startswith("Saving"))

    save()
    assert asked == ["noise_small-classes.ome.tif"]
    assert here.text == "Saved as noise.ome.tif."
    first = target.read_bytes()
    here.labels.data[0] = 2
    save()
    assert target.read_bytes() == first, "a file that is there is asked for, and left"
    answers["replace"] = True
    save()
    np.testing.assert_array_equal(np.asarray(read_volume(target).data), here.labels.data)

    (tmp_path / "folder.ome.tif").mkdir()
    refused = (("nowhere/x.ome.tif", "does not exist"), ("x.docx", "cannot be saved as"), ("folder.ome.tif", "is a folder"))
    for name, words in refused:
        answers["path"] = tmp_path / name
        save()
        assert words in here.text
        assert is_sentence(here.text), here.text
        assert here.dock.message.shown.kind == "error"

    def full(*_: Any, **__: Any) -> None:
        raise OutputError("The disk is full. Free some space.")

    monkeypatch.setattr(saving, "write_labels", full)
    answers["path"] = tmp_path / "other.ome.tif"
    save()
    assert here.text == "The disk is full. Free some space."
    assert here.labels in here.viewer.layers
    answers["path"] = None
    before = here.text
    here.follow(Action.SAVE)
    assert here.text == before, "a dialog that was closed changes nothing"


def test_a_scratch_disk_without_room(desk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    here = desk()
    here.viewer.add_image(NOISE, name="noise")
    here.dock.form.model.choose("small-classes")

    def refuse(*_: Any, **__: Any) -> None:
        raise OutputError("Needs 31 GB on /data; 12 GB are free. Choose another folder.")

    monkeypatch.setattr(bridge.supervisor(), "start", refuse)
    here.click()
    assert here.text == "Needs 31 GB on /data; 12 GB are free. Choose another folder."
    assert here.dock.button.text() == "Segment"
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("chosen", "picked", "path"),
    [
        ("labels", "NIfTI (*.nii.gz)", "labels.nii.gz"),
        ("labels", "OME-TIFF (*.ome.tif)", "labels.ome.tif"),
        ("labels", "OME-Zarr (*.ome.zarr)", "labels.ome.zarr"),
        ("labels", "OME-Zarr 0.4 (*.0.4.ome.zarr)", "labels.0.4.ome.zarr"),
        ("labels", "GeoJSON for QuPath (*.geojson)", "labels.geojson"),
        ("labels.nii", "OME-TIFF (*.ome.tif)", "labels.nii"),
        ("labels.png", "All files (*)", "labels.png"),
        ("labels.docx", "All files (*)", "labels.docx"),
    ],
)
def test_names_are_completed(chosen: str, picked: str, path: str) -> None:
    assert str(saving.complete_path(chosen, picked)) == path


@pytest.mark.parametrize(("metadata", "suffix"), [({}, ".ome.tif"), ({"format": "nifti"}, ".nii.gz"), ({"suffix": ".nii"}, ".nii.gz")])
def test_the_format_follows_the_input(metadata: dict[str, str], suffix: str) -> None:
    from napari_tileseg.volume import Volume

    volume = Volume(np.zeros((3, 4)), "YX", metadata=metadata)
    assert saving.default_name(volume, "a/b: c") == f"a_b_ c{suffix}"
