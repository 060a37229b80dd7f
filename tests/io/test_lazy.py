"""LazyArray: it indexes as the array behind it does, and reads no more than the box that is asked for."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, basic_indices

from napari_tileseg.io import output, read_volume, write_labels
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.order import ordered
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr", ".seg.nrrd", ".nii", ".nii.gz"])
def test_labels_on_the_disk_are_written_part_by_part(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 5, (32, 40, 50)).astype(np.uint16)
    read: list[tuple[int, int]] = []

    def take(box: tuple[slice, ...]) -> Any:
        read.append((box[0].start, box[0].stop))
        return values[box]

    monkeypatch.setattr(output, "_BLOCK_BYTES", 8 * 40 * 50)
    labels = Volume(LazyArray(values.shape, values.dtype, take, depth=8), "ZYX")
    path = write_labels(labels, tmp_path / f"a{suffix}")
    assert max(stop - start for start, stop in read) <= 8
    passes = sum(stop - start for start, stop in read) / len(values)
    assert passes <= 4, "rows of chunks are not read again for each of their slices"
    np.testing.assert_array_equal(np.asarray(read_volume(path).data), values)


def test_rows_of_chunks_that_are_too_large_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(32 * 4 * 5).reshape(32, 4, 5)
    read: list[int] = []

    def take(box: tuple[slice, ...]) -> Any:
        read.append(box[0].stop - box[0].start)
        return values[box]

    monkeypatch.setattr(output, "_BLOCK_BYTES", 8 * 4 * 5)
    monkeypatch.setattr(output, "_READ_BYTES", 3 * 8 * 4 * 5)
    labels = Volume(LazyArray(values.shape, values.dtype, take, depth=16), "ZYX")
    np.testing.assert_array_equal(np.concatenate(list(output.blocks(labels))), values)
    assert max(read) == 3


def test_turned_arrays_know_what_lies_together() -> None:
    array = LazyArray((6, 4, 5), np.uint8, lambda box: np.zeros([part.stop - part.start for part in box], np.uint8), depth=3)
    assert ordered(Volume(array, "ZXY"), "ZYX").data.depth == 3
    assert ordered(Volume(array, "XZY"), "ZYX").data.depth == 1
