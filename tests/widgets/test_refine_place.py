"""Where the Refine dock acts: in oblique volumes, in regions of larger images, in any order of the axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from napari.components import ViewerModel
from napari.layers import Image, Labels, Shapes
from napari.utils.transforms import Affine
from qtpy.QtCore import Qt

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.io import read_volume
from napari_tileseg.io.samples import sample
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.registry import find_spec
from napari_tileseg.pipeline import segment
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.objects import merge
from napari_tileseg.widgets.refine.place import place_of
from napari_tileseg.widgets.refine.saving import volume_of, writer_of
from napari_tileseg.widgets.refine.steps import Steps
from napari_tileseg.widgets.refine.subject import image_beside, origin_in, pixels_of
from napari_tileseg.widgets.regions import rectangles
from napari_tileseg.widgets.shown import drawn_at, is_oblique, shown_at

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing:UserWarning")


def turned(*degrees: float, at: tuple[float, float, float] = (30, -60, 44), scale: float = 1.0) -> NDArray[Any]:
    """Return the matrix of a volume turned about its last axis and then its first, as MRI scanners tilt their slices."""
    (a, b), matrix = np.deg2rad(degrees), np.eye(4)
    first = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    second = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix[:3, :3], matrix[:3, 3] = second @ first * scale, at
    return matrix


ANGLES = st.floats(-40, 40)


@given(ANGLES, ANGLES, st.permutations([0, 1, 2]), st.tuples(*[st.floats(-20, 20)] * 3))
def test_a_place_is_drawn_where_it_is_shown(a: float, b: float, order: list[int], pixel: tuple[float, ...]) -> None:
    layer = Labels(np.zeros((4, 5, 6), np.uint8), affine=turned(a, b, scale=0.7))
    shown = [axis + 1 for axis in order[-2:]]
    place = drawn_at(layer, pixel, shown, 4)  # another layer has one more axis
    assert place.shape == (4,)
    np.testing.assert_allclose(shown_at(layer, place, shown), pixel, atol=1e-9)


def test_what_lies_straight_is_shown_where_it_lies() -> None:
    layer = Labels(np.zeros((4, 5, 6), np.uint8), scale=(3, 2, 1), translate=(7, 8, 9))
    assert not is_oblique(layer)
    assert is_oblique(Labels(np.zeros((4, 5, 6), np.uint8), affine=turned(10, 0)))
    np.testing.assert_allclose(shown_at(layer, (13, 10, 12), (1, 2)), layer.world_to_data((13, 10, 12)))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_a_step_in_an_oblique_layer_changes_what_it_says_and_nothing_else(order: tuple[int, ...]) -> None:
    viewer = ViewerModel()
    labels = np.zeros((30, 40, 35), np.uint8)
    labels[3:25, 5:35, 4:30] = 1
    labels[10:20, 10:20, 10:20] = 2
    layer = viewer.add_labels(labels.copy(), affine=turned(15, 10))
    viewer.dims.order = order
    steps = Steps(layer, lambda edit, way: None)
    canvas = Canvas(layer.data, space=(0, 1, 2))
    edit = merge(canvas, [1, 2])
    wanted = np.where(labels == 2, 1, labels)
    for step in range(0, int(viewer.dims.nsteps[order[0]]), 5):
        viewer.dims.set_current_step(order[0], step)
        steps.do(edit)
        np.testing.assert_array_equal(layer.data, wanted)
        steps.undo()
        np.testing.assert_array_equal(layer.data, labels)


def test_a_rectangle_means_what_is_drawn_in_it() -> None:
    viewer = ViewerModel()
    layer = viewer.add_labels(np.zeros((30, 40, 35), np.uint8), affine=turned(0, 12))
    viewer.dims.order = (1, 0, 2)
    corners = [drawn_at(layer, (z, 20, x), viewer.dims.displayed, 3) for z, x in ((5, 8), (5, 25), (20, 25), (20, 8))]
    axis_map = map_axes("ZYX", (30, 40, 35), find_spec("hippocampus-3d"))
    shapes = Shapes([np.array(corners) / (2.0, 1.0, 0.5)], shape_type="rectangle", scale=(2.0, 1.0, 0.5))
    (region,) = rectangles(shapes, layer, axis_map, viewer.dims.displayed, 3)
    assert (region[0], region[2]) == ((5, 21), (8, 26)), "with the pixels on its sides"


def test_labels_of_a_region_find_their_place_in_the_image() -> None:
    data = np.random.default_rng(0).integers(0, 255, (3, 60, 80)).astype(np.uint8)
    matrix = turned(0, 0, scale=0.5)[1:, 1:]
    offset = np.eye(3)
    offset[:2, 2] = (10, 30)
    labels = Labels(np.zeros((20, 25), np.uint8), affine=matrix @ offset)
    grey = Image(data[0], affine=matrix, name="grey")
    colours = Image(np.moveaxis(data, 0, -1), rgb=True, affine=matrix)
    pyramid = Image([data[0], data[0, ::2, ::2]], multiscale=True, affine=matrix)
    first = np.eye(4)
    first[1:, 1:] = matrix
    channels = Image(data, rgb=False, affine=first)
    for image in (grey, colours, pyramid, channels):
        assert origin_in(image, labels) == (10, 30)
    np.testing.assert_array_equal(pixels_of(pyramid, labels)[2:5, ::3], data[0, 12:15, 30:55:3])
    np.testing.assert_array_equal(pixels_of(channels, labels)[2:5, 4:9], data[0, 12:15, 34:39])
    np.testing.assert_array_equal(pixels_of(colours, labels)[2:5, 4:9], np.moveaxis(data, 0, -1)[12:15, 34:39])
    same = Image(np.zeros((20, 25)), name="same")
    assert image_beside(labels, [grey, labels, same]) is same, "one of their own size goes first"
    assert image_beside(labels, [grey, labels]) is grey
    beside = Labels(np.zeros((20, 25), np.uint8), affine=matrix @ np.array([[1, 0, 50], [0, 1, 30], [0, 0, 1]]))
    between = Labels(np.zeros((20, 25), np.uint8), affine=matrix @ np.array([[1, 0, 10.4], [0, 1, 30], [0, 0, 1]]))
    assert origin_in(grey, beside) is None
    assert origin_in(grey, between) is None


def test_the_place_in_a_region_reaches_beyond_it_for_context_only() -> None:
    axis_map = map_axes("YX", (100, 120), find_spec("nuclei-2d"))
    place = place_of(Canvas(np.zeros((40, 50), np.uint16)), axis_map, ((0, 20), (30, 50)), (64, 64), origin=(10, 60))
    assert place.inner == (slice(0, 20), slice(30, 50))
    assert place.region == ((0, 46), (74, 120)), "16 pixels more, up to the border of the image"
    assert place.replaced == ((10, 30), (90, 110))
    assert place.box == (slice(0, 36), slice(14, 50)), "what of it lies in the labels"
    assert place.cut == (slice(10, 46), slice(0, 36))


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_a_part_of_an_oblique_volume_again(refine: Callable[..., Any], tmp_path: Path, order: tuple[int, ...]) -> None:
    here = refine()
    volume, _ = sample("hippocampus-mri")
    found = segment(volume, "hippocampus-3d", options=SegmentOptions(scores=False))
    told, before = found.provenance, np.asarray(found.labels)
    place = {"affine": Affine(affine_matrix=turned(15, 10)), "units": ("mm",) * 3, "axis_labels": ("Z", "Y", "X")}
    here.viewer.add_image(np.asarray(volume.data), name="image", **place)
    features = {"index": [0, 1, 2], "class": list(found.classes)}
    here.add(before.copy(), name="result", metadata={"tileseg": told}, features=features, **place)
    here.viewer.dims.order = order
    (again,) = [item for item in here.dock.folds if item.title == "Here again"]
    again.open()
    here.qtbot.mouseClick(again.draw, Qt.MouseButton.LeftButton)
    shapes = here.viewer.layers.selection.active
    assert (str(shapes.mode), again.where.value) == ("add_rectangle", "rectangles")
    rows, columns = ((4, 30), (5, 45)) if order[0] else ((5, 45), (4, 30))
    near = [0.0] * 3
    near[order[0]] = here.session.deeds.looked_at(here.session.work)[order[0]]
    corners = []
    for row, column in ((0, 0), (0, 1), (1, 1), (1, 0)):
        near[order[1]], near[order[2]] = rows[row], columns[column]
        corners.append(shapes.world_to_data(drawn_at(here.layer, near, order[1:], 3)))
    shapes.add_rectangles([np.array(corners)])
    here.session.attempt(lambda: merge(here.session.work.canvas, [1, 2]))
    again.first.setValue(12)
    again.last.setValue(20)
    again.overlap.setValue(0.75)
    here.qtbot.mouseClick(again.button, Qt.MouseButton.LeftButton)
    here.settle()
    assert "Changed" in here.text
    box = [slice(None)] * 3
    for axis, (start, stop) in zip(order, ((12, 21), rows, columns), strict=True):
        box[axis] = slice(start, stop)
    assert (here.data[tuple(box)] == before[tuple(box)]).mean() > 0.98, "other tiles were looked at"
    assert (here.data[tuple(box)] == 2).any()
    (part,) = here.layer.metadata["tileseg"]["again"]
    assert part["region"][order[0]] == [12, 21]
    assert part["model"]["weights_sha256"] == told["model"]["weights_sha256"]
    assert part["options"]["overlap"] == 0.75
    path = writer_of(here.layer, volume_of(here.layer, here.session.segment), tmp_path / "labels.nii.gz", None, {})()
    saved = read_volume(path).metadata["provenance"]
    assert saved["again"] == [part]
    here.press("Control-Z")
    assert "again" not in here.layer.metadata["tileseg"]
    here.press("Control-Shift-Z")
    assert here.layer.metadata["tileseg"]["again"] == [part]
