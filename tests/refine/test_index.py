"""The index of objects stays true, whatever is done to labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from napari_tileseg.errors import Cancelled, InputError, OptionsError
from napari_tileseg.refine.blocks import blocks
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.census import census, joined
from napari_tileseg.refine.delta import Delta, Edit
from napari_tileseg.refine.index import ObjectIndex

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

LABELS = arrays(np.uint8, st.tuples(*(st.integers(1, 7),) * 3), elements=st.integers(0, 5))


@given(LABELS)
def test_a_census_counts_every_pixel(labels: NDArray[np.uint8]) -> None:
    found = census(labels, (10, 20, 30))
    assert found.ids.tolist() == sorted(set(labels[labels > 0].tolist()))
    for row, value in enumerate(found.ids):
        places = np.argwhere(labels == value) + np.array([10, 20, 30])
        assert found.sizes[row] == len(places)
        np.testing.assert_array_equal(found.first[row], places.min(axis=0))
        np.testing.assert_array_equal(found.stop[row], places.max(axis=0) + 1)


@given(LABELS, st.integers(1, 40), st.tuples(*(st.integers(1, 4),) * 3))
def test_blocks_cover_all_once_and_counts_of_them_add_up(labels: NDArray[np.uint8], pixels: int, chunks: tuple[int, ...]) -> None:
    whole = tuple(slice(0, size) for size in labels.shape)
    for given_chunks in (None, chunks):
        seen = np.zeros(labels.shape, int)
        parts = []
        for box in blocks(whole, given_chunks, pixels):
            seen[box] += 1
            parts.append(census(labels[box], [part.start for part in box]))
            if given_chunks is None:
                assert labels[box].size <= pixels
            else:
                assert all(part.start % chunk == 0 for part, chunk in zip(box, chunks, strict=True))
        assert (seen == 1).all()
        together, once = joined(parts), census(labels)
        for name in ("ids", "sizes", "first", "stop"):
            np.testing.assert_array_equal(getattr(together, name), getattr(once, name))


@given(st.data())
def test_blocks_of_any_box_follow_the_chunks(data: st.DataObject) -> None:
    box = tuple(slice(start, start + data.draw(st.integers(1, 9))) for start in data.draw(st.tuples(*(st.integers(0, 9),) * 2)))
    chunks = data.draw(st.tuples(*(st.integers(1, 6),) * 2))
    seen = np.zeros((20, 20), int)
    for part in blocks(box, chunks, 1):
        seen[part] += 1
        assert all(side.start // size == (side.stop - 1) // size for side, size in zip(part, chunks, strict=True))
    assert (seen[box] == 1).all()
    assert seen.sum() == (seen > 0).sum() == seen[box].size


class Painter(RuleBasedStateMachine):
    """Boxes of random values, put on labels and taken off again in any order that an undo allows."""

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(0)
        self.labels = (random.integers(0, 4, (2, 5, 6, 7)) * (random.random((2, 5, 6, 7)) > 0.5)).astype(np.int16)
        self.first = self.labels.copy()
        self.canvas = Canvas(self.labels, space=(1, 2, 3))
        self.canvas.look()
        self.done: list[Edit] = []
        self.undone: list[Edit] = []

    @rule(
        corner=st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 5), st.integers(0, 6)),
        size=st.tuples(st.integers(1, 2), *(st.integers(1, 5),) * 3),
        value=st.integers(0, 6),
        only=st.integers(0, 4),
    )
    def paint(self, corner: tuple[int, ...], size: tuple[int, ...], value: int, only: int) -> None:
        box = tuple(slice(at, at + by) for at, by in zip(corner, size, strict=True))
        before = self.labels[box].copy()
        after = np.where((before == only) | (only == 4), value, before).astype(before.dtype)
        delta = Delta.between(corner, before, after)
        if delta is not None:
            self.done.append(Edit("paint", (delta,)))
            self.undone.clear()
            self.canvas.apply(self.done[-1])

    @rule()
    def undo(self) -> None:
        if self.done:
            self.undone.append(self.done.pop())
            self.canvas.revert(self.undone[-1])

    @rule()
    def redo(self) -> None:
        if self.undone:
            self.done.append(self.undone.pop())
            self.canvas.apply(self.done[-1])

    @rule(object_id=st.integers(1, 6))
    def draw_in(self, object_id: int) -> None:
        """Ask for a box between edits, so that loose faces are drawn in at any time."""
        if object_id in self.canvas.index:
            self.canvas.index.box(object_id)

    @invariant()
    def index_is_true(self) -> None:
        fresh = ObjectIndex(self.labels, (1, 2, 3))
        for position in fresh.positions():
            for found, expected in zip(self.canvas.index.table(position), fresh.table(position), strict=True):
                np.testing.assert_array_equal(found, expected)

    @invariant()
    def bounds_hold_everything(self) -> None:
        for position in self.canvas.index.positions():
            for object_id in self.canvas.index.ids(position).tolist():
                bound = self.canvas.index.bound(object_id, position)
                assert np.count_nonzero(self.labels[bound] == object_id) == self.canvas.index.size(object_id, position)

    def teardown(self) -> None:
        fresh = ObjectIndex(self.labels, (1, 2, 3))
        for position in fresh.positions():
            for object_id in fresh.ids(position).tolist():
                assert self.canvas.index.box(object_id, position) == fresh.box(object_id, position)
        while self.done:
            self.canvas.revert(self.done.pop())
        np.testing.assert_array_equal(self.labels, self.first)


Painter.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestPainter = Painter.TestCase


def test_a_new_id_is_above_all_that_ever_were() -> None:
    labels = np.zeros((4, 4), np.uint8)
    labels[0, 0], labels[1, 1] = 3, 9
    canvas = Canvas(labels)
    assert canvas.index.free_ids(2) == [10, 11]
    canvas.apply(Edit("remove", (Delta((1, 1), np.array([[9]], np.uint8), np.array([[0]], np.uint8)),)))
    assert canvas.index.free_id() == 10


def test_ids_that_do_not_fit_fill_gaps_or_are_refused() -> None:
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    labels[labels == 7] = 0
    canvas = Canvas(labels)
    assert canvas.index.free_id() == 7
    with pytest.raises(OptionsError, match=r"uint8.*255.*Convert"):
        canvas.index.free_ids(2)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64])
def test_large_ids_are_kept(dtype: Any) -> None:
    high = int(np.iinfo(dtype).max)
    labels = np.array([[high, 0, 5]], dtype)
    canvas = Canvas(labels)
    assert canvas.index.ids().tolist() == [5, high]
    assert canvas.ids_at((0, 0)) == [high]
    assert canvas.index.size(high) == 1
    with pytest.raises(OptionsError):
        canvas.index.free_id()


def test_what_is_not_there_is_a_sentence() -> None:
    canvas = Canvas(np.zeros((3, 4, 5, 6), np.uint8))
    with pytest.raises(InputError, match="no object 4"):
        canvas.index.box(4)
    with pytest.raises(InputError, match="nothing at position"):
        canvas.index.ids((7,))
    with pytest.raises(InputError, match="nothing at position"):
        canvas.place((3,))
    with pytest.raises(Cancelled):
        canvas.look(cancel=lambda: True)


@pytest.mark.parametrize(
    ("labels", "options", "says"),
    [
        (np.zeros((4, 4), np.float32), {}, "whole numbers"),
        (np.zeros((4, 4), np.bool_), {}, "whole numbers"),
        (np.zeros((0, 4), np.uint8), {}, "shape"),
        (np.zeros(4, np.uint8), {}, "planes or volumes"),
        ([np.zeros((4, 4), np.uint8)], {}, "several resolutions"),
        (np.zeros((4, 4), np.uint8), {"spacing": (0, 1)}, "above 0"),
        (np.zeros((4, 4), np.uint8), {"spacing": (1, 1, 1)}, "2 axes"),
    ],
)
def test_what_is_no_canvas_is_a_sentence(labels: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises((InputError, OptionsError), match=says):
        Canvas(labels, **options)


def test_read_only_labels_are_not_changed() -> None:
    labels = np.ones((4, 4), np.uint8)
    labels.flags.writeable = False
    edit = Edit("remove", (Delta((0, 0), np.ones((1, 1), np.uint8), np.zeros((1, 1), np.uint8)),))
    with pytest.raises(InputError, match="only be read"):
        Canvas(labels).apply(edit)


def test_an_edit_of_other_labels_changes_nothing(same_index: Callable[[Canvas], None]) -> None:
    labels = np.ones((4, 4), np.uint8)
    canvas = Canvas(labels)
    good = Delta((0, 0), np.ones((1, 2), np.uint8), np.full((1, 2), 3, np.uint8))
    bad = Delta((2, 2), np.full((1, 1), 9, np.uint8), np.full((1, 1), 3, np.uint8))
    with pytest.raises(InputError, match="were changed"):
        canvas.apply(Edit("paint", (good, bad)))
    assert (labels == 1).all()
    canvas.apply(Edit("paint", (good,)))
    labels[0, 0] = 8  # by something else
    canvas.look()
    with pytest.raises(InputError, match="cannot be undone"):
        canvas.revert(Edit("paint", (good,)))
    same_index(canvas)


def test_what_napari_painted_becomes_an_edit(same_index: Callable[[Canvas], None]) -> None:
    labels = np.zeros((6, 8), np.uint16)
    labels[2:4, 2:6] = 4
    canvas = Canvas(labels)
    canvas.look()
    before = labels.copy()
    strokes = []
    for rows, columns, value in (((1, 2, 2), (1, 2, 3), 9), ((2, 3), (3, 4), 7)):
        indices = (np.array(rows), np.array(columns))
        strokes.append((indices, labels[indices].copy(), value))
        labels[indices] = value
    after = labels.copy()
    edit = Edit.painted(labels, strokes)
    canvas.noted(edit)
    same_index(canvas)
    canvas.revert(edit)
    np.testing.assert_array_equal(labels, before)
    indices, values = edit.points()
    labels[indices] = values
    np.testing.assert_array_equal(labels, after)
    assert not Edit.painted(labels, [])


def test_points_give_each_pixel_once_with_its_last_value() -> None:
    first = Delta((0, 0), np.zeros((1, 3), np.uint8), np.array([[1, 1, 0]], np.uint8))
    second = Delta((0, 1), np.array([[1, 0]], np.uint8), np.array([[2, 2]], np.uint8))
    indices, values = Edit("x", (first, second)).points()
    assert dict(zip(indices[1].tolist(), values.tolist(), strict=True)) == {0: 1, 1: 2, 2: 2}
