"""A batch that was cut off goes on by its output folder alone, wherever that was moved together with the images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from napari_tileseg import cli
from napari_tileseg.batch.run import run_batch
from napari_tileseg.batch.saved import load_saved, save_job
from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from napari_tileseg.batch.events import BatchEvent
    from napari_tileseg.batch.job import BatchJob


def cut_off(job: BatchJob) -> int:
    """Run a batch until one image is done, and return how many are."""
    done: list[str] = []

    def listen(event: BatchEvent) -> None:
        if event.kind == "task ended":
            done.append(event.kind)

    return run_batch(job, on_event=listen, cancel=lambda: bool(done)).done


@pytest.mark.usefixtures("images")
def test_the_folder_is_enough(job: BatchJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(shutil.copytree(job.models[0], tmp_path / "model"))
    job = job.model_copy(update={"models": (str(model),)})
    before = cut_off(job)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for place in (model, Path(job.inputs[0]), Path(job.output)):
        shutil.move(place, moved / place.name)
    output = moved / Path(job.output).name
    text = (output / ".tileseg" / "job.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert json.loads(text)["output"] == "."
    with pytest.raises(SystemExit) as end:
        cli.main(["run", str(output), "--json"])
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert end.value.code == 0
    assert events[0]["before"] == before
    assert events[-1]["done"] == len(events[0]["names"]) == 6


def test_what_it_holds_is_the_job(job: BatchJob) -> None:
    output = Path(job.output)
    (output / ".tileseg").mkdir(parents=True)
    save_job(job, output)
    assert load_saved(output) == job


def test_nothing_tells_who_it_was(job: BatchJob, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Path(job.output)
    (output / ".tileseg").mkdir(parents=True)
    save_job(job, output)
    monkeypatch.setattr(Path, "home", lambda: Path("/home") / Path(job.inputs[0]).name)
    save_job(job, output)
    assert not (output / ".tileseg" / "job.json").exists()
    with pytest.raises(OptionsError, match="holds no job"):
        load_saved(output)


def test_a_damaged_one_is_refused(job: BatchJob) -> None:
    output = Path(job.output)
    (output / ".tileseg").mkdir(parents=True)
    (output / ".tileseg" / "job.json").write_text("{}")
    with pytest.raises(OptionsError, match="cannot be used: models"):
        load_saved(output)
