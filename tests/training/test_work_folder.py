"""Where a model is going to be written: what stands there, who else writes it, and what is left to go on from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from napari_tileseg.errors import OptionsError, OutputError
from napari_tileseg.training.work_folder import WorkFolder

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
