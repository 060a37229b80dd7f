"""Plans of tiles: what must hold for any image and window, then examples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.engine.places import steps_cellpose, steps_even, steps_fixed, steps_inside
from napari_tileseg.engine.tiles import Tile, TilePlan, mirror, plan_tiles
from napari_tileseg.errors import OptionsError

BLENDINGS = ["gaussian", "constant", "nnunet", "crop"]


@st.composite
def plans(draw: st.DrawFn) -> TilePlan:
    ndim = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 30)) for _ in range(ndim))
    offset = tuple(draw(st.integers(0, 3)) for _ in range(ndim))
    window = tuple(draw(st.integers(1 + 2 * lost, 20)) for lost in offset)
    return plan_tiles(
        shape,
        window,
        overlap=draw(st.floats(0, 0.9)),
        steps=draw(st.sampled_from(["fixed", "even", "aligned"])),
        output_offset=offset,
        blending=draw(st.sampled_from(BLENDINGS)),
        strides=tuple(draw(st.integers(1, size - 2 * lost)) for size, lost in zip(window, offset, strict=True)),
    )


@given(plans())
def test_kept_parts_cover_the_image_and_lie_inside_what_the_network_returns(plan: TilePlan) -> None:
    count = np.zeros(plan.canvas.shape, dtype=int)
    number = 0
    for row in plan.rows():
        for tile in plan.tiles(row.index):
            number += 1
            assert tile.seen.shape == plan.window
            inside = plan.within(tile)
            assert inside.shape == tile.kept.shape
            assert all(0 <= start and stop <= size for (start, stop), size in zip(inside.bounds, plan.output, strict=True))
            assert (tile.kept.start[0], tile.kept.stop[0]) == row.kept
            assert (tile.seen.start[0], tile.seen.stop[0]) == row.seen
            count[tile.kept.relative_to(plan.canvas.start).slices] += 1
    assert number == len(plan) == plan.n_rows * plan.tiles_per_row
    assert count.min() >= 1
    if plan.blending == "crop":
        assert count.max() == 1
        assert plan.canvas == Tile((0,) * len(plan.shape), plan.shape)


@given(plans())
def test_finished_ranges_are_side_by_side_and_no_later_tile_touches_them(plan: TilePlan) -> None:
    edge = plan.canvas.start[0]
    for row in plan.rows():
        assert row.finished[0] == row.kept[0] == edge
        edge = row.finished[1]
        assert row.kept[1] - row.kept[0] <= plan.depth
        assert all(later.kept[0] >= edge for later in plan.rows(row.index + 1))
    assert edge == plan.canvas.stop[0]


@given(plans(), st.integers(0, 40))
def test_rows_that_may_be_skipped_touch_nothing_later(plan: TilePlan, skip: int) -> None:
    first = plan.first_row(skip)
    assert all(min(row.kept[1], plan.shape[0]) <= skip for row in plan.rows() if row.index < first)
    assert all(row.kept[1] > skip for row in plan.rows(first))
    if skip < plan.shape[0]:
        assert first < plan.n_rows


@given(plans())
def test_padding_is_what_lies_outside_the_image(plan: TilePlan) -> None:
    for (before, after), size, seen in zip(plan.padding, plan.shape, plan.seen.bounds, strict=True):
        assert seen == (-before, size + after)
        if not plan.mirrored:
            assert after - before in (0, 1)  # the odd pixel comes after


@given(st.integers(1, 200), st.integers(1, 50), st.floats(0, 0.99))
def test_steps_cover_the_axis(length: int, window: int, overlap: float) -> None:
    length = max(length, window)
    for starts in (steps_fixed(length, window, overlap), steps_even(length, window, overlap)):
        assert starts[0] == 0
        assert starts[-1] == length - window
        assert all(0 <= later - earlier <= window for earlier, later in itertools.pairwise(starts))


@given(st.integers(-60, 60), st.integers(0, 60), st.integers(1, 20))
def test_mirror_is_what_numpy_calls_reflect(start: int, size: int, length: int) -> None:
    reach = 150
    expected = np.pad(np.arange(length), reach, mode="reflect")[start + reach : start + size + reach]
    np.testing.assert_array_equal(mirror(start, start + size, length), expected)


def test_fixed_steps_move_the_last_window_inside() -> None:
    assert steps_fixed(10, 4, 0.5) == [0, 2, 4, 6]
    assert steps_fixed(11, 4, 0.5) == [0, 2, 4, 6, 7]
    assert steps_fixed(4, 4, 0.5) == [0]
    assert steps_fixed(7, 2, 0.9) == [0, 1, 2, 3, 4, 5]  # at least one pixel


def test_even_steps_are_spread() -> None:
    assert steps_even(110, 64, 0.5) == [0, 23, 46]


def test_crop_cuts_the_last_part() -> None:
    plan = plan_tiles((10,), (8,), overlap=0.5, blending="crop")
    assert [tile.kept.bounds for row in plan.rows() for tile in plan.tiles(row.index)] == [((0, 4),), ((4, 8),), ((8, 10),)]
    assert plan.padding == ((2, 2),)


@given(
    length=st.integers(1, 500), k=st.integers(12, 40), overlap=st.floats(0, 0.3), stride=st.sampled_from([1, 2, 16]), turned=st.booleans()
)
def test_aligned_tiles_lie_multiples_of_the_stride_apart(length: int, k: int, overlap: float, stride: int, turned: bool) -> None:
    plan = plan_tiles(
        (length,),
        (16 * k + 12,),
        overlap=overlap,
        output_offset=(92,),
        blending="crop",
        steps="aligned",
        strides=(stride,),
        from_end=(turned,),
    )
    first = length - plan.steps[0][-1].start - plan.window[0] if turned else plan.steps[0][0].start
    assert (first + 92) % stride == 0  # so that runs with other windows meet the same pixels
    assert all((later.start - earlier.start) % stride == 0 for earlier, later in itertools.pairwise(plan.steps[0]))
    fewest = -(-length // plan.output[0])
    assert len(plan) >= fewest
    if not overlap:
        assert len(plan) == -(-length // (plan.output[0] // stride * stride))


def test_valid_convolutions_see_beyond_the_border() -> None:
    plan = plan_tiles((388, 388), (572, 572), overlap=0.0, output_offset=(92, 92), blending="crop")
    assert len(plan) == 1
    assert plan.padding == ((92, 92), (92, 92))
    assert plan.output == (388, 388)


def test_tiles_know_whether_they_overlap() -> None:
    tile = Tile((0, 0), (4, 4))
    assert tile.overlaps(Tile((3, 3), (5, 5)))
    assert not tile.overlaps(Tile((4, 0), (5, 5)))
    assert Tile((-1, 2), (3, 9)).clipped((2, 8)) == Tile((0, 2), (2, 8))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"window": (4,)}, "Give one size for each axis"),
        ({"overlap": 1.0}, "from 0 to below 1"),
        ({"output_offset": (2, 1)}, "Use a larger window"),
        (
            {"window": (188, 204), "output_offset": (92, 92), "steps": "aligned", "blending": "crop", "strides": (16, 16)},
            "window of 204 or",
        ),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(OptionsError, match=sentence):
        plan_tiles((9, 9), **{"window": (4, 4), "overlap": 0.5, **arguments})  # type: ignore[arg-type]


@given(
    length=st.integers(1, 200),
    multiple=st.sampled_from([1, 2, 8]),
    most=st.integers(1, 12),
    overlap=st.floats(0, 0.9),
    places=st.integers(1, 2),
)
def test_windows_inside_begin_and_end_with_the_image(length: int, multiple: int, most: int, overlap: float, places: int) -> None:
    plan = plan_tiles((length,) * places, (most * multiple,) * places, overlap=overlap, steps="inside", strides=(multiple,) * places)
    padded = -(-length // multiple) * multiple
    steps = plan.steps[0]
    assert plan.window[0] == min(most * multiple, padded)
    assert steps[0].start == 0
    assert steps[-1].start + plan.window[0] == padded
    assert [step.keep[0] for step in steps] == [0, *(step.keep[1] for step in steps[:-1])]
    assert steps[-1].keep[1] == length
    assert all(step.start % multiple == 0 for step in steps)
    assert plan.mirrored and plan.blending == "crop"
    halo = int(plan.window[0] * overlap) // 2 // multiple * multiple if len(steps) > 1 else 0
    for step in steps:  # half of the overlap at least lies between what is kept and a border that is none of the image
        assert step.start == 0 or step.keep[0] - step.start >= halo
        assert step.start + plan.window[0] == padded or step.start + plan.window[0] - step.keep[1] >= halo


@given(length=st.integers(1, 900), window=st.sampled_from([224, 256]), overlap=st.floats(0, 0.7), early=st.booleans())
def test_windows_of_cellpose_cover_the_padded_axis(length: int, window: int, overlap: float, early: bool) -> None:
    steps = steps_cellpose(length, window, overlap, early=early)
    window = steps[0].keep[1] - steps[0].keep[0]
    before, after = -steps[0].start, steps[-1].start + window - length
    assert before >= 8 and after >= 8 and 0 <= after - before <= 1
    assert all(later.start - first.start <= window * 0.95 + 1 for first, later in itertools.pairwise(steps))


def test_windows_of_cellpose_are_where_cellpose_has_them() -> None:
    # From make_tiles and get_pad_yx of Cellpose 3.1 and 4.2: 520 pixels are padded to 544; 100 to 128, or to 256.
    assert [step.start + 12 for step in steps_cellpose(520, 224, 0.1, early=True)] == [0, 160, 320]
    assert [(step.start, step.keep[1]) for step in steps_cellpose(100, 224, 0.1, early=True)] == [(-14, 114)]
    assert [step.start for step in steps_cellpose(100, 256, 0.1, early=False)] == [-78]
    steps = steps_inside(100, 48, 0.5, 8)
    assert [(step.start, step.keep) for step in steps] == [(0, (0, 36)), (24, (36, 60)), (48, (60, 76)), (56, (76, 100))]
