"""What background skipping would look at lies over the image before the run, where it belongs, and goes by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.widgets import plan
from napari_tileseg.widgets.refine.preview import is_preview
from napari_tileseg.widgets.states import Phase
from napari_tileseg.widgets.tissue import NAME

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (600, 800)
CELLS = (slice(150, 320), slice(240, 560))


def slide(*, planes: int = 0) -> np.ndarray:
    rng = np.random.default_rng(0)
    image = rng.normal(10, 1, (max(planes, 1), *SHAPE)).astype(np.float32)
    for number, plane in enumerate(image):
        rows = slice(CELLS[0].start + 40 * number, CELLS[0].stop + 40 * number)
        plane[rows, CELLS[1]] += rng.random((rows.stop - rows.start, CELLS[1].stop - CELLS[1].start)).astype(np.float32) * 200 + 50
    return image if planes else image[0]


def opened(desk: Callable[..., Any], image: np.ndarray, model: str = "small-classes", **place: Any) -> Any:
    here = desk()
    here.viewer.add_image(image, name="slide", **place)
    assert here.dock.form.model.choose(model)
    here.dock.form.options.widgets["skip_background"].value = True
    return here


def preview(here: Any) -> Any:
    return next((layer for layer in here.viewer.layers if layer.name == NAME), None)


def test_it_lies_where_the_tissue_is_and_goes_when_the_run_starts(desk: Callable[..., Any]) -> None:
    here = opened(desk, slide(), scale=(0.5, 0.25), translate=(10, 20), rotate=30)
    here.until(lambda: preview(here) is not None)
    layer, image = preview(here), here.viewer.layers["slide"]
    assert is_preview(layer)
    assert not layer.editable
    assert layer.opacity < 0.5
    assert here.dock.image is image
    for place, value in (((235, 400), 1), ((160, 250), 1), ((20, 20), 0), ((500, 700), 0)):
        assert layer.get_value(image.data_to_world(place), world=True) == value
    rows, columns = np.nonzero(np.asarray(layer.data))
    corners = [image.world_to_data(layer.data_to_world(place)) for place in ((rows.min(), columns.min()), (rows.max(), columns.max()))]
    np.testing.assert_allclose(corners, [(150, 240), (319, 559)], atol=20)  # there is a margin
    here.settle()
    assert "hold no tissue or cells" in here.box
    here.run()
    assert here.phase is Phase.DONE, here.session.state
    here.settle()
    assert preview(here) is None, "the run has shown it"


@pytest.mark.slow
def test_it_goes_when_nobody_wants_to_skip_and_comes_back(desk: Callable[..., Any]) -> None:
    here = opened(desk, slide())
    here.until(lambda: preview(here) is not None)
    here.dock.form.options.widgets["skip_background"].value = False
    here.until(lambda: preview(here) is None)
    here.dock.form.options.widgets["skip_background"].value = True
    here.until(lambda: preview(here) is not None)
    here.viewer.layers.remove(preview(here))
    here.dock.form.options.widgets["sigma"].value = 0.3  # another change does not bring back what the user has removed
    here.settle()
    here.qtbot.wait(300)
    assert preview(here) is None


def name_axes(here: Any, letters: str) -> None:
    here.dock.form.set_axes(letters)
    here.dock.form.axes_edited.emit()


def test_every_plane_has_its_own(desk: Callable[..., Any]) -> None:
    here = opened(desk, slide(planes=3))
    name_axes(here, "ZYX")
    here.until(lambda: preview(here) is not None)
    data = np.asarray(preview(here).data)
    assert len(data) == 3
    starts = [int(np.nonzero(plane)[0].min()) for plane in data]
    assert starts[0] < starts[1] < starts[2]


def test_of_many_planes_each_is_looked_at_when_it_is_in_view(desk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MOST_SAMPLES", 2)
    here = opened(desk, slide(planes=4))
    name_axes(here, "ZYX")
    here.viewer.dims.set_current_step(0, 1)
    here.until(lambda: preview(here) is not None)
    here.settle()
    assert "once it is in view" in here.box
    layer = preview(here)
    before = {number for number, mask in enumerate(layer.data) if mask.any()}
    assert before < {0, 1}
    here.viewer.dims.set_current_step(0, 3)
    here.until(lambda: layer.data[3].any())
    assert preview(here) is layer
    assert {number for number, mask in enumerate(layer.data) if mask.any()} == before | {3}, "the others wait"
    here.viewer.layers.remove(layer)
    here.viewer.dims.set_current_step(0, 2)
    here.qtbot.wait(400)
    assert preview(here) is None, "who has removed it is not shown it again"


@pytest.mark.parametrize("rgb", [False, True])
def test_channels_are_no_axis_of_it(desk: Callable[..., Any], rgb: bool) -> None:
    image = np.stack([slide()] * 3, -1 if rgb else 0)
    here = opened(desk, image.clip(0, 255).astype(np.uint8), "nuclei-2d" if rgb else "small-classes", rgb=rgb)
    if not rgb:
        name_axes(here, "CYX")
    here.until(lambda: preview(here) is not None)
    assert preview(here).ndim == 2
