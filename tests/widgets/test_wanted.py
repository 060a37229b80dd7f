"""The model that somebody has chosen stays the choice where it fits; one that an image has chosen goes with the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.widgets.batch.recipe import segment_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

PLANE = np.random.default_rng(0).normal(size=(40, 48)).astype(np.float32)
VOLUME = np.random.default_rng(0).normal(size=(20, 24, 22)).astype(np.float32)


def choose(here: Any, name: str) -> None:
    """Pick a model as the mouse does."""
    assert here.dock.form.model.choose(name)
    assert here.dock.form.model.value == name


def test_a_model_that_was_chosen_before_an_image_was_open_is_kept(desk: Callable[..., Any]) -> None:
    here = desk()
    choose(here, "small-classes")
    here.viewer.add_image(PLANE)
    assert here.dock.form.model.value == "small-classes"


def test_an_image_that_is_gone_leaves_no_model_to_a_batch(desk: Callable[..., Any]) -> None:
    here = desk()
    choose(here, "nuclei-2d")
    assert not segment_recipe(here.session).free, "somebody has chosen it"
    here.viewer.add_image(VOLUME, axis_labels=("z", "y", "x"), scale=(1, 1, 1), units="mm")
    assert here.dock.form.model.value == "hippocampus-3d", "only this one fits"
    here.viewer.layers.clear()
    assert segment_recipe(here.session).free, "whatever the batch finds may ask for another model"
