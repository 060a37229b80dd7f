"""Shapes of objects: lengths are physical, borders are respected, others stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import convex_hull_image
from skimage.segmentation import expand_labels

from napari_tileseg.errors import OptionsError
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.near import clusters
from napari_tileseg.refine.scope import Scope
from napari_tileseg.refine.shape import convex_hull, fill_holes, grow, shrink, smooth

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SPACING = (2.0, 1.0, 0.5)


def test_holes_are_filled_and_what_lies_in_them_stays(ball: Callable[..., NDArray[np.bool_]]) -> None:
    shape = (20, 24, 28)
    outer, inner, core = (ball(shape, (10, 12, 14), radius) for radius in (8, 6, 2))
    labels = np.where(outer & ~inner, 5, 0).astype(np.uint8)
    labels[core] = 9
    canvas = Canvas(labels.copy())
    edit = fill_holes(canvas)
    assert edit.note == "Filled holes in 1 of 2 objects."
    canvas.apply(edit)
    np.testing.assert_array_equal(canvas.data, np.where(core, 9, np.where(outer, 5, 0)))


def test_a_hole_that_is_open_in_the_volume_is_closed_in_a_slice() -> None:
    labels = np.zeros((5, 9, 9), np.uint8)
    labels[:, 1:8, 1:8] = 3
    labels[:, 3:6, 3:6] = 0  # a tube
    canvas = Canvas(labels.copy())
    assert not fill_holes(canvas)
    canvas.apply(fill_holes(canvas, Scope.slice(0, 2)))
    assert (canvas.data[2, 1:8, 1:8] == 3).all()
    np.testing.assert_array_equal(canvas.data[[0, 1, 3, 4]], labels[[0, 1, 3, 4]])


def test_only_holes_up_to_a_size_are_filled() -> None:
    labels = np.zeros((12, 20), np.uint8)
    labels[1:11, 1:19] = 1
    labels[3:5, 3:5] = labels[4:8, 10:15] = 0
    canvas = Canvas(labels, spacing=(0.5, 0.5))
    canvas.apply(fill_holes(canvas, largest=1.0))
    assert labels[3:5, 3:5].all()
    assert not labels[4:8, 10:15].any()


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.3])
def test_growing_is_what_scikit_image_does_with_the_spacing(scene: Callable[..., NDArray[Any]], distance: float) -> None:
    labels = scene((8, 20, 26), 6, seed=2)
    canvas = Canvas(labels.copy(), spacing=SPACING)
    canvas.apply(grow(canvas, None, distance))
    expected = expand_labels(labels, distance, spacing=SPACING)
    np.testing.assert_array_equal(canvas.data > 0, expected > 0)
    # Where two objects are equally near, either may win.
    assert (canvas.data != expected).mean() < 0.05
    np.testing.assert_array_equal(canvas.data[labels > 0], labels[labels > 0])


def test_growing_in_parts_is_growing_at_once(scene: Callable[..., NDArray[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    labels = scene((8, 20, 26), 6, seed=4)
    canvas = Canvas(labels, spacing=SPACING)
    whole = grow(canvas, None, 2.0)
    monkeypatch.setattr(grow.__module__ + "._REGION", 400)
    parts = grow(canvas, None, 2.0)
    assert len(parts.deltas) > len(whole.deltas)
    once = labels.copy()
    whole.apply(once)
    parts.apply(labels)
    np.testing.assert_array_equal(once > 0, labels > 0)


def test_growth_and_shrinkage_are_physical(ball: Callable[..., NDArray[np.bool_]]) -> None:
    shape, centre = (24, 40, 80), (12, 20, 40)
    labels = ball(shape, centre, 8, SPACING).astype(np.uint8)
    canvas = Canvas(labels.copy(), spacing=SPACING, unit="um")
    canvas.apply(grow(canvas, 1, 4.0))
    # Centres of pixels are up to a pixel inside of the true surface.
    inner, outer = ball(shape, centre, 10.5, SPACING), ball(shape, centre, 12, SPACING)
    assert not (canvas.data.astype(bool) & ~outer).any()
    assert not (inner & ~canvas.data.astype(bool)).any()
    canvas = Canvas(labels.copy(), spacing=SPACING, unit="um")
    canvas.apply(shrink(canvas, 1, 3.0))
    inner, outer = ball(shape, centre, 4, SPACING), ball(shape, centre, 6, SPACING)
    assert not (canvas.data.astype(bool) & ~outer).any()
    assert not (inner & ~canvas.data.astype(bool)).any()


def test_the_border_of_the_image_is_no_outside() -> None:
    labels = np.zeros((10, 10), np.uint8)
    labels[:, :5] = 4
    canvas = Canvas(labels)
    canvas.apply(shrink(canvas, 4, 2.0))
    assert (labels[:, :3] == 4).all()
    assert not labels[:, 3:].any()
    labels[:] = 1
    assert not shrink(Canvas(labels), 1, 3.0)


def test_shrinking_takes_what_growing_gave(ball: Callable[..., NDArray[np.bool_]]) -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[8:30, 10:33] = 2
    canvas = Canvas(labels.copy())
    canvas.apply(grow(canvas, 2, 3.0))
    canvas.apply(shrink(canvas, 2, 3.0))
    np.testing.assert_array_equal(canvas.data, labels)


def test_smoothing_takes_spikes_and_fills_dents(ball: Callable[..., NDArray[np.bool_]]) -> None:
    round_one = ball((50, 50), (25, 25), 15)
    labels = round_one.astype(np.uint8)
    labels[25, 40:48] = 1
    labels[25, 10:14] = 0
    canvas = Canvas(labels)
    canvas.apply(smooth(canvas, 1, 2.0))
    assert not labels[25, 43:].any()
    assert labels[25, 12:14].all()
    assert (labels.astype(bool) != round_one).sum() < 25


def test_smoothing_leaves_thin_objects_and_the_border_alone() -> None:
    labels = np.zeros((30, 30), np.uint8)
    labels[3] = 1  # would vanish
    labels[10:, :15] = 2  # goes on behind the border
    canvas = Canvas(labels.copy())
    canvas.apply(smooth(canvas, None, 2.0))
    np.testing.assert_array_equal(canvas.data[3], labels[3])
    assert (canvas.data[14:, 0] == 2).all()
    assert (canvas.data[-1, :15] == 2).all()


def test_smoothed_classes_leave_no_gaps() -> None:
    labels = np.ones((40, 40), np.uint8)
    labels[:, 20:] = 2
    labels[20, 20:30] = 1  # a spike
    canvas = Canvas(labels, classes=True)
    canvas.apply(smooth(canvas, None, 2.0))
    assert labels.all()
    assert (labels[20, 24:] == 2).all()


def test_a_hull_is_convex_and_respects_others(ball: Callable[..., NDArray[np.bool_]]) -> None:
    labels = np.zeros((20, 30, 30), np.uint8)
    labels[4:16, 5:25, 5:9] = labels[4:16, 21:25, 5:25] = 6  # an L
    labels[8, 15, 14] = 3
    canvas = Canvas(labels.copy())
    canvas.apply(convex_hull(canvas, 6))
    filled = canvas.data == 6
    assert filled[10, 16, 12]
    assert not filled[10, 8, 20]
    assert canvas.data[8, 15, 14] == 3
    ids = np.argwhere(filled)
    middle = (ids[0] + ids[-1]) // 2
    assert canvas.data[tuple(middle)]


@pytest.mark.parametrize("shape", [(17, 23), (9, 14, 12)])
@pytest.mark.parametrize("seed", range(6))
def test_a_hull_is_that_of_scikit_image(shape: tuple[int, ...], seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for _ in range(random.integers(4, 12)):
        labels[tuple(random.integers(0, size) for size in shape)] = 1
    wanted = convex_hull_image(labels, offset_coordinates=False)
    canvas = Canvas(labels)
    canvas.apply(convex_hull(canvas, 1))
    np.testing.assert_array_equal(canvas.data > 0, wanted)


@pytest.mark.parametrize("place", [np.s_[3, 4:9, 5], np.s_[3, 4:9, 5:9], np.s_[3:4, 4:5, 5:6]])
def test_flat_objects_have_a_hull(place: Any) -> None:
    labels = np.zeros((8, 12, 12), np.uint8)
    labels[place] = 2
    canvas = Canvas(labels.copy())
    assert not convex_hull(canvas, 2)
    labels[:] = 0
    for index in range(4):  # pixels in one plane that lies aslant
        labels[index, index, 2] = labels[index, index, 8] = 2
    assert convex_hull(Canvas(labels), 2).pixels in (0, 20)


@pytest.mark.parametrize("tool", [smooth, grow, shrink])
@pytest.mark.parametrize("distance", [0.0, -1.0, float("nan"), float("inf")])
def test_distances_that_make_no_sense_are_refused(tool: Any, distance: float) -> None:
    with pytest.raises(OptionsError, match=r"not accepted.*µm"):
        tool(Canvas(np.ones((4, 4), np.uint8), unit="um"), None, distance)


def test_clusters_hold_what_overlaps() -> None:
    rng = np.random.default_rng(3)
    for count in (1, 5, 60):
        starts = rng.integers(0, 60, (count, 2))
        boxes = [tuple(slice(int(a), int(a) + 6) for a in start) for start in starts]
        groups = clusters(boxes)
        assert sorted(member for members, _ in groups for member in members) == list(range(count))
        painted = np.zeros((70, 70), int)
        for members, around in groups:
            assert not painted[around].any()
            painted[around] = 1
            parts = np.zeros((70, 70), np.uint8)
            for member in members:
                assert all(a.start >= b.start and a.stop <= b.stop for a, b in zip(boxes[member], around, strict=True))
                parts[boxes[member]] = 1
            assert ndimage.find_objects(parts)[0] == around
