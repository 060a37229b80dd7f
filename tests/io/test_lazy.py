"""LazyArray: it indexes as the array behind it does, and reads no more than the box that is asked for."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices

from napari_tileseg.io.lazy import LazyArray


def over(array: np.ndarray[Any, Any], boxes: list[Any] | None = None) -> LazyArray:
    def read(box: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        assert all(part.step is None and 0 <= part.start < part.stop <= size for part, size in zip(box, array.shape, strict=True))
        if boxes is not None:
            boxes.append(box)
        return array[box]

    return LazyArray(array.shape, array.dtype, read)


@given(st.data())
def test_indexes_as_numpy_does(data: st.DataObject) -> None:
    shape = data.draw(array_shapes(min_dims=1, max_dims=4, max_side=7))
    array = np.arange(np.prod(shape)).reshape(shape)
    key = data.draw(basic_indices(shape, allow_newaxis=False))
    expected = array[key]
    found = over(array)[key]
    np.testing.assert_array_equal(found, expected)
    assert np.shape(found) == np.shape(expected)


def test_reads_only_the_box() -> None:
    boxes: list[Any] = []
    over(np.zeros((50, 60, 70)), boxes)[10, 5:9, -3:]
    assert boxes == [(slice(10, 11), slice(5, 9), slice(67, 70))]


def test_values_are_in_the_machines_byte_order() -> None:
    array = np.arange(6, dtype=">u2")
    lazy = over(array)
    assert lazy.dtype.isnative
    assert lazy[1:4].dtype.isnative
    np.testing.assert_array_equal(np.asarray(lazy), array)


@pytest.mark.parametrize("key", [(5,), (slice(None), 1, 1), [0, 1], None, (..., ...)])
def test_refuses_what_it_cannot_index(key: Any) -> None:
    with pytest.raises(IndexError):
        over(np.zeros((3, 4)))[key]


def test_closes_what_is_behind_it() -> None:
    closed = []
    lazy = LazyArray((2,), "u1", lambda box: np.zeros(2, "u1")[box], close=lambda: closed.append(True))
    del lazy
    gc.collect()
    assert closed == [True]
