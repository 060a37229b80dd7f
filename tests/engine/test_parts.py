"""Rectangles become parts: every wanted pixel once, together where they touch or where that takes no more tiles."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.layout import lay_parts, seen
from napari_tileseg.engine.parts import Part, Region, apart, plan_parts
from napari_tileseg.errors import OptionsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.volume import Volume

FLAT = ModelSpec.model_validate({"name": "flat", "axes": "CYX", "channels": 1, "classes": ["no", "yes"], "window": (8, 8)})
SIZES = {"T": 3, "Z": 3, "Y": 40, "X": 60}


@st.composite
def boxes(draw: st.DrawFn, axes: str = "YX", most: int = 6) -> list[Region]:
    """Draw boxes inside an image of `SIZES`."""

    def span(axis: str) -> tuple[int, int]:
        start = draw(st.integers(0, SIZES[axis] - 1))
        return start, draw(st.integers(start + 1, min(SIZES[axis], start + 20)))

    return [tuple(span(axis) for axis in axes) for _ in range(draw(st.integers(1, most)))]


def painted(regions: list[Region] | tuple[Region, ...], axes: str = "YX") -> np.ndarray:
    """Count how often each pixel lies in one of them."""
    count = np.zeros([SIZES[axis] for axis in axes], int)
    for region in regions:
        count[tuple(slice(*span) for span in region)] += 1
    return count


@given(boxes("ZYX"))
def test_boxes_that_are_apart_cover_the_same_pixels_once(regions: list[Region]) -> None:
    np.testing.assert_array_equal(painted(apart(regions), "ZYX"), painted(regions, "ZYX") > 0)


@settings(max_examples=60, deadline=None)
@given(axes=st.sampled_from(["YX", "TYX", "ZYX", "TXY"]), window=st.sampled_from([4, 8, 30]), data=st.data())
def test_every_wanted_pixel_belongs_to_one_part_that_sees_around_it(axes: str, window: int, data: st.DataObject) -> None:
    regions = data.draw(boxes(axes))
    spec = FLAT.model_copy(update={"window": (window, window)})
    mapped = map_axes(axes, tuple(SIZES[axis] for axis in axes), spec)
    parts = list(plan_parts(mapped, tuple(regions), spec.window))
    count = np.zeros([SIZES[axis] for axis in axes], int)
    for part in parts:
        for wanted in part.wanted:
            place = {**part.position, **dict(zip(mapped.spatial, (slice(*span) for span in wanted), strict=True))}
            count[tuple(place[axis] for axis in axes)] += 1
            for (low, high), start, stop, size in zip(wanted, part.start, part.stop, mapped.spatial_shape, strict=True):
                assert max(0, low - window // 2) >= start
                assert min(size, high + window // 2) <= stop
    np.testing.assert_array_equal(count, painted(regions, axes) > 0)
    samples = [tuple(part.position.values()) for part in parts]
    assert samples == sorted(samples), "what is measured of a frame is measured once"


@settings(max_examples=60, deadline=None)
@given(regions=boxes(), window=st.sampled_from([4, 8, 30]), overlap=st.sampled_from([0.0, 0.5, 0.75]))
def test_parts_take_no_more_tiles_than_their_frame_or_than_each_alone(regions: list[Region], window: int, overlap: float) -> None:
    spec, options = FLAT.model_copy(update={"window": (window, window)}), SegmentOptions(overlap=overlap)
    image = Volume(np.zeros((40, 60), np.float32), "YX")
    mapped = map_axes("YX", image.shape, spec)

    def tiles(*wanted: Region) -> int:
        return sum(len(layout.plan) for layout in lay_parts(image, mapped, spec, options, wanted)[1])

    frame = tuple((min(span[0] for span in spans), max(span[1] for span in spans)) for spans in zip(*regions, strict=True))
    assert tiles(*regions) <= max(tiles(frame), sum(tiles(region) for region in regions))
    apart_enough = all(
        any(one[axis][0] - other[axis][1] > window or other[axis][0] - one[axis][1] > window for axis in (0, 1))
        for place, one in enumerate(regions)
        for other in regions[:place]
    )
    if apart_enough:
        assert tiles(*regions) == sum(tiles(region) for region in regions)


@pytest.mark.parametrize(
    ("other", "parts"),
    [
        pytest.param(((30, 35), (50, 55)), 2, id="far apart"),
        pytest.param(((8, 12), (8, 12)), 1, id="overlapping"),
        pytest.param(((10, 14), (2, 10)), 1, id="touching"),
        pytest.param(((10, 14), (10, 14)), 1, id="touching at a corner"),
        pytest.param(((2, 10), (12, 20)), 1, id="so near that the frame takes no more tiles"),
        pytest.param(((3, 5), (4, 6)), 1, id="one inside the other"),
    ],
)
def test_what_is_run_together(other: Region, parts: int) -> None:
    mapped = map_axes("YX", (40, 60), FLAT)
    image = Volume(np.zeros((40, 60), np.float32), "YX")
    _, layouts = lay_parts(image, mapped, FLAT, SegmentOptions(), (((2, 10), (2, 10)), other))
    assert len(layouts) == parts


def test_what_joins_two_groups_joins_all_of_both() -> None:
    mapped = map_axes("YX", (40, 60), FLAT)
    bridge = (((0, 4), (0, 4)), ((0, 4), (40, 44)), ((2, 6), (2, 42)))
    (part,) = plan_parts(mapped, bridge, (8, 8))
    assert part == Part({}, (0, 0), (10, 48), apart(bridge))


def test_rectangles_on_other_frames_are_other_parts() -> None:
    mapped = map_axes("TYX", (9, 40, 60), FLAT)
    here, there = ((1, 2), (0, 5), (0, 5)), ((7, 8), (0, 5), (0, 5))
    parts = list(plan_parts(mapped, (here, there), (8, 8)))
    assert [part.position for part in parts] == [{"T": 1}, {"T": 7}], "nothing between them is computed"
    image = Volume(np.zeros((9, 40, 60), np.float32), "TYX")
    assert seen(mapped, lay_parts(image, mapped, FLAT, SegmentOptions(), (there, here))[1]) == (
        ((1, 2), (0, 9), (0, 9)),
        ((7, 8), (0, 9), (0, 9)),
    )


def test_a_region_outside_is_refused_among_others() -> None:
    mapped = map_axes("YX", (40, 60), FLAT)
    with pytest.raises(OptionsError, match="within 0 to 40"):
        list(plan_parts(mapped, (((0, 5), (0, 5)), ((39, 41), (0, 5))), (8, 8)))


def test_many_rectangles_are_laid_out_quickly() -> None:
    """Only neighbours are compared by their tiles, which takes long."""
    wide = map_axes("YX", (4000, 4000), FLAT)
    regions = tuple(((y, y + 10), (x, x + 10)) for y in range(0, 4000, 200) for x in range(0, 4000, 200))
    counted = 0

    def tiles(part: Part) -> int:
        nonlocal counted
        counted += 1
        return math.prod(part.shape)

    assert len(list(plan_parts(wide, regions, (8, 8), tiles=tiles))) == 400
    assert counted == 0
