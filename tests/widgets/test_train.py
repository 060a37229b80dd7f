"""The Train dock in a real viewer, with real trainings of a second: from open layers to a model in Segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.models.registry import list_models
from napari_tileseg.widgets.segment import dock_of
from napari_tileseg.widgets.states import Action, Phase
from napari_tileseg.widgets.train.pairs import OURS

if TYPE_CHECKING:
    from collections.abc import Callable


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
    here.dock.results.picked.emit(name)
    here.until(lambda: len(here.viewer.layers) == len(before) + 1)
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
