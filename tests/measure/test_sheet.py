"""``Sheet``: the same as measuring everything, whatever changed before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from napari_tileseg.errors import Cancelled
from napari_tileseg.measure.sheet import Sheet
from napari_tileseg.measure.table import measure
from napari_tileseg.volume import Volume


def labels_of(shape: tuple[int, ...], seed: int, count: int = 6) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    for value in range(1, count + 1):
        low = [int(random.integers(0, size - 3)) for size in shape]
        labels[tuple(slice(at, at + int(random.integers(2, 7))) for at in low)] = value
    return labels


@pytest.mark.parametrize(("shape", "steps"), [((30, 40), (0.5, 0.25)), ((12, 20, 18), (2.0, 0.5, 0.5))])
def test_it_says_what_the_table_of_everything_says(shape: tuple[int, ...], steps: tuple[float, ...]) -> None:
    labels, image = labels_of(shape, 0), np.random.default_rng(1).normal(size=shape)
    axes = "ZYX"[-len(shape) :]
    units = ("micrometer",) * len(shape)
    table = measure(Volume.from_scale(labels, axes, steps, units=units), Volume.from_scale(image, axes, steps, units=units))
    sheet = Sheet.of(labels, {"": image}, steps=steps, unit="µm")
    for row in range(len(sheet)):
        sheet.shape(row)
    shared = [name for name in sheet.names if name in table]
    assert set(sheet.names) - set(shared) <= {"perimeter [µm]"}, "which needs pixels as wide as high"
    for name in shared:
        assert_allclose(sheet.column(name), table[name], rtol=1e-9, err_msg=name)


@pytest.mark.parametrize("shape", [(30, 40), (12, 20, 18)])
@pytest.mark.parametrize("seed", range(4))
def test_measuring_what_changed_is_measuring_all(shape: tuple[int, ...], seed: int) -> None:
    random = np.random.default_rng(seed)
    labels, image = labels_of(shape, seed), random.normal(size=shape)
    sheet = Sheet.of(labels, {"a": image}, steps=(1.0,) * len(shape))
    for row in range(len(sheet)):
        sheet.shape(row)
    before = labels.copy()
    labels[labels == 2] = 0
    labels[labels == 3] = 1
    labels[tuple(slice(0, 3) for _ in shape)] = 9
    touched = {int(value) for value in np.unique(np.concatenate([labels[labels != before], before[labels != before]])) if value}
    boxes: dict[int, tuple[slice, ...] | None] = {}
    for value in touched:
        where = np.nonzero(labels == value)
        # One pixel more than the object has, as an outer bound may be.
        boxes[value] = tuple(slice(max(int(at.min()) - 1, 0), int(at.max()) + 2) for at in where) if len(where[0]) else None
    changed, fresh = sheet.changed(boxes), Sheet.of(labels, {"a": image}, steps=(1.0,) * len(shape))
    assert_array_equal(changed.labels, fresh.labels)
    for name in fresh.names:
        if name not in fresh.shape_names:
            assert_allclose(changed.column(name), fresh.column(name), err_msg=name)
    for row, label in enumerate(changed.labels.tolist()):
        assert changed.shaped(row) is (label not in touched), "shapes of what did not change are kept"
        for name, value in fresh.shape(row).items():
            assert_allclose(changed.shape(row)[name], value)


def test_rows_boxes_and_what_is_not_there() -> None:
    sheet = Sheet.of(labels_of((30, 40), 0), {}, steps=(1.0, 1.0))
    assert sheet.row(int(sheet.labels[2])) == 2
    assert sheet.row(77) is None
    assert np.isnan(sheet.column("solidity")).all()
    with pytest.raises(KeyError):
        sheet.column("mean a")
    assert len(Sheet.of(np.zeros((4, 4), np.uint8), {}, steps=(1.0, 1.0))) == 0
    with pytest.raises(Cancelled):
        Sheet.of(labels_of((30, 40), 0), {}, steps=(1.0, 1.0), cancel=lambda: True)
