"""Labels of an earlier day, opened from their file, are made again from what they say of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.replay import read_provenance
from napari_tileseg.widgets.states import Action, Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOISE = np.random.default_rng(1).normal(size=(112, 48)).astype(np.float32)


def finished(desk: Callable[..., Any]) -> Any:
    """Segment an image with a window of its own."""
    here = desk()
    here.viewer.add_image(NOISE, name="noise")
    assert here.dock.form.model.choose("small-classes")
    here.dock.form.options.set_window("16")
    here.run()
    assert here.phase is Phase.DONE, here.text
    return here


def test_labels_from_a_file_are_made_again(desk: Callable[..., Any], tmp_path: Path) -> None:
    here = finished(desk)
    made = np.array(here.labels.data)
    saved = here.labels.save(str(tmp_path / "made.ome.tif"), plugin="napari-tileseg")
    assert saved
    here.viewer.layers.remove(here.labels)
    here.session.forget()
    assert here.dock.form.model.choose("small-objects")  # the form says something else meanwhile
    (opened,) = here.viewer.open(str(tmp_path / "made.ome.tif"), plugin="napari-tileseg")
    here.until(lambda: "was made from" in here.text)
    assert '"noise" with small-classes' in here.text
    here.follow(Action.LIKE_THIS)
    here.until(lambda: not here.session.active)
    assert here.phase is Phase.DONE, here.text
    assert here.session.order.job.options.window == (16, 16)
    assert here.labels is not opened
    np.testing.assert_array_equal(here.labels.data, made)


def test_another_layer_puts_the_offer_away(desk: Callable[..., Any]) -> None:
    here = finished(desk)
    copied = here.viewer.add_labels(np.array(here.labels.data), name="earlier", metadata=here.labels.metadata)
    here.until(lambda: '"earlier" was made from' in here.text)
    here.viewer.layers.selection.active = here.viewer.layers["noise"]
    here.until(lambda: "earlier" not in here.text)
    here.viewer.layers.selection.active = copied
    here.until(lambda: '"earlier" was made from' in here.text)


@pytest.mark.slow
def test_an_image_that_is_not_open_is_asked_for(desk: Callable[..., Any]) -> None:
    here = finished(desk)
    here.viewer.add_labels(np.array(here.labels.data), name="earlier", metadata=here.labels.metadata)
    here.until(lambda: '"earlier" was made from' in here.text)
    here.viewer.layers.remove(here.viewer.layers["noise"])
    here.until(lambda: '"earlier" was made from' in here.text)
    here.follow(Action.LIKE_THIS)
    assert 'The image "noise" of shape (112, 48) is not open. Open it, then run again.' in here.text


@pytest.mark.slow
def test_another_image_under_the_name_is_noticed(desk: Callable[..., Any]) -> None:
    here = finished(desk)
    here.viewer.layers["noise"].data = NOISE[::-1].copy()
    here.viewer.add_labels(np.array(here.labels.data), name="earlier", metadata=here.labels.metadata)
    here.until(lambda: '"earlier" was made from' in here.text)
    here.follow(Action.LIKE_THIS)
    here.until(lambda: not here.session.active)
    assert "its intensities differ" in here.text


def test_the_layer_knows_when_it_was_made_and_its_file_does_not(desk: Callable[..., Any], tmp_path: Path) -> None:
    here = finished(desk)
    assert set(here.labels.metadata["tileseg"]["run"]) == {"finished", "seconds"}
    here.labels.save(str(tmp_path / "made.ome.tif"), plugin="napari-tileseg")
    assert "run" not in read_provenance(tmp_path / "made.ome.tif")
