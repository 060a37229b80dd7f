"""Here again: labels that were computed anew in a box become one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.again import blend
from napari_tileseg.refine.canvas import Canvas

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def boxed(*sides: tuple[int, int]) -> tuple[slice, ...]:
    return tuple(slice(*side) for side in sides)


@pytest.fixture
def labels() -> NDArray[np.uint16]:
    found = np.zeros((40, 40), np.uint16)
    found[5:15, 5:15] = 3
    found[5:15, 25:35] = 8
    found[25:35, 18:30] = 20
    return found


def test_the_same_labels_under_other_ids_change_nothing(labels: NDArray[np.uint16], scene: Callable[..., NDArray[Any]]) -> None:
    box = boxed((2, 38), (1, 39))
    new = labels[box].copy()
    for old, other in ((3, 1), (8, 2), (20, 3)):
        new[labels[box] == old] = other
    edit = blend(Canvas(labels), box, new)
    assert not edit
    assert edit.note == "3 objects in the box, 0 of them new."


def test_objects_keep_their_ids_and_new_ones_get_others(labels: NDArray[np.uint16]) -> None:
    canvas = Canvas(labels.copy())
    new = np.zeros((20, 40), np.int64)
    new[4:15, 4:16] = 1  # 3, grown
    new[6:14, 26:30] = 2  # 8, in two parts
    new[6:14, 31:35] = 3
    new[17:19, 2:4] = 4  # nothing was there
    canvas.apply(blend(canvas, boxed((0, 20), (0, 40)), new))
    data = canvas.data
    assert (data[4:15, 4:16] == 3).all()
    assert sorted({int(data[8, 28]), int(data[8, 33])}) in ([8, 21], [8, 22])
    assert data[17, 2] in (21, 22)
    assert data[5, 25] == 0
    np.testing.assert_array_equal(data[20:], labels[20:])


def test_only_the_inner_box_is_changed_and_objects_go_on_across_its_sides(labels: NDArray[np.uint16]) -> None:
    canvas = Canvas(labels.copy())
    new = np.zeros((40, 40), np.uint8)
    new[5:15, 5:15] = 7
    new[5:15, 25:35] = 9
    inner = boxed((0, 10), (0, 40))
    canvas.apply(blend(canvas, boxed((0, 40), (0, 40)), new, inner=inner))
    np.testing.assert_array_equal(canvas.data, labels)
    new[5:15, 5:15] = 0  # gone: its outer part stays
    canvas.apply(blend(canvas, boxed((0, 40), (0, 40)), new, inner=inner))
    assert not canvas.data[:10, 5:15].any()
    assert (canvas.data[10:15, 5:15] == 3).all()


def test_large_ids_are_matched_too(scene: Callable[..., NDArray[Any]]) -> None:
    labels = scene((8, 20, 20), 9, seed=3).astype(np.int64)
    new = scene((8, 20, 20), 9, seed=4).astype(np.int64)
    box = tuple(slice(0, size) for size in labels.shape)
    small, large = labels.copy(), labels * 2**33
    blend(Canvas(small), box, new).apply(small)
    blend(Canvas(large), box, new * 2**33).apply(large)
    np.testing.assert_array_equal(small > 0, large > 0)
    kept = np.isin(small, labels)
    np.testing.assert_array_equal(small[kept] * 2**33, large[kept])


def test_how_much_must_be_shared_is_a_choice(labels: NDArray[np.uint16]) -> None:
    canvas = Canvas(labels)
    new = np.zeros((40, 40), np.uint8)
    new[5:15, 11:21] = 1  # shares 40 of 100 pixels with 3
    strict, lax = blend(canvas, boxed((0, 40), (0, 40)), new), blend(canvas, boxed((0, 40), (0, 40)), new, least=0.3)
    assert strict.note.endswith("1 of them new.")
    assert lax.note.endswith("0 of them new.")
    with pytest.raises(OptionsError, match="least"):
        blend(canvas, boxed((0, 40), (0, 40)), new, least=0)


def test_classes_are_replaced_as_they_are(labels: NDArray[np.uint16]) -> None:
    canvas = Canvas((labels > 0).astype(np.uint8), classes=True)
    new = np.full((6, 8), 2, np.int64)
    edit = blend(canvas, boxed((3, 9), (4, 12)), new)
    canvas.apply(edit)
    assert (canvas.data[3:9, 4:12] == 2).all()
    assert np.count_nonzero(canvas.data == 2) == 48 == edit.pixels
    with pytest.raises(OptionsError, match="300 does not fit"):
        blend(canvas, boxed((3, 9), (4, 12)), np.full((6, 8), 300))


def test_a_slice_of_a_volume_over_time_may_come_without_its_axes() -> None:
    canvas = Canvas(np.zeros((2, 5, 10, 10), np.uint8), space=(1, 2, 3))
    canvas.apply(blend(canvas, boxed((1, 2), (3, 4), (0, 10), (0, 10)), np.ones((10, 10), np.uint8)))
    assert canvas.index.positions(1) == [(1,)]
    assert canvas.index.size(1) == 100


@pytest.mark.parametrize(
    ("box", "shape", "inner"),
    [
        (((0, 50), (0, 10)), (50, 10), None),
        (((0, 0), (0, 10)), (0, 10), None),
        (((0, 10), (0, 10)), (10, 9), None),
        (((0, 10), (0, 5)), (5, 10), None),
        (((5, 10), (5, 10)), (5, 5), ((0, 7), (5, 10))),
    ],
)
def test_boxes_that_do_not_fit_are_sentences(labels: NDArray[np.uint16], box: Any, shape: Any, inner: Any) -> None:
    with pytest.raises(InputError):
        blend(Canvas(labels), boxed(*box), np.zeros(shape, np.uint8), inner=inner and boxed(*inner))
