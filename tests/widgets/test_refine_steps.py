"""Undo and redo in one order with napari's own painting, edits that survive a crash, and saving."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from napari.layers import Labels
from refine_desk import blobs

from napari_tileseg.io import read_volume
from napari_tileseg.refine.delta import Delta, Edit
from napari_tileseg.widgets.refine import keeper as keeping
from napari_tileseg.widgets.refine import saving, steps
from napari_tileseg.widgets.refine.painted import edit_of
from napari_tileseg.widgets.refine.steps import Steps
from napari_tileseg.widgets.states import Action

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def random_edit(rng: np.random.Generator, data: Any, number: int) -> Edit:
    """Return a change of one box, or of two that lie apart."""
    shape = data.shape
    deltas = []
    for half in range(int(rng.integers(1, 3))):
        start = [int(rng.integers(0, size - 6)) for size in shape]
        start[0] = half * shape[0] // 2 + int(rng.integers(0, shape[0] // 2 - 6))
        box = tuple(slice(first, first + int(rng.integers(1, 6))) for first in start)
        before = np.array(data[box])
        after = np.where(rng.random(before.shape) < 0.5, rng.integers(0, 9, before.shape), before).astype(before.dtype)
        delta = Delta.between(start, before, after)
        deltas += [delta] if delta is not None else []
    return Edit(f"tool{number % 3}", tuple(deltas))


@pytest.mark.parametrize("large", [False, True], ids=["in napari's history", "in ours"])
@pytest.mark.parametrize("kind", ["numpy", "zarr"])
def test_any_sequence_is_undone_and_done_again(kind: str, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools, strokes, fills, undo and redo in any order: the labels are always those of the history that they tell."""
    rng = np.random.default_rng(5 + large)
    start = rng.integers(0, 9, (24, 30)).astype(np.uint16)
    data: Any = start.copy() if kind == "numpy" else zarr.array(start, chunks=(8, 8))
    layer = Labels(data)
    heard: list[str] = []
    history = Steps(layer, lambda edit, way: heard.append(way))
    past, future = [start.copy()], []
    for number in range(90):
        monkeypatch.setattr(steps, "SMALL", 0 if large and number % 2 else 1 << 16)
        deed = rng.choice(["edit", "stroke", "fill", "undo", "redo"], p=[0.3, 0.2, 0.1, 0.25, 0.15])
        if deed == "undo":
            assert (history.undo() is None) is (len(past) == 1)
            if len(past) > 1:
                future.append(past.pop())
        elif deed == "redo":
            assert (history.redo() is None) is (not future)
            if future:
                past.append(future.pop())
        else:
            if deed == "edit":
                history.do(random_edit(rng, layer.data, number))
            elif deed == "stroke":
                with layer.block_history():
                    for _ in range(3):
                        layer.paint(tuple(int(rng.integers(0, size)) for size in start.shape), int(rng.integers(0, 9)))
            else:
                layer.fill(tuple(int(rng.integers(0, size)) for size in start.shape), int(rng.integers(0, 9)))
            now = np.array(layer.data)
            if not np.array_equal(now, past[-1]):
                past.append(now)
                future.clear()
        np.testing.assert_array_equal(np.array(layer.data), past[-1])
    while history.undo() is not None:
        pass
    np.testing.assert_array_equal(np.array(layer.data), start)
    assert {"done", "undone", "redone"} <= set(heard)
    history.close()


