"""The demo: real images, honest scores above a floor, files that say what they are, and no window where nobody looks."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_tileseg import cli, demo
from napari_tileseg.demo import Outcome, gallery_command, may_show, run_demo
from napari_tileseg.errors import OutputError, WeightsError
from napari_tileseg.io import read_volume
from napari_tileseg.io.samples import SAMPLES, Sample, sample

FLOORS = {
    "nuclei-fluorescence": {"AP at IoU 0.5": 0.90},
    "nuclei-histology": {"AP at IoU 0.5": 0.52},
    "hippocampus-mri": {"Dice anterior": 0.87, "Dice posterior": 0.87},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome], list[str]]:
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    lines: list[str] = []
    return folder, run_demo(folder, say=lines.append), lines


def test_scores_are_above_the_floor(finished: tuple[Path, list[Outcome], list[str]]) -> None:
    _, outcomes, _ = finished
    assert [outcome.key for outcome in outcomes] == [item.key for item in SAMPLES]
    for outcome in outcomes:
        assert not outcome.error
        for name, floor in FLOORS[outcome.key].items():
            assert outcome.scores[name] >= floor, f"{outcome.key}: {name} is {outcome.scores[name]:.3f}"


def test_labels_lie_on_their_images(finished: tuple[Path, list[Outcome], list[str]]) -> None:
    folder, outcomes, _ = finished
    for outcome in outcomes:
        image, reference = sample(outcome.key)
        labels = read_volume(outcome.labels)
        assert Path(outcome.labels).parent == folder
        assert labels.shape == reference.shape
        np.testing.assert_array_equal(labels.affine, image.drop("C")[1])
        assert labels.metadata["provenance"]["model"]["name"] == outcome.model


def test_other_programs_open_the_labels(finished: tuple[Path, list[Outcome], list[str]]) -> None:
    _, outcomes, _ = finished
    with tifffile.TiffFile(outcomes[0].labels) as tif:
        assert tif.is_ome
        assert len(np.unique(tif.asarray())) - 1 == outcomes[0].found["objects"]
    written = nibabel.load(outcomes[2].labels)
    assert written.shape == (35, 52, 34)
    assert written.header.get_xyzt_units()[0] == "mm"


def test_overlays_are_pictures_with_outlines(finished: tuple[Path, list[Outcome], list[str]]) -> None:
    _, outcomes, _ = finished
    for outcome in outcomes:
        with Image.open(outcome.overlay) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 500
            colours = np.asarray(picture).reshape(-1, 3).astype(int)
        saturation = colours.max(axis=1) - colours.min(axis=1)
        assert (saturation > 150).mean() > 0.003


def test_everything_is_printed(finished: tuple[Path, list[Outcome], list[str]]) -> None:
    folder, outcomes, lines = finished
    text = "\n".join(lines)
    for outcome in outcomes:
        assert outcome.title in text
        assert outcome.labels in text
        assert outcome.overlay in text
        for name, value in outcome.scores.items():
            assert f"{name} {value:.3f}" in text
    assert "no medical device" in text
    assert str(folder) in text


def test_a_sample_that_fails_is_named_and_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def one(item: Sample, folder: Path, loaded: dict[str, object]) -> Outcome:
        if item is SAMPLES[0]:
            raise WeightsError("The weights are damaged.")
        return Outcome(item.key, item.title, item.model)

    monkeypatch.setattr(demo, "_run_sample", one)
    outcomes = run_demo(tmp_path)
    assert [outcome.error for outcome in outcomes] == ["The weights are damaged.", "", ""]
    with pytest.raises(SystemExit) as end:
        cli.main(["demo", "-o", str(tmp_path), "--no-view"])
    assert end.value.code == 1


def test_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "_run_sample", lambda item, folder, loaded: Outcome(item.key, item.title, item.model))
    with pytest.raises(SystemExit) as end:
        cli.main(["demo", "-o", str(tmp_path), "--json"])
    assert end.value.code == 0
    assert [json.loads(line)["key"] for line in capsys.readouterr().out.splitlines()] == [item.key for item in SAMPLES]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="could not be made"):
        run_demo(tmp_path / "file" / "folder")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Pretend that somebody sits at a terminal on a computer with a screen."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: object())
    return monkeypatch


def test_napari_opens_where_somebody_looks(screen: pytest.MonkeyPatch) -> None:
    assert may_show(None) == ""
    assert may_show(True) == ""


def test_napari_stays_closed_where_nobody_looks(screen: pytest.MonkeyPatch) -> None:
    assert "Open Sample" in may_show(False)
    with screen.context() as patch:
        patch.setenv("CI", "true")
        assert may_show(None)
        assert may_show(True) == ""
    with screen.context() as patch:
        patch.setattr(sys.stdout, "isatty", lambda: False)
        assert may_show(None)
        assert may_show(True) == ""
    with screen.context() as patch:
        patch.delenv("DISPLAY")
        patch.delenv("WAYLAND_DISPLAY", raising=False)
        assert "no screen" in may_show(True)
    with screen.context() as patch:
        patch.setattr(demo.importlib.util, "find_spec", lambda name: None)
        assert "Qt binding" in may_show(None)


def test_the_window_is_a_process_of_its_own() -> None:
    assert gallery_command(Path("there")) == [sys.executable, "-m", "napari_tileseg.widgets.gallery", "there"]


@pytest.mark.parametrize("item", SAMPLES, ids=lambda item: item.key)
def test_the_viewer_shows_a_sample_and_its_result(finished: tuple[Path, list[Outcome], list[str]], item: Sample) -> None:
    components = pytest.importorskip("napari.components")
    from napari_tileseg.widgets.gallery import add_result

    viewer = components.ViewerModel()
    add_result(viewer, finished[0], item.key)
    assert [(layer.name, layer.visible) for layer in viewer.layers] == [
        (f"{item.name}_reference", False),
        (item.name, True),
        (f"{item.name}_labels", True),
    ]
    assert viewer.layers.selection.active.name == item.name
    labels, reference = viewer.layers[2], viewer.layers[0]
    np.testing.assert_array_equal(labels.extent.world, reference.extent.world)
    assert labels.metadata["tileseg"]["model"]["name"] == item.model
