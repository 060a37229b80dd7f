"""Splitting by a line and by seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.split import split_line, split_seeds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@pytest.fixture
def pair(ball: Callable[..., NDArray[np.bool_]]) -> NDArray[np.uint16]:
    """Two balls that touch: the left one larger."""
    shape = (20, 30, 60)
    return (ball(shape, (10, 15, 20), 12) | ball(shape, (10, 15, 38), 9)).astype(np.uint16) * 8


def test_a_line_splits_a_plane_and_the_larger_part_keeps_the_id(pair: NDArray[np.uint16]) -> None:
    plane = pair[10].copy()
    canvas = Canvas(plane)
    edit = split_line(canvas, 8, [(0, 31), (29, 31)])
    assert edit.note == "Split object 8 into 2."
    canvas.apply(edit)
    np.testing.assert_array_equal(plane > 0, pair[10] > 0)
    assert canvas.index.ids().tolist() == [8, 9]
    assert (plane[:, :31] != 9).all()
    assert (plane[:, 33:] != 8).all()


def test_a_line_that_ends_inside_is_drawn_on(pair: NDArray[np.uint16]) -> None:
    plane = pair[10].copy()
    canvas = Canvas(plane)
    canvas.apply(split_line(canvas, 8, [(14, 31), (16, 31.4)]))
    assert len(canvas.index) == 2


@pytest.mark.parametrize("axis", [0, 1])
def test_in_a_volume_a_line_is_a_wall_along_the_view(pair: NDArray[np.uint16], axis: int) -> None:
    canvas = Canvas(pair.copy())
    depth = [10, 15][axis]
    ends = [(0, 30), (29, 32)] if axis == 0 else [(0, 30), (19, 32)]
    points = [(depth, *end) if axis == 0 else (end[0], depth, end[1]) for end in ends]
    canvas.apply(split_line(canvas, 8, points, normal=axis))
    ids = canvas.index.ids().tolist()
    assert ids == [8, 9]
    other = np.moveaxis(canvas.data, axis, 0)
    for value in ids:  # a wall along the view: both parts look apart in the sum along it
        assert ndimage.label(other.max(axis=0) == value)[1] >= 1
    assert (canvas.data[:, :, :29] != 9).all()
    assert (canvas.data[:, :, 34:] != 8).all()


@pytest.mark.parametrize("seed", range(25))
def test_no_two_parts_touch_across_a_line_before_it_is_given_away(seed: int) -> None:
    """A random line over a full square always cuts it: no diagonal leaks."""
    random = np.random.default_rng(seed)
    labels = np.full((31, 37), 5, np.uint8)
    first = random.uniform(0, 30, 2)
    canvas = Canvas(labels)
    edit = split_line(canvas, 5, [(first[0], -1), *([(15.0, 18.0)] if seed % 2 else []), (first[1], 38)])
    canvas.apply(edit)
    assert len(canvas.index) == 2
    assert labels.all()


def test_a_line_beside_the_object_is_refused(pair: NDArray[np.uint16]) -> None:
    canvas = Canvas(pair[10].copy())
    with pytest.raises(InputError, match="does not cut object 8"):
        split_line(canvas, 8, [(0, 1), (29, 1)])
    with pytest.raises(InputError, match="two points"):
        split_line(canvas, 8, [(0, 1)])
    with pytest.raises(InputError, match="no object 4"):
        split_line(canvas, 4, [(0, 1), (3, 1)])


def test_a_part_that_lay_apart_and_is_not_met_keeps_its_id() -> None:
    labels = np.zeros((20, 40), np.uint8)
    labels[2:18, 2:18] = labels[2:18, 25:38] = 3
    canvas = Canvas(labels)
    canvas.apply(split_line(canvas, 3, [(-1, 10), (20, 10)]))
    assert (labels[2:18, 25:38] == 3).all()
    assert len(canvas.index) == 2


def test_a_line_may_cut_three_times() -> None:
    labels = np.zeros((30, 30), np.uint8)
    for start in (2, 12, 22):
        labels[5:25, start : start + 6] = 1
    labels[22:25, 2:28] = 1  # a comb
    canvas = Canvas(labels)
    edit = split_line(canvas, 1, [(12, -1), (12, 31)])
    assert edit.note == "Split object 1 into 4."


@pytest.mark.parametrize("spacing", [None, (3.0, 1.0, 1.0)])
def test_seeds_split_at_the_narrowest_place(pair: NDArray[np.uint16], spacing: Any) -> None:
    canvas = Canvas(pair.copy(), spacing=spacing)
    canvas.apply(split_seeds(canvas, 8, [(10, 15, 20), (10, 15, 40)]))
    data = canvas.data
    assert data[10, 15, 12] == 8
    assert data[10, 15, 44] == 9
    border = np.flatnonzero(data[10, 15] == 9)[0]
    assert 27 <= border <= 34
    np.testing.assert_array_equal(data > 0, pair > 0)


@pytest.mark.parametrize("valley", [True, False])
def test_seeds_split_where_the_image_does(valley: bool) -> None:
    labels = np.zeros((21, 41), np.uint16)
    labels[3:18, 3:38] = 70
    image = np.full((21, 41), 100.0)
    image[:, 26:28] = 20 if valley else 180
    canvas = Canvas(labels)
    canvas.apply(split_seeds(canvas, 70, [(10, 8), (10, 33)], image, "image"))
    assert labels[10, 24] == 70
    assert labels[10, 29] == 71
    colours = np.stack([image] * 3, axis=-1)
    canvas = Canvas(np.where(labels, 70, 0))
    canvas.apply(split_seeds(canvas, 70, [(10, 8), (10, 33)], colours, "image"))
    np.testing.assert_array_equal(canvas.data > 70, labels > 70)


def test_seeds_split_where_scores_are_lowest() -> None:
    labels = np.zeros((21, 41), np.uint16)
    labels[3:18, 3:38] = 1
    scores = np.ones((21, 41), np.float32)
    scores[:, 12] = 0.3
    canvas = Canvas(labels)
    canvas.apply(split_seeds(canvas, 1, [(10, 8), (10, 33)], scores, "scores"))
    assert (labels[3:18, 3:12] == 2).all()  # the lowest pixel itself may go to either
    assert (labels[3:18, 13:38] == 1).all()


def test_three_seeds_make_three_parts(pair: NDArray[np.uint16]) -> None:
    canvas = Canvas(pair.copy())
    canvas.apply(split_seeds(canvas, 8, [(10, 15, 12), (10, 15, 25), (10, 15, 40)]))
    assert canvas.index.ids().tolist() == [8, 9, 10]


def test_seeds_that_split_nothing_are_sentences(pair: NDArray[np.uint16]) -> None:
    canvas = Canvas(pair)
    with pytest.raises(InputError, match="two seeds"):
        split_seeds(canvas, 8, [(10, 15, 20), (10.2, 15, 20)])
    with pytest.raises(InputError, match="not in object 8"):
        split_seeds(canvas, 8, [(10, 15, 20), (0, 0, 0)])
    with pytest.raises(InputError, match="takes an image"):
        split_seeds(canvas, 8, [(10, 15, 20), (10, 15, 40)], by="image")
    with pytest.raises(InputError, match="same grid"):
        split_seeds(canvas, 8, [(10, 15, 20), (10, 15, 40)], np.zeros((3, 3, 3)), "image")
    over_time = Canvas(np.stack([pair[10], pair[10]]), space=(1, 2))
    with pytest.raises(InputError, match="several time points"):
        split_seeds(over_time, 8, [(0, 15, 20), (1, 15, 40)])


def test_no_room_for_a_new_id_is_a_sentence() -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(4, axis=0)
    canvas = Canvas(labels)
    with pytest.raises(OptionsError, match="uint8"):
        split_seeds(canvas, 17, [(4, 1), (7, 1)])


@pytest.mark.parametrize("seed", range(8))
def test_seeds_anywhere_in_two_unequal_balls_split_them(
    pair: NDArray[np.uint16], ball: Callable[..., NDArray[np.bool_]], seed: int
) -> None:
    """Also where a seed is far from the middle of its part."""
    random = np.random.default_rng(seed)
    first, second = ball(pair.shape, (10, 15, 20), 9), ball(pair.shape, (10, 15, 38), 6)
    points = [tuple(random.choice(np.argwhere(part)).tolist()) for part in (first, second)]
    canvas = Canvas(pair.copy())
    canvas.apply(split_seeds(canvas, 8, points))
    assert (canvas.data[first] == 8).mean() > 0.97
    assert (canvas.data[second] == 9).mean() > 0.97
