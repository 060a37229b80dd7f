"""Labels on the disk: whatever is assigned is read back, by slabs in any order, over interruptions, on every level."""

from __future__ import annotations

import gc
import itertools
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.errors import OutputError
from napari_tileseg.io import zarr_layout
from napari_tileseg.io.zarr_layout import Layout
from napari_tileseg.io.zarr_store import ZarrLabels
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 pixels, so that small arrays have many of them and several levels."""
    monkeypatch.setattr(zarr_layout, "_SIDE", 16)
    monkeypatch.setattr(zarr_layout, "_SIDE_3D", 16)
    monkeypatch.setattr(zarr_layout, "_DEPTH", 4)
    monkeypatch.setattr(zarr_layout, "_COARSEST", 12)


def labels(shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 5, shape, dtype=np.int32)


def slabs(store: ZarrLabels, array: np.ndarray[Any, Any], cuts: list[int], *, first: int = 0) -> None:
    """Assign an array sample by sample in slabs, as a run does; the first rows are left out."""
    layout = store.layout
    row = layout.axes.index(layout.spatial[0])
    edges = [0, *sorted(cut for cut in set(cuts) if 0 < cut < layout.rows), layout.rows]
    for ordinal in range(layout.total_rows // layout.rows):
        key: list[Any] = [slice(None)] * array.ndim
        for axis, index in zip(layout.iterated, layout.position(ordinal), strict=True):
            key[layout.axes.index(axis)] = index
        for start, stop in itertools.pairwise(edges):
            low = max(start, first - ordinal * layout.rows)
            if low < stop:
                key[row] = slice(low, stop)
                store[tuple(key)] = array[tuple(key)]


def check_levels(store: ZarrLabels, array: np.ndarray[Any, Any]) -> None:
    stored = array.transpose(store.layout.order)
    for level, by in zip(store.arrays, store.layout.factors, strict=True):
        np.testing.assert_array_equal(level[...], stored[tuple(slice(None, None, step) for step in by)])


@given(
    case=st.sampled_from(
        [("YX", ""), ("XY", ""), ("ZYX", ""), ("ZYX", "YX"), ("YXZ", "YX"), ("TZYX", "ZYX"), ("CYX", ""), ("ZTYX", "ZYX")]
    ),
    cuts=st.lists(st.integers(1, 60), max_size=6),
    seed=st.integers(0, 9),
)
@settings(max_examples=40)
def test_what_is_assigned_in_slabs_is_read_back_on_every_level(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[str, str], cuts: list[int], seed: int
) -> None:
    axes, spatial = case
    sizes = {"T": 2, "C": 3, "Z": 5, "Y": 61, "X": 37}
    array = labels(tuple(sizes[axis] for axis in axes), seed)
    path = tmp_path_factory.mktemp("store") / "a.ome.zarr"
    store = ZarrLabels.create(path, array.shape, array.dtype, axes, spatial=spatial)
    slabs(store, array, cuts)
    np.testing.assert_array_equal(store[...], array)
    assert not path.exists()
    assert store.finish() == path
    assert store.durable_rows == store.layout.total_rows
    np.testing.assert_array_equal(np.asarray(store), array)
    check_levels(store, array)
    assert len(store.arrays) > 1
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX"])
@pytest.mark.parametrize("rows", [7, 33, 48, 70])
def test_a_store_goes_on_after_the_program_died(tmp_path: Path, axes: str, rows: int) -> None:
    shape = {"YX": (100, 40), "ZYX": (80, 30, 40), "TYX": (2, 50, 40)}[axes]
    spatial = "YX" if axes == "TYX" else axes
    array = labels(shape)
    store = ZarrLabels.create(tmp_path / "a.zarr", shape, array.dtype, axes, spatial=spatial)
    if axes == "TYX":
        store[0] = array[0]
        store[1, : rows - 50 if rows > 50 else 1] = array[1, : rows - 50 if rows > 50 else 1]
    else:
        store[:rows] = array[:rows]
    del store  # nothing was flushed: what was in memory is lost
    again = ZarrLabels.open_unfinished(tmp_path / "a.zarr")
    assert again.durable_rows <= max(rows, 51)
    depth = again.layout.chunks[again.layout.row_axis]
    assert again.durable_rows > rows - depth
    slabs(again, array, [19, 41], first=again.durable_rows)
    again.finish()
    np.testing.assert_array_equal(again[...], array)
    check_levels(again, array)


def test_flushed_rows_are_durable(tmp_path: Path) -> None:
    array = labels((100, 40))
    store = ZarrLabels.create(tmp_path / "a.zarr", array.shape, array.dtype, "YX")
    store[:21] = array[:21]
    assert store.durable_rows == 16
    store.flush()
    assert store.durable_rows == 21
    again = ZarrLabels.open_unfinished(tmp_path / "a.zarr")
    assert again.durable_rows == 21
    np.testing.assert_array_equal(again[:21], array[:21])
    again[21:] = array[21:]
    again.finish()
    check_levels(again, array)


def test_each_chunk_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    original = zarr.storage.LocalStore.set

    async def counted(self: Any, key: str, value: Any) -> None:
        written.append(key)
        await original(self, key, value)

    array = labels((100, 70)) + 1
    store = ZarrLabels.create(tmp_path / "a.zarr", array.shape, array.dtype, "YX")
    monkeypatch.setattr(zarr.storage.LocalStore, "set", counted)
    slabs(store, array, list(range(3, 100, 3)))
    store.finish()
    chunks = [key for key in written if "/c/" in key]
    assert len(chunks) == len(set(chunks)) == 7 * 5 + 4 * 3 + 2 * 2 + 1 + 1


@pytest.mark.parametrize("key", [(slice(3, 9), slice(5, 30)), (slice(20, 41), slice(0, 1)), (4, slice(None)), (slice(60, 61), 3)])
def test_a_box_is_changed_and_its_pyramid_rebuilt_there_only(tmp_path: Path, key: Any) -> None:
    array = labels((61, 37))
    ZarrLabels.create(tmp_path / "a.zarr", array.shape, array.dtype, "YX").finish()
    store = ZarrLabels.open(tmp_path / "a.zarr")
    store[...] = array
    store.rebuild()
    array[key] = 77
    store[key] = 77
    box = tuple((part, part + 1) if isinstance(part, int) else part.indices(size)[:2] for part, size in zip(key, (61, 37), strict=True))
    store.rebuild(box)
    np.testing.assert_array_equal(store[...], array)
    check_levels(store, array)


def test_what_is_not_assigned_is_background(tmp_path: Path) -> None:
    store = ZarrLabels.create(tmp_path / "a.zarr", (61, 37), np.uint8, "YX")
    store[20:30, 5:9] = 1
    store[50:61, 5:9] = 2
    store.finish()
    expected = np.zeros((61, 37), np.uint8)
    expected[20:30, 5:9] = 1
    expected[50:61, 5:9] = 2
    np.testing.assert_array_equal(store[...], expected)


def test_levels_come_near_to_cubes() -> None:
    layout = Layout.plan((40, 400, 400), np.uint8, "ZYX", spacing={"Z": 4.0, "Y": 1.0, "X": 1.0})
    assert layout.factors[:5] == ((1, 1, 1), (1, 2, 2), (1, 4, 4), (2, 8, 8), (4, 16, 16))


@given(axes=st.sampled_from(["TYX", "ZTYX", "TZYX", "XTYZ"]), model=st.sampled_from(["CYX", "CZYX"]), seed=st.integers(0, 5))
def test_rows_are_counted_as_the_run_counts_them(axes: str, model: str, seed: int) -> None:
    if "Z" in model and "Z" not in axes:
        return
    spec = ModelSpec(name="a", axes=model, channels=1, classes=["b", "c"], window=(8,) * (len(model) - 1))
    sizes = {"T": 3, "Z": 4, "Y": 6, "X": 5}
    axis_map = map_axes(axes, [sizes[axis] for axis in axes], spec)
    layout = Layout.plan(axis_map.result_shape, axis_map.result_dtype, axis_map.result_axes, spatial=axis_map.spatial)
    assert layout.total_rows == axis_map.count * axis_map.spatial_shape[0]
    for ordinal, sample in enumerate(axis_map.samples()):
        assert layout.ordinal(tuple(sample.values())) == ordinal
        assert layout.position(ordinal) == tuple(sample.values())


def test_an_unfinished_store_is_thrown_away_or_replaced(tmp_path: Path) -> None:
    store = ZarrLabels.create(tmp_path / "a.zarr", (40, 40), np.uint8, "YX")
    store[...] = 1
    ZarrLabels.create(tmp_path / "a.zarr", (40, 40), np.uint8, "YX").discard()
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="no unfinished result"):
        ZarrLabels.open_unfinished(tmp_path / "a.zarr")


def test_a_finished_store_replaces_an_older_one(tmp_path: Path) -> None:
    for value in (1, 2):
        store = ZarrLabels.create(tmp_path / "a.zarr", (40, 40), np.uint8, "YX")
        store[...] = value
        store.finish({"note": value})
    assert ZarrLabels.open(tmp_path / "a.zarr")[0, 0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_foreign_stores_are_not_changed(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(OutputError, match="not written by this program"):
        ZarrLabels.open(tmp_path / "a.zarr")


def test_scratch_goes_away_with_its_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path))
    store = ZarrLabels.scratch((40, 40), np.uint8, "YX")
    store[...] = 3
    assert store[5, 5] == 3
    assert list(tmp_path.iterdir())
    del store
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_scratch_of_a_program_that_died_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os; from napari_tileseg.io.zarr_store import ZarrLabels; s = ZarrLabels.scratch((9, 9), 'uint8', 'YX'); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"TILESEG_CACHE": str(tmp_path)})
    (left,) = tmp_path.iterdir()
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path))
    store = ZarrLabels.scratch((9, 9), np.uint8, "YX")
    assert list(tmp_path.iterdir()) == [store.path] != [left]


@pytest.mark.parametrize("damage", ["{", json.dumps({"schema": 99}), json.dumps({"schema": 1, "layout": {}})])
def test_damaged_notes_are_refused(tmp_path: Path, damage: str) -> None:
    store = ZarrLabels.create(tmp_path / "a.zarr", (40, 40), np.uint8, "YX")
    (store.path / "tileseg-unfinished.json").write_text(damage)
    with pytest.raises(OutputError, match="no unfinished result"):
        ZarrLabels.open_unfinished(tmp_path / "a.zarr")


def test_labels_are_whole_numbers(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="float32"):
        ZarrLabels.create(tmp_path / "a.zarr", (40, 40), np.float32, "YX")


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ZarrLabels.create(tmp_path / "a.zarr", (40, 40), np.uint8, "YX")

    async def full(self: Any, key: str, value: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zarr.storage.LocalStore, "set", full)
    with pytest.raises(OutputError, match="disk is full"):
        store[...] = 1
    assert store.durable_rows == 0
