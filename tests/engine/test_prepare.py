"""Preparation: the right pixels, in the right order, read only where they are wanted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.normalize import Statistics
from napari_tileseg.engine.prepare import PreparedSource, SampleReader, measure_frame
from napari_tileseg.models.spec import ModelSpec, Normalization
from napari_tileseg.volume import Volume

PLAIN = Normalization()


def _spec(channels: int, axes: str = "CYX", grey: str = "refuse", **more: object) -> ModelSpec:
    window = (4,) * (len(axes) - 1)
    return ModelSpec(name="m", axes=axes, channels=channels, classes=["background", "a"], window=window, grey=grey, **more)


@given(axes=st.permutations("TCZYX").map("".join), chosen=st.lists(st.integers(0, 3), min_size=2, max_size=2), data=st.data())
@settings(deadline=None, max_examples=50)
def test_whatever_the_order_of_axes_the_model_sees_channels_then_space(axes: str, chosen: list[int], data: st.DataObject) -> None:
    canonical = np.arange(2 * 4 * 3 * 5 * 6).reshape(2, 4, 3, 5, 6)
    image = Volume(canonical.transpose(["TCZYX".index(axis) for axis in axes]), axes)
    mapped = map_axes(axes, image.shape, _spec(2), channels=chosen)
    position = {"T": data.draw(st.integers(0, 1)), "Z": data.draw(st.integers(0, 2))}
    source = PreparedSource(SampleReader(image, mapped, position), Statistics((0.0,), (1.0,)), PLAIN)
    assert source.shape == (2, 5, 6)
    expected = canonical[position["T"], chosen, position["Z"]]
    np.testing.assert_array_equal(source.read((slice(1, 4), slice(2, 6))), expected[:, 1:4, 2:6])


def test_a_part_of_a_sample_is_addressed_from_its_own_corner() -> None:
    image = Volume(np.arange(80).reshape(8, 10), "YX")
    mapped = map_axes("YX", image.shape, _spec(1))
    reader = SampleReader(image, mapped, {})
    source = PreparedSource(reader, Statistics(), PLAIN, origin=(2, 3), stop=(6, 9))
    assert source.shape == (1, 4, 6)
    np.testing.assert_array_equal(source.read((slice(0, 4), slice(0, 6)))[0], image.data[2:6, 3:9])


def test_grey_is_repeated_after_it_was_read_once() -> None:
    reads = []

    class Counting:
        shape, dtype = (6, 7), np.dtype(np.uint8)

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            reads.append(key)
            return np.ones((6, 7), np.uint8)[key]

    image = Volume(Counting(), "YX")
    mapped = map_axes("YX", (6, 7), _spec(3, grey="repeat"))
    source = PreparedSource(SampleReader(image, mapped, {}), Statistics(), PLAIN)
    assert source.read((slice(0, 2), slice(0, 7))).shape == (3, 2, 7)
    assert reads == [(slice(0, 2), slice(0, 7))]


def test_frames_are_measured_one_by_one_and_planes_together() -> None:
    rule = Normalization(kind="zscore")
    film = Volume(np.stack([np.full((2, 4, 4), 1.0), np.full((2, 4, 4), 5.0)]) + np.arange(2).reshape(1, 2, 1, 1), "TZYX")
    mapped = map_axes("TZYX", film.shape, _spec(1))
    first, second = (measure_frame(film, mapped, rule, frame) for frame in (0, 1))
    assert first.offset[0] == pytest.approx(1.5)
    assert second.offset[0] == pytest.approx(5.5)


def test_the_measuring_pass_reads_each_pixel_once_and_can_be_stopped() -> None:
    seen = np.zeros((300, 40, 400), int)

    class Counting:
        shape, dtype = seen.shape, np.dtype(np.float32)

        def __getitem__(self, key: tuple[slice, ...]) -> np.ndarray:
            seen[key] += 1
            return np.zeros(seen[key].shape, np.float32)

    image = Volume(Counting(), "ZYX")
    mapped = map_axes("ZYX", image.shape, _spec(1, axes="CZYX"))
    measure_frame(image, mapped, Normalization(kind="zscore"), None)
    assert (seen == 1).all()

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_frame(image, mapped, Normalization(kind="zscore"), None, check=stop)


def test_a_rule_that_needs_no_statistics_reads_nothing() -> None:
    class Untouchable:
        shape, dtype = (6, 7), np.dtype(np.uint8)

        def __getitem__(self, key: object) -> np.ndarray:
            raise AssertionError("read")

    image = Volume(Untouchable(), "YX")
    mapped = map_axes("YX", (6, 7), _spec(1))
    statistics = measure_frame(image, mapped, Normalization(kind="range", low=0, high=255), None)
    assert statistics.scale == (255.0,)
