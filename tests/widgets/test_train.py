"""The Train dock in a real viewer, with real trainings of a second: from open layers to a model in Segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import Qt
from train_desk import scene

from napari_tileseg.models.registry import list_models
from napari_tileseg.widgets.segment import dock_of
from napari_tileseg.widgets.states import Action, Phase
from napari_tileseg.widgets.train.rows import OURS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_from_open_layers_to_segment(train: Callable[..., Any]) -> None:
    here = train(show=True)
    assert not here.dock.button.isEnabled()
    assert "Open images" in here.dock.box.label.text()
    here.open_pairs(4)
    here.until(lambda: len(here.form.pairs.rows) == 4)
    assert [combo.currentText() for combo, _ in here.form.pairs.rows] == [f"field {number} + labels" for number in (3, 2, 1, 0)]
    here.make_small()
    here.start()
    assert "3 images to learn from, 1 to validate on." in here.form.report.text()
    assert here.dock.setup.inside == "4 pairs → my-model"
    here.finish()
    assert here.text.startswith("my-model is ready, Dice ")
    assert "my-model" in [spec.name for spec in list_models()]
    assert len(here.dock.curves.scores) == 2
    assert here.dock.curves.losses[-1][0] == 2
    [name] = here.dock.results.names
    before = list(here.viewer.layers)
    here.viewer.layers[name].visible = False
    place = here.dock.results.visualItemRect(here.dock.results.item(0, 0)).center()
    here.qtbot.mouseClick(here.dock.results.viewport(), Qt.MouseButton.LeftButton, pos=place)
    here.until(lambda: len(here.viewer.layers) == len(before) + 1)
    assert {layer.name for layer in here.viewer.layers if layer.visible} == {name, f"{name}_labels", f"{name}_prediction"}
    made = here.viewer.layers[f"{name}_prediction"]
    image = here.viewer.layers[name]
    assert made.data.shape == image.data.shape
    assert made.metadata[OURS] == name
    assert len(here.form.pairs.rows) == 4, "what the model makes of an image is no example"
    here.follow(Action.USE)
    assert dock_of(here.viewer).spec.name == "my-model"
    here.click()
    assert here.phase is Phase.NONE
    assert here.form.name.text() == "my-model-2"


@pytest.mark.slow
def test_pause_stop_and_go_on(train: Callable[..., Any]) -> None:
    here = train(show=True)
    here.open_pairs(3)
    here.until(lambda: len(here.form.pairs.rows) == 3)
    here.make_small(epochs=400, steps=2)
    here.start()
    here.until(lambda: here.session.state.best_epoch >= 1)
    here.click()
    assert here.dock.button.text() == "Resume"
    here.qtbot.wait(500)  # the step under way ends
    done = here.session.state.done
    here.qtbot.wait(500)
    assert here.session.state.done == done, "nothing is learnt meanwhile"
    here.click()
    here.until(lambda: here.session.state.done > done)
    here.click(here.dock.second)
    here.finish(Phase.CANCELLED)
    assert "is kept" in here.text
    assert "my-model" in [spec.name for spec in list_models()]
    epoch = here.session.curve.scores[-1][0]
    here.click()
    here.until(lambda: here.session.curve.scores[-1][0] > epoch)
    here.click(here.dock.second)
    here.finish(Phase.CANCELLED)
    assert [point[0] for point in here.session.curve.scores] == list(range(1, len(here.session.curve.scores) + 1)), "it went on from there"


@pytest.mark.slow
def test_folders_and_what_does_not_go_together(train: Callable[..., Any], tmp_path: Path) -> None:
    for kind, place in (("images", 0), ("labels", 1)):
        (tmp_path / kind).mkdir()
        for number in range(3):
            array = scene(number)[place]
            tifffile.imwrite(tmp_path / kind / f"cell_{number}.tif", array.astype(np.uint8) if place else array)
    here = train(show=True)
    here.form.source.choose("folder")
    here.form.images.write(str(tmp_path / "images"))
    here.form.labels.write(str(tmp_path / "nowhere"))
    here.settle()
    assert "nowhere" in here.problem
    here.form.labels.write(str(tmp_path / "labels"))
    here.make_small()
    here.set(epochs="many")
    here.settle()
    assert "Epochs, under Steps" in here.problem
    here.set(epochs="1")
    here.until(lambda: here.dock.button.isEnabled())
    assert here.problem == ""
    here.start()
    here.finish()
    here.dock.results.picked.emit(here.dock.results.names[0])
    here.until(lambda: len(here.layers) == 3)
    assert [name.partition("_")[2][1:] for name in here.layers] == ["", "_labels", "_prediction"]


@pytest.mark.slow
def test_sparse_labels_and_nonsense(train: Callable[..., Any]) -> None:
    here = train(show=True)
    image, labels = scene(1, 96)
    strokes = np.zeros_like(labels)
    strokes[::3] = labels[::3] + 1  # 1 is the background, 0 was never painted
    here.viewer.add_image(image, name="one")
    here.viewer.add_labels(strokes, name="one_strokes")
    here.until(lambda: len(here.form.pairs.rows) == 1)
    here.form.source.choose("sparse")
    here.make_small(epochs=1)
    here.settle()
    assert "Labelled: 33.3 % of all pixels." in here.form.report.text()
    assert "There is one image only" in here.form.warning.text.text()
    here.start()
    here.finish()
    here.dock.results.picked.emit(here.dock.results.names[0])
    here.until(lambda: len(here.layers) == 3)
    here.click()
    here.set(arguments="depths=3")
    here.settle()
    assert "depths" in here.problem
    here.viewer.layers.remove("one_strokes")
    here.until(lambda: not here.form.pairs.rows)
    assert here.problem == "" and not here.dock.button.isEnabled()
