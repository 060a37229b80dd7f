"""Where a model is going to be written: what stands there, who else writes it, and what is left to go on from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from scenes import config, folders

from napari_tileseg import train
from napari_tileseg.errors import OptionsError, OutputError
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.training.validate import Validation
from napari_tileseg.training.work_folder import WorkFolder, work_folder

TOLD = {"config": {"batch": 2}, "images": "digest"}


def begun(output: Path) -> WorkFolder:
    """Return the folder of a training that has been interrupted."""
    work = WorkFolder(output)
    work.begin(TOLD, resume=True)
    work.checkpoint.write_bytes(b"state")
    work.release()
    return work


def test_one_training_at_a_time(tmp_path: Path) -> None:
    first, second = begun(tmp_path / "m"), WorkFolder(tmp_path / "m")
    first.begin(TOLD, resume=True)
    with pytest.raises(OutputError, match="Another training writes"):
        second.begin(TOLD, resume=False)
    assert first.checkpoint.is_file(), "the other one has removed nothing"
    first.release()
    second.begin(TOLD, resume=True)
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_only_the_same_goes_on(tmp_path: Path) -> None:
    work = begun(tmp_path / "m")
    for told, message in (({**TOLD, "config": {"batch": 3}}, r"other settings \(batch\)"), ({**TOLD, "images": "new"}, "other images")):
        with pytest.raises(OptionsError, match=message):
            work.begin(told, resume=True)
        work.release()
        assert work.checkpoint.is_file()
    work.begin({**TOLD, "images": "new"}, resume=False)
    assert not work.checkpoint.exists()
    work.release()


def test_files_that_are_no_model_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    WorkFolder(tmp_path / "thesis").check(resume=True, overwrite=True)
    (tmp_path / "thesis" / "chapter.txt").write_text("long work")
    with pytest.raises(OutputError, match="holds other files than a model"):
        WorkFolder(tmp_path / "thesis").check(resume=True, overwrite=True)


def test_a_model_is_replaced_where_it_is_said_or_unfinished(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.json").write_text("{}")
    with pytest.raises(OutputError, match="is there already"):
        WorkFolder(tmp_path / "m").check(resume=True, overwrite=False)
    WorkFolder(tmp_path / "m").check(resume=True, overwrite=True)
    begun(tmp_path / "m").check(resume=True, overwrite=False)
    with pytest.raises(OutputError, match="is there already"):
        WorkFolder(tmp_path / "m").check(resume=False, overwrite=False)


def test_a_closed_folder_is_said_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file, so no model can be written below it"):
        WorkFolder(tmp_path / "file" / "m").check(resume=True, overwrite=False)
    monkeypatch.setattr("napari_tileseg.training.work_folder.os.access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(OutputError, match="Nothing may be written in"):
        WorkFolder(tmp_path / "new" / "m").check(resume=True, overwrite=False)


@pytest.mark.slow
def test_the_lock_goes_with_the_process(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from napari_tileseg.training.work_folder import WorkFolder\n"
        f"work = WorkFolder(Path({str(tmp_path / 'm')!r})); work.begin({TOLD!r}, resume=True); print('begun', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        with pytest.raises(OutputError, match="Another training writes"):
            WorkFolder(tmp_path / "m").begin(TOLD, resume=True)
        process.kill()
        process.wait()
    work = WorkFolder(tmp_path / "m")
    work.begin(TOLD, resume=True)
    work.release()


def test_what_a_scanner_holds_for_a_moment_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a file that was written just now is often open in another program."""
    refused: list[object] = []
    replace = os.replace

    def refuse_once(source: object, target: object) -> None:
        if not refused:
            refused.append(target)
            raise PermissionError(13, "Access is denied")
        replace(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", refuse_once)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr("napari_tileseg.moving.time.sleep", lambda seconds: None)
    work = WorkFolder(tmp_path / "m")
    work.write("told.json", b"{}")
    assert refused
    assert (work.path / "told.json").read_bytes() == b"{}"


def test_labels_of_the_best_epoch_replace_those_that_somebody_looks_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows deletes no folder with an open file in it; the training goes on all the same."""
    for folder, value in (("best", 1), ("new", 2)):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "0.npy", np.full((2, 2), value))
    monkeypatch.setattr("napari_tileseg.training.validate.shutil.rmtree", lambda path, ignore_errors: None)
    spec = ModelSpec(name="m", axes="CYX", channels=["a"], classes=["bg", "a"], window=(8, 8))
    validation = Validation([], spec, values=(0, 1), views=tmp_path)
    assert validation.look_back() == ()
    assert int(np.load(tmp_path / "best" / "0.npy")[0, 0]) == 2
    assert not (tmp_path / "new").exists()


def test_no_file_is_open_any_more_when_the_folder_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows would keep it otherwise, after each training."""
    held: list[str] = []
    remove = WorkFolder.remove

    def look(work: WorkFolder) -> None:
        me = psutil.Process()
        work.release()
        maps = me.memory_maps() if hasattr(me, "memory_maps") else []
        held.extend(found.path for found in (*me.open_files(), *maps) if Path(found.path).is_relative_to(work.path))
        remove(work)

    monkeypatch.setattr(WorkFolder, "remove", look)
    train(config(tmp_path / "m", epochs=1, memory_limit=1, **folders(tmp_path / "data")))
    assert held == []
    assert not work_folder(tmp_path / "m").exists()
