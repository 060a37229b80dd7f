"""What the dock says before a run is what the run does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_tileseg.estimation import Estimate
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.widgets.choices import Choices, default_settings
from napari_tileseg.widgets.devices import Device
from napari_tileseg.widgets.plan import estimate_words, make_plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC = ModelSpec(name="planes", axes="CYX", channels=1, classes=["background", "thing"], window=(16, 24), orientation="SAR")
STRAIGHT = np.diag([1.0, -1.0, -1.0, 1.0])
"""Z to superior, Y to anterior, X to right."""


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")  # napari shows such volumes without their rotation
@pytest.mark.parametrize(
    ("order", "sentence", "window"),
    [
        ((0, 1, 2), "Y 30, X 40 → model Y X. Z = 20 planes, each by itself.", (16, 24)),
        ((1, 0, 2), "Z 30, X 40 → model Z X. Y = 20 planes, each by itself.", (16, 24)),
        ((2, 0, 1), "Z 40, X 30 → model Z X. Y = 20 planes, each by itself.", (24, 16)),
    ],
)
def test_planes_of_turned_volumes_are_named_as_the_volume_names_them(
    order: tuple[int, int, int], sentence: str, window: tuple[int, int]
) -> None:
    image: NDArray[np.float32] = np.zeros((20, 30, 40), np.float32).transpose(order)
    affine = STRAIGHT[:, [*order, 3]]
    layer = Image(image, affine=affine, units=("mm",) * 3)
    viewer = ViewerModel()
    viewer.add_layer(layer)
    plan = make_plan(viewer, layer, SPEC, Choices(SPEC.name, "ZYX", default_settings(SPEC)))
    assert plan.axis_map.sentence == sentence
    need = plan.estimate()
    assert (need.sentence, need.window) == (sentence, window), "the run itself says the same"


@pytest.mark.parametrize(("free", "short"), [(10**9, True), (10**12, False), (None, False)])
def test_a_run_that_needs_more_than_is_free_is_said(free: int | None, short: bool) -> None:
    need = Estimate(1, (100_000, 100_000), 520 * 10**9, 320 * 10**9, 10**9, "")
    assert ("more than is free" in estimate_words(need, Device("cpu", "CPU", free), None)) == short
