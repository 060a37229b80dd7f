"""Images alone become an anomaly model in the Train dock: a real viewer, real trainings of a few seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_tileseg.models.registry import list_models
from napari_tileseg.widgets.segment import dock_of
from napari_tileseg.widgets.states import Action, Phase
from napari_tileseg.widgets.train.rows import OURS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def texture(seed: int, side: int = 64) -> Any:
    rows, columns = np.mgrid[:side, :side]
    waves = 60 * np.sin(rows / 3 + seed) * np.sin(columns / 3)
    return np.clip(128 + waves + np.random.default_rng(seed).normal(0, 6, (side, side)), 0, 255).astype(np.uint8)


def choose(here: Any, **values: str) -> None:
    """Choose in the combos, and write into the lines, of a training without labels."""
    for name, value in values.items():
        for page in here.form.plain_pages.values():
            widget = page.widgets.get(name)
            if widget is not None and hasattr(widget, "choose"):
                widget.choose(value)
            elif widget is not None:
                widget.setText(value)
                widget.textEdited.emit(value)


@pytest.mark.slow
def test_from_open_images_to_an_anomaly_map(train: Callable[..., Any]) -> None:
    here = train(show=True)
    here.form.source.choose("images")
    assert "Open images" in here.dock.box.label.text()
    assert here.form.name.text() == "normal"
    for number in range(3):
        here.viewer.add_image(texture(number), name=f"wave {number}")
    here.until(lambda: len(here.form.plain.rows) == 3)
    assert here.form.pairs.isHidden() and here.form.start.isHidden()
    choose(here, network="vae", steps="60", batch="16", tile="30")
    here.settle()
    assert "2 images to learn from, 1 held out to set the threshold." in here.form.report.text()
    assert "60 steps; 16 tiles of 30 x 30 in a step." in here.dock.box.label.text()
    here.start()
    assert here.dock.setup.inside == "3 images → normal"
    here.finish()
    assert here.text.startswith("normal is ready.")
    curves = here.dock.curves
    assert [place for place, _ in curves.losses] == [20, 40, 60] and curves.measure == "Divergence"
    here.until(lambda: "normal_reconstruction" in here.layers)
    made = here.viewer.layers["normal_reconstruction"]
    assert made.metadata[OURS] == "normal" and made.data.shape == (4 * 32 - 2, 4 * 32 - 2)
    assert made.extent.world[0][1] > 63, "it lies beside the images"
    assert len(here.form.plain.rows) == 3, "what the model makes is no example"
    spec = next(spec for spec in list_models() if spec.name == "normal")
    assert spec.output == "anomaly" and 0 < spec.decoder_parameters["threshold"] < 1
    here.viewer.layers.selection.active = here.viewer.layers["wave 2"]
    here.follow(Action.USE)
    segment = dock_of(here.viewer)
    assert segment.spec.name == "normal" and segment.form.keep_scores.isChecked()
    segment.press()
    here.until(lambda: "wave 2_normal_anomaly map" in here.layers)
    here.until(lambda: not segment.session.state.phase.active)
    assert {"wave 2_normal", "wave 2_normal_anomaly map"} <= set(here.layers)
    assert here.viewer.layers["wave 2_normal_anomaly map"].data.shape == (64, 64)
    assert len(here.form.plain.rows) == 3, "an anomaly map is no example"


@pytest.mark.slow
def test_a_gan_from_a_folder_is_paused_stopped_and_goes_on(train: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "masks").mkdir()
    for number in range(3):
        tifffile.imwrite(tmp_path / "cells" / f"{number}.tif", texture(number))
        tifffile.imwrite(tmp_path / "masks" / f"{number}.tif", (texture(number) > 128).astype(np.uint8))
    here = train(show=True)
    here.form.source.choose("images")
    here.form.images.write(str(tmp_path / "cells"))
    assert here.form.plain.isHidden() and here.form.labels.isHidden()
    choose(here, network="lsgan", steps="20000", batch="4", encoder_steps="5")
    assert not here.form.labels.isHidden(), "a GAN can learn masks too"
    here.form.labels.write(str(tmp_path / "masks"))
    here.settle()
    assert "3 images with masks to learn from." in here.form.report.text(), here.problem
    here.start()
    here.until(lambda: len(here.dock.curves.losses) > 1)
    assert (here.dock.curves.title, here.dock.curves.measure) == ("Generator", "Discriminator")
    here.until(lambda: "normal_samples" in here.layers)
    assert here.viewer.layers["normal_samples"].metadata["synthetic"] is True
    here.click()
    here.qtbot.wait(300)
    done = here.session.state.done
    here.qtbot.wait(300)
    assert here.session.state.done == done and here.dock.progress.format().startswith("Paused in generator, step ")
    here.click(here.dock.second)
    here.finish(Phase.CANCELLED)
    assert here.text.startswith("Stopped. What was learnt so far is in normal. It makes images;")
    assert next(spec for spec in list_models() if spec.name == "normal").architecture == "paired_generator"
    here.click()
    here.until(lambda: here.session.state.done > done)
    here.click(here.dock.second)
    here.finish(Phase.CANCELLED)


@pytest.mark.parametrize(
    ("field", "text", "said"), [("tile", "29", "40 x 40"), ("steps", "many", "Steps: 'many' is not accepted"), ("median", "4", "odd")]
)
def test_what_cannot_be_is_said(train: Callable[..., Any], field: str, text: str, said: str) -> None:
    here = train()
    here.form.source.choose("images")
    here.viewer.add_image(texture(0), name="wave")
    choose(here, **{field: text})
    here.settle()
    assert said in here.problem
