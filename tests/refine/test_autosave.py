"""The journal of edits survives whatever happens to the program."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.errors import OutputError
from napari_tileseg.refine.autosave import EditJournal, abandoned, identity, journal_path, recover
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.delta import Delta, Edit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture
def labels(scene: Callable[..., NDArray[Any]]) -> NDArray[Any]:
    return scene((6, 20, 20), 8, seed=1)


def change(labels: NDArray[Any], index: int) -> Edit:
    before = labels[index : index + 1].copy()
    return Edit("paint", (Delta((index, 0, 0), before, before + 1),), f"Step {index}.")


def replay(base: NDArray[Any], edits: tuple[Edit, ...]) -> NDArray[Any]:
    result = base.copy()
    for edit in edits:
        edit.apply(result)
    return result


def test_a_journal_cut_off_at_any_byte_gives_the_steps_before_the_cut(tmp_path: Path, labels: NDArray[Any]) -> None:
    labels = labels[:4, ::4, ::4].copy()
    base = labels.copy()
    canvas = Canvas(labels)
    journal = EditJournal(tmp_path / "j", canvas, facts={"name": "nuclei"}, keep_base=True)
    sizes, states = [], [base.copy()]
    for index in range(3):
        edit = change(labels, index)
        canvas.apply(edit)
        journal.add(edit)
        journal.flush()
        sizes.append((tmp_path / "j").stat().st_size)
        states.append(labels.copy())
    data = (tmp_path / "j").read_bytes()
    cut = tmp_path / "cut"
    for length in range(sizes[0], len(data) + 1):
        cut.write_bytes(data[:length])
        found = recover(cut)
        whole = sum(size <= length for size in sizes)
        assert len(found.edits) == whole
        if length in (*sizes, sizes[0] + 1, len(data) - 1):
            np.testing.assert_array_equal(replay(base, found.edits), states[whole])
    found = recover(tmp_path / "j")
    assert found.facts == {"name": "nuclei"}
    assert found.running
    assert found.fits(base)
    assert not found.fits(labels)
    assert found.base is not None
    np.testing.assert_array_equal(found.base, base)


def test_a_damaged_record_ends_the_journal(tmp_path: Path, labels: NDArray[Any]) -> None:
    journal = EditJournal(tmp_path / "j", Canvas(labels))
    ends = []
    for index in range(3):
        journal.add(change(labels, index))
        journal.flush()
        ends.append((tmp_path / "j").stat().st_size)
    data = bytearray((tmp_path / "j").read_bytes())
    data[ends[0] + 40] ^= 1
    (tmp_path / "j").write_bytes(data)
    assert [edit.note for edit in recover(tmp_path / "j").edits] == ["Step 0."]


def test_a_journal_without_its_beginning_is_a_sentence(tmp_path: Path, labels: NDArray[Any]) -> None:
    journal = EditJournal(tmp_path / "j", Canvas(labels))
    journal.add(change(labels, 0))
    journal.close()
    data = (tmp_path / "j").read_bytes()
    for content in (b"", data[:10], data[:20], b"x" * 100, data[:16] + b"\xff" * 50):
        (tmp_path / "cut").write_bytes(content)
        with pytest.raises(OutputError, match="cannot be recovered"):
            recover(tmp_path / "cut")
    with pytest.raises(OutputError, match="cannot be read"):
        recover(tmp_path / "missing")


def test_what_was_undone_is_left_out(tmp_path: Path, labels: NDArray[Any]) -> None:
    journal = EditJournal(tmp_path / "j", Canvas(labels))
    first, second, third = (change(labels, index) for index in range(3))
    for action in (lambda: journal.add(first), lambda: journal.add(second), journal.undone, journal.undone, journal.redone):
        action()
    journal.add(third)
    journal.redone()  # nothing is left to be done again
    journal.flush()
    assert [edit.note for edit in recover(tmp_path / "j").edits] == ["Step 0.", "Step 2."]


def test_nothing_is_written_before_an_edit_and_nothing_stays_when_saved(tmp_path: Path, labels: NDArray[Any]) -> None:
    path = tmp_path / "folder" / "j"
    journal = EditJournal(path, Canvas(labels), keep_base=True)
    journal.flush()
    journal.add(Edit("nothing"))
    assert journal.waiting == 0
    assert not path.parent.exists()
    journal.add(change(labels, 0))
    assert 0 < journal.waiting < 5
    journal.flush()
    assert journal.waiting == 0
    assert [file.name for file in path.parent.iterdir()] == ["j"]
    journal.add(change(labels, 1))
    journal.close(remove=True)
    assert not list(path.parent.iterdir())
    journal.add(change(labels, 2))
    journal.flush()
    assert not list(path.parent.iterdir())


def test_a_disk_that_refuses_loses_nothing(tmp_path: Path, labels: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "j"
    journal = EditJournal(path, Canvas(labels))
    journal.add(change(labels, 0))
    journal.flush()
    journal.add(change(labels, 1))
    with monkeypatch.context() as patch:

        def refuse(number: int) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OutputError, match=r"No space left.*Save the labels"):
            journal.flush()
        assert journal.waiting > 0
    with path.open("ab") as stream:
        stream.write(b"half a record")
    journal.add(change(labels, 2))
    journal.flush()
    found = recover(path)
    assert [edit.note for edit in found.edits] == ["Step 0.", "Step 1.", "Step 2."]
    assert found.base is None


def test_the_identity_follows_shape_and_content_and_not_the_type(labels: NDArray[Any]) -> None:
    other = labels.copy()
    other[0, 0, 0] += 1
    different = [labels, other, labels.reshape(12, 10, 20)]
    assert len({identity(array) for array in different}) == len(different)
    assert identity(labels) == identity(np.asfortranarray(labels)) == identity(labels.astype(np.int32))


def test_a_journal_lies_beside_the_output_or_in_the_user_s_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_EDITS", str(tmp_path / "edits"))
    beside = [journal_path("x", tmp_path / "out.ome.zarr") for _ in range(2)]
    assert all(path.parent == tmp_path and path.name.startswith(".out.ome.zarr.") and path.suffix == ".tileseg-edits" for path in beside)
    assert beside[0] != beside[1], "two programs that have the file open do not mix"
    long = journal_path("x", tmp_path / ("é" * 120 + ".tif"))
    assert len(long.name.encode()) < 255
    beside_nothing = journal_path("my nuclei/2", tmp_path / "missing" / "out.tif")
    assert beside_nothing.parent == tmp_path / "edits"
    assert beside_nothing.name.startswith("my_nuclei_2-")
    assert journal_path("x") != journal_path("x")
    assert abandoned() == []


def test_what_was_said_of_objects_is_kept_in_order(tmp_path: Path, labels: NDArray[Any]) -> None:
    canvas = Canvas(labels)
    journal = EditJournal(tmp_path / "j", canvas, keep_base=True)
    journal.mark({"check": {3: "accepted", 4: "fix"}})
    journal.flush()
    journal.mark({"check": {4: "", 5: "rejected"}, "class": {3: "nucleus"}})
    journal.mark({"check": {}})
    journal.close()
    found = recover(tmp_path / "j")
    assert found.marks == {"check": {3: "accepted", 4: "", 5: "rejected"}, "class": {3: "nucleus"}}
    assert found.edits == ()
    assert found.fits(labels)


def test_labels_that_hold_the_edits_already_are_known(tmp_path: Path, labels: NDArray[Any]) -> None:
    before = labels.copy()
    canvas = Canvas(labels)
    journal = EditJournal(tmp_path / "j", canvas, keep_base=True)
    edit = change(labels, 2)
    canvas.apply(edit)
    journal.add(edit)
    journal.close()
    found = recover(tmp_path / "j")
    assert (found.fits(before), found.done_in(before)) == (True, False)
    assert (found.fits(labels), found.done_in(labels)) == (False, True)
    assert not found.done_in(labels[1:])


def test_labels_that_a_file_keeps_in_a_smaller_type_fit_if_all_edits_do(tmp_path: Path) -> None:
    for value, fits in ((200, True), (300, False)):
        labels = np.ones((20, 20), np.uint16)
        canvas = Canvas(labels)
        journal = EditJournal(tmp_path / "j", canvas)
        edit = Edit("paint", (Delta((0, 0), labels[:2, :2].copy(), np.full((2, 2), value, np.uint16)),))
        journal.add(edit)
        journal.close()
        found = recover(tmp_path / "j")
        assert found.fits(labels)
        assert found.fits(labels.astype(np.uint8)) == fits


def test_journals_are_found_beside_their_file_and_no_other(tmp_path: Path, labels: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / name for name in ("cells[1].tif", "cells[1].tif.bak", "cells1.tif")]
    for file in files:
        journal = EditJournal(journal_path("x", file), Canvas(labels))
        journal.add(change(labels, 0))
        journal.close()
    monkeypatch.setattr("napari_tileseg.refine.autosave._running", lambda *_: False)
    found = [abandoned(file) for file in files]
    assert [len(paths) for paths in found] == [1, 1, 1]
    assert len({paths[0] for paths in found}) == 3


def test_a_journal_of_another_computer_counts_as_in_use_for_a_while(
    tmp_path: Path, labels: NDArray[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cells.tif"
    monkeypatch.setattr("platform.node", lambda: "theirs")
    journal = EditJournal(journal_path("x", file), Canvas(labels))
    journal.add(change(labels, 0))
    journal.close()
    assert b"theirs" not in journal.path.read_bytes()
    monkeypatch.setattr("platform.node", lambda: "ours")
    assert abandoned(file) == []
    hour_ago = time.time() - 3600
    os.utime(journal.path, (hour_ago, hour_ago))
    assert abandoned(file) == [journal.path]


KILLED = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from napari_tileseg.refine.autosave import EditJournal, journal_path
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.objects import remove
labels = np.arange(400, dtype=np.uint16).reshape(20, 20)
canvas = Canvas(labels)
journal = EditJournal(journal_path("labels"), canvas, keep_base=True)
for value in (5, 6, 7):
    edit = remove(canvas, value)
    canvas.apply(edit)
    journal.add(edit)
    journal.flush()
print("ready", flush=True)
time.sleep(60)
"""


def test_what_a_killed_program_did_is_recovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_EDITS", str(tmp_path / "edits"))
    with subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        assert abandoned() == []  # its program is still there
        program.kill()
    deadline = time.monotonic() + 10
    while not (paths := abandoned()) and time.monotonic() < deadline:
        time.sleep(0.05)
    (path,) = paths
    found = recover(path)
    assert not found.running
    assert [edit.tool for edit in found.edits] == ["remove"] * 3
    assert found.base is not None
    restored = replay(found.base, found.edits)
    expected = np.arange(400).reshape(20, 20)
    expected[(expected >= 5) & (expected <= 7)] = 0
    np.testing.assert_array_equal(restored, expected)
