"""Edits and marks are kept beside their file, offered and never done unasked; labels of several scales too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from refine_desk import blobs

from napari_tileseg.io import read_volume, write_labels
from napari_tileseg.refine.objects import remove
from napari_tileseg.volume import Volume
from napari_tileseg.widgets.refine import saving
from napari_tileseg.widgets.refine.checks import checks, mark, say
from napari_tileseg.widgets.states import Action

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture
def _over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every program that kept edits for ended, this one too."""
    monkeypatch.setattr("napari_tileseg.refine.autosave._running", lambda *_: False)


def saved(path: Path, labels: NDArray[Any] | None = None) -> Path:
    data = blobs() if labels is None else labels
    write_labels(Volume.from_scale(data, "YX", (0.5, 0.25), units=("micrometer",) * 2, name="cells"), path)
    return path


def opened(here: Any, path: Path) -> Any:
    """Open a file as the menu does, and wait until its objects are known."""
    here.viewer.open(str(path), plugin="napari-tileseg")
    here.until(lambda: here.session.labels is not None and (here.session.work is None or here.session.work.canvas.looked))
    return here.layer


def journals(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.tileseg-edits"))


def edit(here: Any, label: int = 2) -> None:
    assert here.session.attempt(lambda: remove(here.session.work.canvas, label))


def test_edits_and_marks_of_a_file_are_kept_beside_it_and_offered_to_who_opens_it(
    refine: Callable[..., Any], tmp_path: Path, _over: None
) -> None:
    (tmp_path / "data").mkdir()
    path = saved(tmp_path / "data" / "cells.ome.tif")
    here = refine()
    layer = opened(here, path)
    edit(here)
    mark(layer, {1: "accepted", 3: "fix"})
    mark(layer, {3: ""})
    say(layer, "class", {1: "nucleus"})
    here.session.keeper.flush()
    (journal,) = journals(tmp_path)
    assert journal.parent == path.parent
    assert journal.name.startswith(".cells.ome.tif.")
    assert str(tmp_path).encode() not in journal.read_bytes(), "the folder may be moved"

    other = refine()
    theirs = opened(other, path)
    other.until(lambda: other.session.state.recovered)
    np.testing.assert_array_equal(other.data, blobs(), "nothing is done unasked")
    assert other.text == "1 edit and 1 mark were recovered."
    other.follow(Action.KEEP)
    assert 2 not in other.data
    assert other.layer is theirs
    assert checks(theirs) == {1: "accepted"}
    assert theirs.features["class"][theirs.features["index"] == 1].tolist() == ["nucleus"]
    assert other.session.state.recovered == 0
    assert journals(tmp_path) != [journal], "they are in a journal of this program now"
    other.press("Control-Z")
    np.testing.assert_array_equal(other.data, blobs())


@pytest.mark.slow
def test_two_programs_with_one_file_do_not_mix(refine: Callable[..., Any], tmp_path: Path) -> None:
    path = saved(tmp_path / "cells.ome.tif")
    for label in (2, 3):
        here = refine()
        opened(here, path)
        edit(here, label)
        here.session.keeper.flush()
        assert here.session.state.recovered == 0, "the other one is still there"
    assert len(journals(tmp_path)) == 2


@pytest.mark.slow
def test_edits_of_a_file_that_has_changed_since_are_refused_and_kept(refine: Callable[..., Any], tmp_path: Path, _over: None) -> None:
    path = saved(tmp_path / "cells.ome.tif")
    here = refine()
    opened(here, path)
    edit(here)
    here.session.keeper.flush()
    here.viewer.layers.clear()
    changed = blobs()
    changed[changed == 4] = 0
    path.unlink()
    saved(path, changed)
    other = refine()
    layer = opened(other, path)
    other.until(lambda: other.session.state.recovered)
    other.follow(Action.KEEP)
    assert "was changed by something else" in other.text
    np.testing.assert_array_equal(layer.data, changed)
    assert len(journals(tmp_path)) == 1
    other.follow(Action.OPEN_COPY)
    assert len(other.viewer.layers) == 2
    assert 2 not in other.data
    assert 4 in other.data
    np.testing.assert_array_equal(layer.data, changed)


@pytest.mark.slow
def test_edits_that_were_saved_in_another_way_are_not_done_twice(refine: Callable[..., Any], tmp_path: Path, _over: None) -> None:
    path = saved(tmp_path / "cells.ome.tif")
    here = refine()
    opened(here, path)
    edit(here)
    here.session.keeper.flush()
    here.viewer.layers.clear()
    path.unlink()
    saved(path, np.where(blobs() == 2, 0, blobs()))
    other = refine()
    opened(other, path)
    other.until(lambda: other.session.state.recovered)
    other.follow(Action.KEEP)
    assert "in the labels already" in other.text
    assert not journals(tmp_path)


@pytest.mark.slow
def test_saving_ends_the_journal_and_the_next_one_lies_beside_what_was_saved(
    refine: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = refine()
    layer = here.add(blobs(), name="cells")
    edit(here)
    mark(layer, {3: "rejected"})
    here.session.keeper.flush()
    assert len(journals(tmp_path / "edits")) == 1
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(saving, "ask", lambda *_, **__: tmp_path / "out" / "cells.nii.gz")
    here.dock.save()
    here.until(lambda: here.text == "Saved as cells.nii.gz.")
    assert not journals(tmp_path)
    edit(here, 1)
    here.session.keeper.flush()
    (journal,) = journals(tmp_path)
    assert journal.parent == tmp_path / "out"
    here.viewer.layers.clear()
    again = opened(here, tmp_path / "out" / "cells.nii.gz")
    assert checks(again) == {3: "rejected"}, "what was saved comes back"
    assert again.metadata["tileseg"]["edits"] == {"remove": 1}


def test_what_napari_saves_by_itself_needs_no_journal(refine: Callable[..., Any], tmp_path: Path) -> None:
    here = refine()
    layer = here.add(blobs(), name="cells", scale=(0.5, 0.25), units=("um", "um"))
    edit(here)
    here.paint([(50, 20)], 9)
    mark(layer, {3: "accepted"})
    here.session.keeper.flush()
    assert journals(tmp_path)
    assert layer.save(str(tmp_path / "cells.ome.tif"), plugin="napari-tileseg")
    assert not journals(tmp_path)
    expected = here.data.copy()
    again = opened(here, tmp_path / "cells.ome.tif")
    np.testing.assert_array_equal(np.asarray(again.data), expected)
    np.testing.assert_allclose(again.scale, layer.scale)
    assert again.metadata["tileseg"]["edits"] == {"paint": 1, "remove": 1}
    assert checks(again) == {3: "accepted"}


@pytest.mark.slow
def test_a_layer_that_is_taken_out_and_put_in_again_has_one_journal(refine: Callable[..., Any], tmp_path: Path, _over: None) -> None:
    here = refine()
    layer = here.add(blobs(), name="cells")
    edit(here)
    here.viewer.layers.remove(layer)
    assert len(journals(tmp_path)) == 1, "nobody has saved it"
    here.viewer.add_layer(layer)
    here.until(lambda: here.session.work is not None and here.session.work.canvas.looked)
    assert len(journals(tmp_path)) == 1
    edit(here, 3)
    here.session.keeper.flush()
    assert len(journals(tmp_path)) == 1
    other = refine()
    other.until(lambda: other.session.state.recovered)
    other.follow(Action.KEEP)
    np.testing.assert_array_equal(np.isin(other.data, (2, 3)), False)
    assert len(other.viewer.layers) == 1


def pyramid(path: Path) -> NDArray[Any]:
    start = np.kron(blobs((60, 80)), np.ones((20, 10), np.uint16)).astype(np.uint16)  # (1200, 800): three levels
    write_labels(Volume.from_scale(start, "YX", (0.5, 0.5), units=("micrometer",) * 2, name="large"), path, provenance={"model": "m"})
    return start


def test_a_region_of_a_store_goes_back_into_all_its_scales_with_marks(refine: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "large.ome.zarr"
    start = pyramid(path)
    here = refine()
    whole = opened(here, path)
    assert whole.multiscale
    here.follow(Action.EDIT)
    here.until(lambda: here.session.work is not None and here.session.work.canvas.looked)
    assert not whole.visible, "what is removed would shine through"
    edit(here)
    here.paint([(900, 100)], 9)
    mark(here.layer, {1: "accepted"})
    expected = here.data.copy()
    here.press("Control-Z")
    here.press("Control-Z")
    np.testing.assert_array_equal(here.data, start)
    here.press("Control-Shift-Z")
    here.press("Control-Shift-Z")
    here.session.keeper.flush()
    assert len(journals(tmp_path)) == 1
    here.follow(Action.PUT_BACK)
    assert whole.visible
    assert here.layer is whole
    assert not journals(tmp_path)
    group = zarr.open_group(path, mode="r")
    for level in range(len(whole.data)):
        np.testing.assert_array_equal(group[str(level)][...], expected[:: 2**level, :: 2**level])
    told = read_volume(path).metadata["provenance"]
    assert told == {"model": "m", "edits": {"paint": 1, "remove": 1}, "checked": {"accepted": 1}, "checks": {"accepted": [1]}}
    here.viewer.layers.clear()
    assert checks(opened(here, path)) == {1: "accepted"}


@pytest.mark.slow
@pytest.mark.parametrize("written", ["not yet", "in part", "by somebody else"])
def test_a_region_that_was_left_behind_is_opened_again(
    refine: Callable[..., Any], tmp_path: Path, _over: None, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    path = tmp_path / "large.ome.zarr"
    start = pyramid(path)
    here = refine()
    opened(here, path)
    here.follow(Action.EDIT)
    here.until(lambda: here.session.work is not None and here.session.work.canvas.looked)
    edit(here)
    mark(here.layer, {1: "fix"})
    here.session.keeper.flush()
    here.session.keeper.close()  # as if it had ended here
    finest = zarr.open_group(path, mode="r+")["0"]
    if written == "in part":
        finest[:200] = np.where(start == 2, 0, start)[:200]
    elif written == "by somebody else":
        finest[300:400, 700:] = 77
    other = refine()
    whole = opened(other, path)
    other.until(lambda: other.session.state.recovered)
    other.follow(Action.KEEP)
    if written == "by somebody else":
        assert "was changed by something else" in other.text
        assert len(journals(tmp_path)) == 1
        np.testing.assert_array_equal(finest[300:400, 700:], 77)
        return
    assert other.session.regions.whole(other.layer) is whole
    np.testing.assert_array_equal(other.data, np.where(start == 2, 0, start))
    assert checks(other.layer) == {1: "fix"}
    other.press("Control-Z")
    np.testing.assert_array_equal(other.data, start)
    other.press("Control-Shift-Z")
    other.session.regions.put_back()
    np.testing.assert_array_equal(finest[...], np.where(start == 2, 0, start))
    assert not journals(tmp_path)


def test_labels_of_one_scale_are_changed_in_their_store_with_marks(refine: Callable[..., Any], tmp_path: Path) -> None:
    path = saved(tmp_path / "cells.ome.zarr")
    here = refine()
    layer = opened(here, path)
    assert here.session.work is not None
    here.paint([(50, 20)], 9)
    layer.fill((10, 10), 8)
    edit(here)
    mark(layer, {3: "accepted"})
    here.session.keeper.flush()
    stored = zarr.open_group(path, mode="r")["0"]
    assert [label for label in (1, 2, 8, 9) if label in stored[...]] == [8, 9]
    here.viewer.layers.remove(layer)
    again = opened(here, path)
    assert checks(again) == {3: "accepted"}
    assert again.metadata["tileseg"]["edits"] == {"paint": 2, "remove": 1}
    assert not journals(tmp_path)


@pytest.mark.slow
def test_undo_in_a_store_takes_back_brush_and_tools_in_order(refine: Callable[..., Any], tmp_path: Path) -> None:
    path = saved(tmp_path / "cells.ome.zarr")
    here = refine()
    layer = opened(here, path)
    states = [np.asarray(layer.data)]
    for deed in (lambda: here.paint([(50, 20)], 9), lambda: edit(here), lambda: layer.fill((10, 10), 8)):
        deed()
        states.append(np.asarray(layer.data))
    for expected in states[-2::-1]:
        here.press("Control-Z")
        np.testing.assert_array_equal(np.asarray(layer.data), expected)
    for expected in states[1:]:
        here.press("Control-Shift-Z")
        np.testing.assert_array_equal(np.asarray(layer.data), expected)


@pytest.mark.parametrize("large", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_store_that_can_only_be_read_is_worked_on_as_a_copy(
    refine: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    path = tmp_path / "cells.ome.zarr"
    start = pyramid(path) if large else blobs()
    if not large:
        saved(path)
    monkeypatch.setattr("napari_tileseg.io.zarr_edit.ZarrArray.read_only", True)
    here = refine()
    layer = opened(here, path)
    assert here.text == "These labels can only be read."
    here.follow(Action.WORK_COPY)
    here.until(lambda: here.session.work is not None and here.session.work.canvas.looked)
    assert here.layer is not layer
    edit(here)
    np.testing.assert_array_equal(here.data, np.where(start == 2, 0, start))
    np.testing.assert_allclose(here.layer.extent.world, layer.extent.world)
    np.testing.assert_array_equal(zarr.open_group(path, mode="r")["0"][...], start)


@pytest.mark.slow
def test_what_is_undone_after_saving_is_kept_too(
    refine: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _over: None
) -> None:
    here = refine()
    opened(here, saved(tmp_path / "cells.ome.tif"))
    edit(here)
    monkeypatch.setattr(saving, "ask", lambda *_, **__: tmp_path / "cells.ome.tif")
    here.dock.save()
    here.until(lambda: here.text == "Saved as cells.ome.tif.")
    assert here.dock.note.text().startswith("1 edit, kept "), "it was saved a moment ago"
    assert not journals(tmp_path)
    here.press("Control-Z")
    edit(here, 3)
    here.press("Control-Z")
    here.press("Control-Shift-Z")
    here.session.keeper.flush()
    other = refine()
    layer = opened(other, tmp_path / "cells.ome.tif")
    assert 2 not in layer.data
    other.until(lambda: other.session.state.recovered)
    other.follow(Action.KEEP)
    np.testing.assert_array_equal(other.data, np.where(blobs() == 3, 0, blobs()))


def test_the_layer_s_own_undo_goes_in_the_common_order(refine: Callable[..., Any]) -> None:
    here = refine()
    layer = here.add(blobs())
    states = [here.data.copy()]
    for deed in (lambda: here.paint([(50, 20)], 9), lambda: edit(here), lambda: here.paint([(50, 60)], 8)):
        deed()
        states.append(here.data.copy())
    layer.undo()
    np.testing.assert_array_equal(here.data, states[2])
    here.press("Control-Z")
    layer.undo()
    np.testing.assert_array_equal(here.data, states[0])
    assert here.session.state.edits == 0
    layer.redo()
    np.testing.assert_array_equal(here.data, states[1])
    assert here.session.state.edits == 1


@pytest.mark.slow
def test_what_was_painted_before_can_be_undone(refine: Callable[..., Any], tmp_path: Path) -> None:
    here = refine()
    layer = here.add(blobs(), name="cells")
    here.paint([(50, 20)], 9)
    painted = here.data.copy()
    here.viewer.layers.remove(layer)
    here.viewer.add_layer(layer)
    here.until(lambda: here.session.work is not None and here.session.work.canvas.looked)
    here.press("Control-Z")
    np.testing.assert_array_equal(here.data, blobs())
    assert 9 not in here.session.work.canvas.index
    here.press("Control-Shift-Z")
    np.testing.assert_array_equal(here.data, painted)
    here.press("Control-Z")
    here.session.keeper.flush()
    assert len(journals(tmp_path)) == 1
