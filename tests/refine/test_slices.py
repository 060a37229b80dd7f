"""Between slices: painted ones stay, those between follow, in any orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_tileseg.errors import InputError
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.slices import interpolate, painted_slices

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_ellipsoid_comes_back_from_every_fourth_slice(axis: int, ball: Callable[..., NDArray[np.bool_]]) -> None:
    spacing = (2.0, 1.0, 0.7)
    shape = (30, 46, 60)
    whole = ball(shape, (15, 23, 30), 20, spacing)
    labels = np.zeros(shape, np.uint16)
    kept = [slice(None)] * 3
    kept[axis] = slice(None, None, 4)
    labels[tuple(kept)] = whole[tuple(kept)] * 300
    canvas = Canvas(labels.copy(), spacing=spacing)
    slices = painted_slices(canvas, 300, axis)
    assert all(index % 4 == 0 for index in slices)
    assert len(slices) > 4
    canvas.apply(interpolate(canvas, 300, axis))
    np.testing.assert_array_equal(canvas.data[tuple(kept)], labels[tuple(kept)])  # painted slices are reproduced
    inside = [slice(None)] * 3
    inside[axis] = slice(slices[0], slices[-1] + 1)
    found, wanted = canvas.data[tuple(inside)] > 0, whole[tuple(inside)]
    assert (found & wanted).sum() / (found | wanted).sum() > 0.95
    assert painted_slices(canvas, 300, axis) == list(range(slices[0], slices[-1] + 1))


def test_shapes_that_do_not_overlap_move() -> None:
    labels = np.zeros((9, 20, 40), np.uint8)
    labels[0, 2:8, 2:8] = labels[8, 10:16, 30:36] = 1
    canvas = Canvas(labels)
    canvas.apply(interpolate(canvas, 1, 0))
    for index in range(9):
        places = np.argwhere(labels[index])
        np.testing.assert_allclose(places.mean(axis=0), [4.5 + index, 4.5 + 3.5 * index], atol=0.6)
        assert 25 <= len(places) <= 49


def test_two_equal_slices_make_a_cylinder() -> None:
    labels = np.zeros((6, 12, 12), np.uint8)
    labels[0, 3:9, 2:7] = labels[5, 3:9, 2:7] = 4
    canvas = Canvas(labels)
    edit = interpolate(canvas, 4, 0)
    assert edit.note == "Filled 4 slices of object 4."
    canvas.apply(edit)
    assert (labels == labels[:1]).all()


def test_other_objects_stay_unless_painted_over() -> None:
    labels = np.zeros((3, 8, 8), np.uint8)
    labels[0, 2:6, 2:6] = labels[2, 2:6, 2:6] = 1
    labels[1, 4, 4] = 9
    canvas = Canvas(labels)
    edit = interpolate(canvas, 1, 0)
    canvas.apply(edit)
    assert labels[1, 4, 4] == 9
    assert labels[1, 3, 3] == 1
    canvas.revert(edit)
    canvas.apply(interpolate(canvas, 1, 0, over=True))
    assert (labels[1, 2:6, 2:6] == 1).all()


def test_nothing_between_is_no_step_and_no_volume_is_a_sentence() -> None:
    labels = np.ones((3, 8, 8), np.uint8)
    edit = interpolate(Canvas(labels), 1, 0)
    assert not edit
    assert "no empty slice" in edit.note
    with pytest.raises(InputError, match="volumes"):
        interpolate(Canvas(labels[0]), 1, 0)
    with pytest.raises(InputError, match="no object 7"):
        interpolate(Canvas(labels), 7, 0)
    with pytest.raises(InputError, match="2 time points"):
        interpolate(Canvas(np.stack([labels, labels])), 1, 1)


def test_one_time_point_is_filled() -> None:
    labels = np.zeros((2, 5, 8, 8), np.uint8)
    labels[:, ::4, 2:6, 2:6] = 3
    canvas = Canvas(labels)
    canvas.apply(interpolate(canvas, 3, 1, at=(1,)))
    assert not labels[0, 1:4].any()
    assert labels[1, 1:4].any(axis=(1, 2)).all()