def test_more_steps_than_napari_keeps_are_undone() -> None:
    start = np.zeros((12, 12), np.uint8)
    layer = Labels(start.copy())
    history = Steps(layer, lambda edit, way: None)
    for number in range(130):
        layer.data_setitem((np.array([number % 12]), np.array([number // 12])), 1 + number % 5)
    after = np.array(layer.data)
    while history.undo() is not None:
        pass
    np.testing.assert_array_equal(layer.data, start)
    while history.redo() is not None:
        pass
    np.testing.assert_array_equal(layer.data, after)
    history.close()


def test_what_napari_has_forgotten_is_undone_all_the_same() -> None:
    layer = Labels(blobs())
    history = Steps(layer, lambda edit, way: None)
    layer.fill((10, 10), 9)
    layer.editable = False  # napari forgets its history
    layer.editable = True
    layer.fill((10, 20), 8)
    assert history.undo() is not None
    assert history.undo() is not None
    np.testing.assert_array_equal(layer.data, blobs())
    history.close()


def test_small_steps_are_in_naparis_own_history_too() -> None:
    layer = Labels(blobs())
    history = Steps(layer, lambda edit, way: None)
    before = blobs()[5:15, 5:15]
    history.do(Edit("remove", (Delta((5, 5), before, np.zeros_like(before)),)))
    assert 1 not in layer.data
    history.close()
    layer.undo()
    np.testing.assert_array_equal(layer.data, blobs())


def test_an_edit_of_other_labels_is_refused() -> None:
    layer = Labels(blobs())
    history = Steps(layer, lambda edit, way: None)
    wrong = np.full((10, 10), 7, np.uint16)
    for size in (1 << 16, 0):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steps, "SMALL", size)
            with pytest.raises(Exception, match="changed since"):
                history.do(Edit("remove", (Delta((5, 5), wrong, wrong * 0),)))
    np.testing.assert_array_equal(layer.data, blobs())
    history.close()


def test_painting_is_told_before_and_after_it_is_written() -> None:
    """Whatever napari does first, the edit has both sides."""
    layer = Labels(blobs((3, 60, 80)))
    edits: list[Edit] = []
    layer.events.paint.connect(lambda event: edits.append(edit_of(event.value, layer.data)))
    layer.n_edit_dimensions = 3
    for deed in (
        lambda: layer.paint((1, 12, 14), 6),
        lambda: layer.fill((1, 30, 10), 5),
        lambda: layer.data_setitem((np.array([0, 2]), np.array([3, 4]), np.array([5, 6])), np.array([7, 8])),
    ):
        before = np.array(layer.data)
        deed()
        after = np.array(layer.data)
        edits[-1].revert(after)
        np.testing.assert_array_equal(after, before)
        edits[-1].apply(after)
        np.testing.assert_array_equal(after, layer.data)
    assert len(edits) == 3


def test_control_z_undoes_what_came_last(refine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "SMALL", 50)
    here = refine()
    here.add(blobs())
    states = [here.data.copy()]
    here.paint([(50, 20), (50, 24)], 5)
    states.append(here.data.copy())
    here.tool("remove")
    here.click(29, 10)  # larger than what napari is given
    states.append(here.data.copy())
    here.tool("remove")
    here.paint([(2, 60)], 6)
    states.append(here.data.copy())
    assert here.session.state.edits == 3
    assert here.layer.metadata["tileseg"]["edits"] == {"paint": 2, "remove": 1}
    for state in reversed(states[:-1]):
        here.press("Control-Z")
        np.testing.assert_array_equal(here.data, state)
    assert "edits" not in here.layer.metadata["tileseg"]
    here.press("Control-Z")
    assert here.text == "There is nothing to undo."
    for state in states[1:]:
        here.press("Control-Shift-Z")
        np.testing.assert_array_equal(here.data, state)
    index = here.session.work.canvas.index
    np.testing.assert_array_equal(index.ids(), np.unique(here.data)[1:])
    assert all(index.size(int(label)) == (here.data == label).sum() for label in index.ids())


def test_steps_are_kept_and_recovered(refine: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_WAIT", 50)
    here = refine()
    here.add(blobs(), name="cells", scale=(0.5, 0.25), units=("um", "um"))
    here.tool("remove")
    here.click(10, 10)
    here.tool("remove")
    here.paint([(50, 20)], 7)
    expected = here.data.copy()
    assert here.session.state.kept is None
    assert here.dock.note.text() == "2 edits, not kept yet."
    here.until(lambda: here.session.state.kept is not None)
    assert here.dock.note.text().startswith("2 edits, kept 0 s ago")
    monkeypatch.setattr("napari_tileseg.refine.autosave._running", lambda *_: False)
    here.viewer.layers.clear()
    other = refine()
    other.until(lambda: other.session.state.recovered)
    assert other.text == "2 edits were recovered."
    other.follow(Action.KEEP)
    np.testing.assert_array_equal(other.data, expected)
    assert other.layer.name == "cells"
    np.testing.assert_allclose(other.layer.scale, (0.5, 0.25))
    assert other.layer.metadata["tileseg"]["edits"] == {"paint": 1, "remove": 1}
    assert len(list((tmp_path / "edits").glob("*.tileseg-edits"))) == 1, "the old journal went when the new one was written"
    other.press("Control-Z")
    other.press("Control-Z")
    np.testing.assert_array_equal(other.data, blobs())


@pytest.mark.slow
def test_recovered_steps_are_done_on_the_labels_if_they_are_open(
    refine: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = refine()
    here.add(blobs())
    here.tool("remove")
    here.click(10, 10)
    here.session.keeper.flush()
    monkeypatch.setattr("napari_tileseg.refine.autosave._running", lambda *_: False)
    other = refine()
    layer = other.add(blobs())
    other.until(lambda: other.session.state.recovered)
    other.follow(Action.KEEP)
    assert len(other.viewer.layers) == 1
    assert 1 not in layer.data
    other.until(lambda: not other.session.state.recovered)
    third = refine()
    third.until(lambda: third.session.state.recovered)
    third.follow(Action.DISCARD)
    assert not list((tmp_path / "edits").glob("*.tileseg-edits"))


def test_saved_labels_carry_what_was_done_and_need_no_journal(
    refine: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = refine()
    here.add(blobs(), name="cells", scale=(0.5, 0.25), units=("um", "um"))
    here.tool("remove")
    here.click(10, 10)
    here.session.keeper.flush()
    assert list((tmp_path / "edits").glob("*"))
    path = tmp_path / "cells.ome.tif"
    monkeypatch.setattr(saving, "ask", lambda *_, **__: path)
    here.dock.save()
    here.until(lambda: here.text == "Saved as cells.ome.tif.")
    volume = read_volume(path)
    np.testing.assert_array_equal(np.asarray(volume.data), here.data)
    assert volume.spacing["Y"] == 0.5
    assert '"remove": 1' in str(path.read_bytes()) or "remove" in str(volume.metadata)
    assert not list((tmp_path / "edits").glob("*"))


@pytest.mark.parametrize("shape", [(300,), (700, 900), (70, 90, 200), (2, 40, 60, 70)])
def test_steps_in_many_blocks_are_edits_bit_for_bit(shape: tuple[int, ...]) -> None:
    """Changes with masks, boxes and lists of pixels, over each other, in one step."""
    random = np.random.default_rng(len(shape))
    before = random.integers(0, 9, shape).astype(np.uint16)
    after, item = before.copy(), []
    for kind in ("mask", "box", "pixels", "mask", "pixels", "one"):
        low = [int(random.integers(0, size // 2 + 1)) for size in shape]
        box = tuple(slice(a, int(random.integers(a + 1, size + 1))) for a, size in zip(low, shape, strict=True))
        if kind in ("pixels", "one"):
            count = 400 if kind == "pixels" else 1
            index = tuple(random.integers(0, size, count) for size in shape)
            index = tuple(np.unique(np.stack(index), axis=1))
            values = random.integers(0, 9, index[0].size).astype(np.uint16)
            item.append((index, after[index].copy(), values))
            after[index] = values
        else:
            mask = random.random(after[box].shape) < 0.3 if kind == "mask" else None
            old = after[box][mask].copy() if mask is not None else after[box].copy()
            item.append((box, mask, old, np.uint16(random.integers(0, 9))))
            after[box] = np.where(mask, item[-1][3], after[box]) if mask is not None else item[-1][3]
    for now in (before, after):  # napari tells before it writes, or after
        edit = edit_of(item, now)
        found = before.copy()
        edit.apply(found)
        np.testing.assert_array_equal(found, after)
        edit.revert(found)
        np.testing.assert_array_equal(found, before)
        assert edit.pixels == np.count_nonzero(before != after), "no pixel lies in two boxes"


def test_a_long_stroke_takes_no_more_than_the_blocks_that_it_touches() -> None:
    layer = Labels(np.zeros((300, 300, 300), np.uint8))
    edits: list[Edit] = []
    layer.events.paint.connect(lambda event: edits.append(edit_of(event.value, layer.data)))
    layer.n_edit_dimensions, layer.brush_size = 3, 9
    with layer.block_history():
        for at in range(10, 290, 5):
            layer.paint((at, at, at), 3)
    (edit,) = edits
    held = sum(int(np.prod(delta.shape)) for delta in edit.deltas)
    assert held < layer.data.size / 10, "a stroke from corner to corner has the whole volume as its box"
    done = np.zeros_like(layer.data)
    edit.apply(done)
    np.testing.assert_array_equal(done, layer.data)
