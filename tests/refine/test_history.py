"""Undo and redo: many steps, in one order with another history, in little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.delta import Delta, Edit
from napari_tileseg.refine.history import EditLog, Mark
from napari_tileseg.refine.record import edit_bytes, edit_from

if TYPE_CHECKING:
    from numpy.typing import NDArray


def step(labels: NDArray[Any], corner: tuple[int, int], value: int, tool: str = "paint") -> Edit:
    box = tuple(slice(at, at + 3) for at in corner)
    delta = Delta.between(corner, labels[box].copy(), np.full(labels[box].shape, value, labels.dtype))
    return Edit(tool, (delta,) if delta else (), f"Painted {value}.")


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.one_of(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9)), st.sampled_from(["undo", "redo"])), max_size=60),
    st.sampled_from([0, 300, 1 << 20]),
)
def test_any_sequence_of_steps_comes_back(actions: list[Any], memory: int) -> None:
    labels = np.zeros((8, 8), np.int32)
    canvas, log = Canvas(labels), EditLog(memory=memory)
    states, place = [labels.copy()], 0
    for action in actions:
        if action == "undo":
            edit = log.undo()
            assert (edit is None) == (place == 0)
            if isinstance(edit, Edit):
                canvas.revert(edit)
                place -= 1
        elif action == "redo":
            edit = log.redo()
            assert (edit is None) == (place == len(states) - 1)
            if isinstance(edit, Edit):
                canvas.apply(edit)
                place += 1
        else:
            edit = step(labels, action[:2], action[2])
            if edit:
                canvas.apply(edit)
                log.add(edit)
                del states[place + 1 :]
                states.append(labels.copy())
                place += 1
        np.testing.assert_array_equal(labels, states[place])
        assert len(log) == place
    log.clear()


def test_a_thousand_steps_are_kept_and_memory_is_bounded() -> None:
    labels = np.zeros((400, 400), np.uint32)
    canvas, log = Canvas(labels), EditLog(memory=200_000)
    random = np.random.default_rng(0)
    first = labels.copy()
    for _ in range(300):
        corner = tuple(int(at) for at in random.integers(0, 300, 2))
        box = tuple(slice(at, at + 60) for at in corner)
        delta = Delta.between(corner, labels[box].copy(), random.integers(0, 2**31, (60, 60)).astype(np.uint32))
        assert delta is not None
        edit = Edit("paint", (delta,))
        canvas.apply(edit)
        log.add(edit)
        assert log.nbytes <= 200_000
    last = labels.copy()
    for _ in range(300):
        undone = log.undo()
        assert isinstance(undone, Edit)
        canvas.revert(undone)
    assert log.undo() is None
    np.testing.assert_array_equal(labels, first)
    while redone := log.redo():
        assert isinstance(redone, Edit)
        canvas.apply(redone)
    np.testing.assert_array_equal(labels, last)
    log.clear()


def test_the_oldest_steps_go() -> None:
    labels = np.zeros((8, 8), np.uint8)
    log = EditLog(steps=3)
    for value in range(1, 6):
        edit = step(labels, (0, 0), value)
        edit.apply(labels)
        log.add(edit)
    notes = []
    while edit := log.undo():  # type: ignore[assignment]
        notes.append(edit.note)
    assert notes == ["Painted 5.", "Painted 4.", "Painted 3."]


def test_steps_of_another_history_keep_their_place() -> None:
    labels = np.zeros((8, 8), np.uint8)
    log = EditLog()
    log.add(step(labels, (0, 0), 1, "merge"))
    log.mark("stroke 1")
    log.add(step(labels, (3, 3), 2, "split"))
    log.mark("stroke 2")
    assert log.counts() == {"merge": 1, "paint": 2, "split": 1}
    assert log.last == Mark("stroke 2")
    assert log.undo() == Mark("stroke 2")
    assert getattr(log.undo(), "tool", "") == "split"
    assert log.undo() == Mark("stroke 1")
    assert log.redo() == Mark("stroke 1")
    assert log.counts() == {"merge": 1, "paint": 1}
    log.mark("stroke 3")
    assert log.redo() is None
    log.add(Edit("nothing"))
    assert len(log) == 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, ">u2"])
def test_an_edit_of_any_type_comes_back_from_bytes(dtype: Any) -> None:
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 99, (3, 1, 4)).astype(dtype) for _ in range(2))
    edit = Edit("split", (Delta((5, 0, 2**40), first, second), Delta((0, 0, 0), second, first)), "Split µ.")
    back = edit_from(edit_bytes(edit))
    assert (back.tool, back.note, back.pixels) == (edit.tool, edit.note, edit.pixels)
    for one, other in zip(back.deltas, edit.deltas, strict=True):
        assert one.start == other.start
        assert one.before.dtype == other.before.dtype
        np.testing.assert_array_equal(one.before, other.before)
        np.testing.assert_array_equal(one.after, other.after)
