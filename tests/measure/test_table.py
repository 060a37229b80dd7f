"""The table of objects: right sizes, places and intensities, however the image is read, in its own units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from skimage.measure import regionprops

from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.zarr_store import ZarrLabels
from napari_tileseg.measure import blocks, table
from napari_tileseg.measure import shapes as shapes_module
from napari_tileseg.measure.table import measure
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

UM = ("micrometer", "micrometer")


def objects(shape: tuple[int, ...], count: int = 12, seed: int = 0) -> NDArray[np.int32]:
    """Return balls with large numbers, some of which touch."""
    random = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    grid = np.indices(shape)
    for number in range(count):
        centre = [random.integers(3, size - 3) for size in shape]
        away = sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True))
        labels[(away <= random.integers(2, 40)) & (labels == 0)] = 100_000 + 7 * number
    return labels


def lazy(array: NDArray[Any]) -> LazyArray:
    return LazyArray(array.shape, array.dtype, lambda box: array[box])


@pytest.mark.parametrize("block", [1, 300, 1 << 21])
def test_objects_of_a_plane_agree_with_scikit_image(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_VALUES", block)
    monkeypatch.setattr(shapes_module, "_REGION", block)
    labels = objects((60, 80))
    pixels = np.random.default_rng(1).normal(size=(2, 60, 80)).astype(np.float32)
    image = Volume.from_scale(lazy(pixels), "CYX", (1, 0.5, 0.5), units=("pixel", *UM), channel_names=("DAPI", "GFP"))
    found = measure(Volume.from_scale(lazy(labels), "YX", (0.5, 0.5), units=UM), image, names=("cell",))
    expected = regionprops(labels, np.moveaxis(pixels, 0, -1), spacing=(0.5, 0.5))
    np.testing.assert_array_equal(found["label"], [item.label for item in expected])
    assert set(found["class"]) == {"cell"}
    np.testing.assert_allclose(found["area [µm²]"], [item.area for item in expected])
    np.testing.assert_allclose(found["pixels"], [item.num_pixels for item in expected])
    np.testing.assert_allclose(found["diameter [µm]"], [item.equivalent_diameter_area for item in expected])
    for place, axis in enumerate("YX"):
        np.testing.assert_allclose(found[f"centre {axis} [µm]"], [item.centroid[place] for item in expected])
        np.testing.assert_array_equal(found[f"first {axis} [px]"], [item.bbox[place] for item in expected])
        np.testing.assert_array_equal(found[f"last {axis} [px]"], [item.bbox[place + 2] - 1 for item in expected])
    for place, channel in enumerate(("DAPI", "GFP")):
        np.testing.assert_allclose(found[f"mean {channel}"], [item.intensity_mean[place] for item in expected], rtol=1e-5)
        np.testing.assert_allclose(found[f"max {channel}"], [item.intensity_max[place] for item in expected])
    for name, column in (("solidity", "solidity"), ("eccentricity", "eccentricity"), ("perimeter", "perimeter [µm]")):
        np.testing.assert_allclose(found[column], [item[name] for item in expected])


def test_objects_in_space() -> None:
    ball = np.zeros((24, 24, 24), np.int32)
    ball[(np.indices(ball.shape) - 12).astype(float).__pow__(2).sum(axis=0) <= 81] = 3
    found = measure(Volume.from_scale(ball, "ZYX", (2.0, 1.0, 1.0), units=("millimeter",) * 3))
    assert found["volume [mm³]"][0] == 2 * np.count_nonzero(ball)
    assert found["voxels"][0] == np.count_nonzero(ball)
    assert [found[f"centre {axis} [mm]"][0] for axis in "ZYX"] == [24, 12, 12]
    round_one = measure(Volume(ball, "ZYX"))
    assert 0.85 < round_one["sphericity"][0] <= 1.05
    assert found["sphericity"][0] < round_one["sphericity"][0]
    assert "volume [px³]" in round_one


def test_planes_and_frames_are_measured_one_by_one() -> None:
    labels = np.zeros((2, 3, 8, 9), np.int32)
    labels[0, 1, 2:4, 2:5] = 1
    labels[1, 2, 0:1, 0:1] = 2
    volume = Volume(labels, "TZYX")
    found = measure(volume, spatial="YX")
    assert [found[name].tolist() for name in ("label", "T", "Z", "pixels")] == [[1, 2], [0, 1], [1, 2], [6, 1]]
    whole = measure(volume)
    assert [whole[name].tolist() for name in ("label", "T", "voxels")] == [[1, 2], [0, 1], [6, 1]]


def test_classes_and_masks() -> None:
    classes = np.array([[0, 1, 1], [2, 2, 2]], np.uint8)
    found = measure(Volume(classes, "YX"), names=("background", "a", "b"), shape=False)
    assert dict(zip(found["class"], found["pixels"], strict=True)) == {"a": 2, "b": 3}
    masks = np.stack([classes > 0, classes == 0]).astype(np.uint8)
    found = measure(Volume(masks, "CYX"), Volume(np.arange(6.0).reshape(2, 3), "YX"), names=("some", "none"), shape=False)
    assert list(zip(found["class"], found["pixels"], found["mean"], found["max"], strict=True)) == [
        ("some", 5, 3.0, 5.0),
        ("none", 1, 0.0, 0.0),
    ]


def test_nothing_found_is_an_empty_table() -> None:
    found = measure(Volume(np.zeros((4, 5), np.int32), "YX"), Volume(np.zeros((4, 5)), "YX"), names=("cell",))
    assert {"label", "class", "area [px²]", "mean", "solidity"} <= set(found)
    assert all(len(values) == 0 for values in found.values())


def test_what_cannot_be_measured_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.zeros((30, 30), np.int32)
    labels[0, :20] = 1
    labels[5:25, 5:25] = 2
    labels[29, 29] = 3
    values = np.full((30, 30), np.nan)
    found = measure(Volume(labels, "YX"), Volume(values, "YX"))
    assert np.isnan(found["solidity"]).tolist() == [True, False, True]
    assert found["mean"].tolist() == [0, 0, 0]
    monkeypatch.setattr(shapes_module, "_LARGEST", 100)
    assert np.isnan(measure(Volume(labels, "YX"))["eccentricity"]).tolist() == [False, True, False]
    monkeypatch.setattr(table, "_SHAPED", 2)
    assert "solidity" not in measure(Volume(labels, "YX"))
    uneven = measure(Volume.from_scale(labels, "YX", (1, 2), units=UM), shape=True)
    assert "solidity" in uneven
    assert not any(name.startswith("perimeter") for name in uneven)


def test_labels_on_the_disk(tmp_path: Path) -> None:
    labels = objects((70, 50))
    store = ZarrLabels.create(tmp_path / "a.zarr", labels.shape, labels.dtype, "YX")
    store[:] = labels
    store.finish()
    found, expected = measure(Volume(store, "YX")), measure(Volume(labels, "YX"))
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("units", [("pixel", "pixel"), ("pixel", "micrometer")])
def test_without_one_unit_everything_is_in_pixels(units: tuple[str, str]) -> None:
    labels = objects((40, 50))
    found = measure(Volume.from_scale(labels, "YX", (0.5, 0.5), units=units))
    expected = measure(Volume(labels, "YX"))
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])
