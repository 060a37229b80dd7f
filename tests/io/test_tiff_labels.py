"""Labels from a store as OME-TIFF: the same file as from memory, and each chunk read as rarely as the memory allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_tileseg.io import read_volume, tiff_labels, write_labels
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.zarr_edit import ZarrArray
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def labels_of(shape: tuple[int, ...]) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(0, 700, shape).astype(np.uint16)


@pytest.mark.parametrize(
    ("shape", "depth", "limit", "reads"),
    [
        ((7, 1100, 20), 4, 2**28, 2),  # two rows of chunks
        ((7, 1100, 20), 4, 3 * 44_000, 3),  # three planes fit
        ((7, 1100, 20), 4, 43_999, 7 * 5),  # not even one does: rows of tiles
        ((2, 3, 1100, 20), 1, 2**28, 2),  # whatever lies together in an entry
        ((7, 1100, 20), 1, 2**28, 7 * 5),
    ],
)
def test_planes_that_lie_together_are_read_together(
    shape: tuple[int, ...], depth: int, limit: int, reads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    array, asked = labels_of(shape), 0

    def read(box: tuple[slice, ...]) -> NDArray[np.uint16]:
        nonlocal asked
        asked += 1
        return array[box]

    monkeypatch.setattr(tiff_labels, "_READ_BYTES", limit)
    lazy = LazyArray(shape, array.dtype, read, depth=depth)
    tiles = list(tiff_labels._tiles(lazy, np.dtype(np.uint16), (256, 32)))
    assert asked == reads
    for one, other in zip(tiles, tiff_labels._tiles(array, np.dtype(np.uint16), (256, 32)), strict=True):
        np.testing.assert_array_equal(one, other)
    axes = "TZYX"[-len(shape) :]
    write_labels(Volume(array, axes), tmp_path / "memory.ome.tif")
    write_labels(Volume(lazy, axes), tmp_path / "lazy.ome.tif")
    assert (tmp_path / "memory.ome.tif").read_bytes() == (tmp_path / "lazy.ome.tif").read_bytes()
    np.testing.assert_array_equal(np.asarray(read_volume(tmp_path / "lazy.ome.tif").data), array)


def test_labels_in_a_store_say_how_many_planes_lie_together(tmp_path: Path) -> None:
    write_labels(Volume(labels_of((40, 20, 30)), "ZYX"), tmp_path / "cells.ome.zarr")
    found = read_volume(tmp_path / "cells.ome.zarr").data
    assert isinstance(found, ZarrArray)
    assert found.depth == found.chunks[0] > 1  # type: ignore[index]
