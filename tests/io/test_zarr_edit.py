"""Labels in a Zarr store are corrected where they lie, whoever wrote the store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from napari_tileseg.errors import OutputError
from napari_tileseg.io import read_volume, write_labels
from napari_tileseg.io import zarr_edit as editing
from napari_tileseg.io.napari_hooks import get_reader, write_labels_layer
from napari_tileseg.io.zarr_edit import ZarrArray, check_elsewhere
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def scene(shape: tuple[int, ...]) -> NDArray[Any]:
    return np.random.default_rng(3).integers(0, 9, shape, dtype=np.uint16)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[ZarrArray, NDArray[Any], Path]:
    """Labels whose store has axes of length 1 that are not shown."""
    start = scene((4, 30, 40))
    array = zarr.create_array(tmp_path / "labels.zarr", data=start[None, :, None], chunks=(1, 2, 1, 16, 16))
    return ZarrArray(tmp_path / "labels.zarr", array, (1, 3, 4)), start, tmp_path / "labels.zarr"


KEYS: list[Any] = [
    (slice(1, 3), slice(5, 20), slice(0, 40)),
    (2, slice(3, 4)),
    (..., 7),
    (slice(0, 0),),
    (slice(None), 4, 5),
    (np.array([0, 3, 3]), np.array([5, 29, 5]), np.array([0, 39, 7])),
    (np.array([], int), np.array([], int), np.array([], int)),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("many", [False, True])
def test_it_is_indexed_and_assigned_as_an_array_in_memory(stored: tuple[ZarrArray, NDArray[Any], Path], key: Any, many: bool) -> None:
    labels, start, path = stored
    np.testing.assert_array_equal(labels[key], start[key])
    value = np.arange(start[key].size, dtype=np.uint16).reshape(start[key].shape) + 100 if many else 77
    labels[key] = value
    expected = start.copy()
    expected[key] = value
    np.testing.assert_array_equal(labels[...], expected)
    np.testing.assert_array_equal(zarr.open_array(path, mode="r")[0, :, 0], expected)


@pytest.mark.parametrize("key", [(slice(0, 4, 2),), (np.array([9]), np.array([0]), np.array([0])), (np.array([1]), np.array([0]))], ids=str)
def test_what_it_cannot_assign_changes_nothing(stored: tuple[ZarrArray, NDArray[Any], Path], key: Any) -> None:
    labels, start, _ = stored
    with pytest.raises(IndexError):
        labels[key] = 5
    np.testing.assert_array_equal(labels[...], start)


def test_one_entry_of_an_axis_is_written_into_that_entry(stored: tuple[ZarrArray, NDArray[Any], Path]) -> None:
    labels, start, path = stored
    labels.at(0, 2)[3:5, 6:9] = 50
    expected = start.copy()
    expected[2, 3:5, 6:9] = 50
    np.testing.assert_array_equal(zarr.open_array(path, mode="r")[0, :, 0], expected)


def test_a_store_that_may_not_be_written_to_stays_as_it_is(
    stored: tuple[ZarrArray, NDArray[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, start, path = stored
    monkeypatch.setattr(editing.os, "access", lambda *_: False)
    assert labels.read_only
    with pytest.raises(PermissionError):
        labels[0:1, 0:1, 0:1] = 3
    np.testing.assert_array_equal(zarr.open_array(path, mode="r")[0, :, 0], start)


def other_program(path: Path, start: NDArray[Any]) -> None:
    """Write labels as another program might: NGFF 0.4 with names and colours, one level."""
    group = zarr.create_group(path, zarr_format=2)
    group.create_array("0", data=start, chunks=(16, 16))
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    scale = [{"type": "scale", "scale": [0.5, 0.25]}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group.attrs["image-label"] = {
        "version": "0.4",
        "colors": [{"label-value": value, "rgba": [value, 0, 0, 255]} for value in range(1, 9)],
        "properties": [{"label-value": value, "class": f"kind {value}"} for value in range(1, 9)],
    }


def test_notes_leave_what_another_program_wrote(tmp_path: Path) -> None:
    path = tmp_path / "theirs.zarr"
    other_program(path, scene((30, 40)))
    before = read_volume(path)
    assert isinstance(before.data, ZarrArray)
    before.data.note({"edits": {"merge": 2}, "checks": {"accepted": [3], "fix": [20]}})
    after = read_volume(path)
    assert (after.axes, after.spacing, after.units) == (before.axes, before.spacing, before.units)
    assert after.metadata["classes"] == before.metadata["classes"]
    assert after.metadata["colors"] == before.metadata["colors"]
    assert after.metadata["provenance"]["edits"] == {"merge": 2}
    told = json.loads((path / ".zattrs").read_text())["image-label"]
    assert [entry for entry in told["properties"] if "check" in entry] == [{"label-value": 3, "class": "kind 3", "check": "accepted"}]
    assert {entry["label-value"] for entry in told["properties"]} == {entry["label-value"] for entry in told["colors"]}
    before.data.note({})
    assert "check" not in str(json.loads((path / ".zattrs").read_text())["image-label"])


def test_our_reader_gives_napari_labels_that_can_be_changed_and_images_that_cannot(tmp_path: Path) -> None:
    start = scene((1200, 700))
    path = tmp_path / "labels.ome.zarr"
    write_labels(Volume.from_scale(start, "YX", (0.5, 0.5), units=("micrometer",) * 2), path)
    reader = get_reader(str(path))
    assert reader is not None
    ((levels, meta, kind),) = reader(str(path))
    assert (kind, meta["multiscale"], len(levels) > 1) == ("labels", True, True)
    assert all(isinstance(level, ZarrArray) and not level.read_only for level in levels)
    zarr.create_array(tmp_path / "image.zarr", data=start, chunks=(100, 100))
    reader = get_reader(str(tmp_path / "image.zarr"))
    assert reader is not None
    ((data, _, kind),) = reader(str(tmp_path / "image.zarr"))
    assert kind == "image"
    assert not isinstance(data, ZarrArray)


def test_labels_are_not_saved_over_the_store_they_are_read_from(tmp_path: Path) -> None:
    path = tmp_path / "labels.ome.zarr"
    start = scene((30, 40))
    write_labels(Volume.from_scale(start, "YX", (0.5, 0.5)), path)
    data = read_volume(path).data
    check_elsewhere(data, tmp_path / "other.ome.zarr")
    with pytest.raises(OutputError, match="Choose another name"):
        write_labels_layer(str(path), data, {"name": "labels"})
    np.testing.assert_array_equal(read_volume(path).data, start)
