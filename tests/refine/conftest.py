"""Labels to correct: pictures of objects that touch, reach the border and have gaps between their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
import zarr.storage

from napari_tileseg.refine.index import ObjectIndex

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def _ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float, spacing: tuple[float, ...] | None = None) -> NDArray[np.bool_]:
    """Return a disk or ball; `centre` in pixels, `radius` in the unit of `spacing`."""
    steps = spacing or (1.0,) * len(shape)
    grid = np.ogrid[tuple(slice(0, size) for size in shape)]
    return sum(((axis - at) * step) ** 2 for axis, at, step in zip(grid, centre, steps, strict=True)) <= radius**2


def _scene(shape: tuple[int, ...], count: int, seed: int, dtype: Any = np.uint16, largest: int = 300) -> NDArray[Any]:
    """Return boxes over each other, with random ids, with holes and cut in two."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype)
    for value in random.choice(np.arange(1, largest), count, replace=False):
        first = [int(random.integers(-2, size)) for size in shape]
        stop = [at + int(random.integers(2, max(size // 2, 3))) for at, size in zip(first, shape, strict=True)]
        labels[tuple(slice(max(a, 0), b) for a, b in zip(first, stop, strict=True))] = value
    labels[random.random(shape) < 0.05] = 0
    labels[..., shape[-1] // 2] = 0
    return labels


@pytest.fixture
def stored() -> Callable[..., Any]:
    """Return a function that stores an array in "memory", or in "chunks" of Zarr."""

    def store(array: NDArray[Any], where: str) -> Any:
        if where == "memory":
            return array.copy()
        chunks = tuple(size // 2 + 1 for size in array.shape)
        target = zarr.create_array(zarr.storage.MemoryStore(), shape=array.shape, dtype=array.dtype, chunks=chunks, compressors=None)
        target[...] = array
        return target

    return store


@pytest.fixture(scope="session")
def ball() -> Callable[..., NDArray[np.bool_]]:
    return _ball


@pytest.fixture(scope="session")
def scene() -> Callable[..., NDArray[Any]]:
    return _scene


@pytest.fixture(scope="session")
def same_index() -> Callable[[Any], None]:
    """Return a check that a canvas's index, kept true by edits, is the one that a fresh look gives."""

    def check(canvas: Any) -> None:
        fresh = ObjectIndex(canvas.data, canvas.space)
        assert canvas.index.positions() == fresh.positions()
        for position in fresh.positions():
            for found, expected in zip(canvas.index.table(position), fresh.table(position), strict=True):
                np.testing.assert_array_equal(found, expected)
            for object_id in fresh.ids(position).tolist():
                assert canvas.index.box(object_id, position) == fresh.box(object_id, position)

    return check
