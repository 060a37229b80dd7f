"""Smart paint: wand, region growing, outlines that find the edge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import flood

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.contour import active_contour, snap_outline
from napari_tileseg.refine.wand import grow_region, wand

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@pytest.fixture
def image() -> NDArray[np.float64]:
    return ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(24, 60, 70)), 3) * 1000


@pytest.mark.parametrize("tolerance", [0.0, 3.0, 10.0, 1e9])
def test_the_wand_paints_what_scikit_image_floods(image: NDArray[np.float64], tolerance: float) -> None:
    canvas = Canvas(np.zeros(image.shape, np.uint16))
    point = (12, 30, 35)
    canvas.apply(wand(canvas, image, point, tolerance))
    np.testing.assert_array_equal(canvas.data == 1, flood(image, point, tolerance=tolerance, connectivity=1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_wand_stays_in_its_slice(image: NDArray[np.float64], axis: int) -> None:
    canvas = Canvas(np.zeros(image.shape, np.uint16))
    point = (12, 30, 35)
    canvas.apply(wand(canvas, image, point, 12.0, cut=(axis, point[axis])))
    plane = np.take(image, point[axis], axis=axis)
    wanted = flood(plane, tuple(at for other, at in enumerate(point) if other != axis), tolerance=12.0, connectivity=1)
    np.testing.assert_array_equal(np.take(canvas.data, point[axis], axis=axis) == 1, wanted)
    assert canvas.index.size(1) == wanted.sum()
    with pytest.raises(InputError, match="not in that slice"):
        wand(canvas, image, point, 1.0, cut=(axis, point[axis] + 1))


def test_the_wand_reaches_no_farther_than_told() -> None:
    canvas = Canvas(np.zeros((50, 50), np.uint8), spacing=(1.0, 0.5))
    canvas.apply(wand(canvas, np.zeros((50, 50)), (25, 25), 1.0, reach=4.0))
    y, x = np.mgrid[-25:25, -25:25]
    np.testing.assert_array_equal(canvas.data == 1, y**2 + (x * 0.5) ** 2 <= 16)


def test_the_wand_respects_objects_unless_told_otherwise(image: NDArray[np.float64]) -> None:
    labels = np.zeros(image.shape, np.uint16)
    labels[:, :, 40:] = 5
    canvas = Canvas(labels.copy())
    canvas.apply(wand(canvas, image, (12, 30, 35), 1e9))
    np.testing.assert_array_equal(canvas.data, np.where(labels, labels, 6))
    with pytest.raises(InputError, match="Object 5 is there"):
        wand(canvas, image, (12, 30, 45), 1.0)
    canvas.apply(wand(canvas, image, (12, 30, 45), 1e9, value=5, over=True))
    assert (canvas.data == 5).all()


def test_the_wand_sees_colours() -> None:
    colours = np.zeros((10, 20, 3), np.uint8)
    colours[:, :10] = (200, 10, 10)
    colours[:, 10:] = (10, 200, 10)  # as bright
    canvas = Canvas(np.zeros((10, 20), np.uint8))
    canvas.apply(wand(canvas, colours, (5, 5), 20))
    assert (canvas.data[:, :10] == 1).all()
    assert not canvas.data[:, 10:].any()


def test_bad_wands_are_sentences(image: NDArray[np.float64]) -> None:
    canvas = Canvas(np.zeros(image.shape, np.uint8))
    for arguments, says in (
        ({"point": (99, 0, 0)}, "outside"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"image": image[0]}, "same grid"),
        ({"value": 256}, "does not fit"),
        ({"reach": 0.0}, "distance"),
    ):
        with pytest.raises((InputError, OptionsError), match=says):
            wand(**{"canvas": canvas, "image": image, "point": (1, 1, 1), "tolerance": 1.0, **arguments})


def test_a_region_grows_into_what_is_like_it(ball: Callable[..., NDArray[np.bool_]]) -> None:
    random = np.random.default_rng(0)
    disk = ball((60, 60), (30, 30), 15)
    image = disk * 100.0 + random.normal(0, 3, disk.shape)
    labels = ball((60, 60), (30, 30), 6).astype(np.uint8) * 4
    labels[30, 38] = 9
    canvas = Canvas(labels)
    canvas.apply(grow_region(canvas, image, 4, 5.0))
    wanted = disk.copy()
    wanted[30, 38] = False
    assert (labels == 4)[~wanted].sum() == 0
    assert (labels == 4)[wanted].mean() > 0.99
    with pytest.raises(OptionsError, match="standard deviations"):
        grow_region(canvas, image, 4, 0.0)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.5)])
@pytest.mark.parametrize("radius", [13, 20])
def test_a_drawn_outline_snaps_to_the_edge(ball: Callable[..., NDArray[np.bool_]], radius: int, spacing: tuple[float, float]) -> None:
    disk = ball((70, 120), (35, 60), 17, spacing)
    image = ndimage.gaussian_filter(disk * 100.0, 1.0) + np.random.default_rng(0).normal(0, 4, disk.shape)
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    points = np.stack([35 + radius * np.sin(angles), 60 + radius * np.cos(angles) / spacing[1]], axis=1)
    canvas = Canvas(np.zeros(disk.shape, np.uint8), spacing=spacing)
    drawn = snap_outline(canvas, image, points, distance=0)
    edit = snap_outline(canvas, image, points, distance=8.0)
    overlap = []
    for step in (drawn, edit):
        canvas.apply(step)
        found = canvas.data > 0
        overlap.append((found & disk).sum() / (found | disk).sum())
        canvas.revert(step)
    assert overlap[1] > 0.93 > overlap[0] + 0.1


def test_of_two_edges_the_nearer_counts_unless_it_is_far_weaker(ball: Callable[..., NDArray[np.bool_]]) -> None:
    """In tissue the edge of something else is often stronger, and near."""
    inner, outer = ball((70, 70), (35, 35), 15), ball((70, 70), (35, 35), 20)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([35 + 16 * np.sin(angles), 35 + 16 * np.cos(angles)], axis=1)
    for strength, wanted in ((1.15, inner), (6.0, outer)):
        image = ndimage.gaussian_filter(inner * 100.0 + outer * 100.0 * strength, 0.5)
        by_hand = Canvas(np.zeros(inner.shape, np.uint8))
        by_hand.apply(snap_outline(by_hand, image, points, distance=5.0))
        moved = Canvas(ball((70, 70), (35, 35), 16).astype(np.uint8))
        moved.apply(active_contour(moved, image, 1, distance=5.0))
        for found in (by_hand.data > 0, moved.data > 0):
            assert (found & wanted).sum() / (found | wanted).sum() > 0.9, strength


def test_an_outline_in_a_volume_is_in_one_slice() -> None:
    canvas = Canvas(np.zeros((8, 30, 30), np.uint8))
    image = np.zeros((8, 30, 30))
    square = [(5, 5), (5, 20), (20, 20), (20, 5)]
    canvas.apply(snap_outline(canvas, image, [(3, *corner) for corner in square], distance=0))
    assert canvas.index.box(1)[0] == slice(3, 4)
    canvas.apply(snap_outline(canvas, image, [(corner[0] // 4, corner[1], 9) for corner in square], distance=0, normal=2))
    assert canvas.index.box(2)[2] == slice(9, 10)
    for points, says in (([(3, 1, 1), (4, 5, 5), (3, 9, 1)], "one plane"), ([(3, 1, 1)], "three points"), ([(99, 1, 1)] * 3, "outside")):
        with pytest.raises(InputError, match=says):
            snap_outline(canvas, image, points)


@pytest.mark.parametrize("offset", [-4, 4])
@pytest.mark.parametrize("shape", [(70, 70), (24, 50, 50)])
def test_an_outline_moves_to_the_edge(ball: Callable[..., NDArray[np.bool_]], shape: tuple[int, ...], offset: int) -> None:
    spacing = (1.0, 1.0) if len(shape) == 2 else (2.0, 1.0, 1.0)
    centre = tuple(size / 2 for size in shape)
    truth = ball(shape, centre, 17, spacing)
    image = ndimage.gaussian_filter(truth * 100.0, 1.0) + np.random.default_rng(0).normal(0, 5, shape)
    labels = ball(shape, centre, 17 + offset, spacing).astype(np.uint8) * 6
    labels[..., -3:] = 2
    before = labels.copy()
    canvas = Canvas(labels, spacing=spacing)
    edit = active_contour(canvas, image, 6, distance=8.0)
    canvas.apply(edit)
    found = labels == 6
    assert (found & truth).sum() / (found | truth).sum() > 0.92
    np.testing.assert_array_equal(labels[before == 2], 2)
    far = ndimage.distance_transform_edt(before != 6, sampling=spacing)
    assert not (found & (far > 8.0)).any()


def test_the_band_of_a_contour_is_a_length() -> None:
    canvas: Any = Canvas(np.ones((9, 9), np.uint8), unit="mm")
    with pytest.raises(OptionsError, match="mm"):
        active_contour(canvas, np.zeros((9, 9)), 1, distance=-1)
    assert not active_contour(canvas, np.zeros((9, 9)), 1, distance=2.0)
