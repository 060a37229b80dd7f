"""``tileseg batch``: exit status, what stands on stdout and stderr, stopping and going on; results are those of `run_batch`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg import cli
from napari_tileseg.batch.events import TaskEnded, from_dict
from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.run import run_batch
from napari_tileseg.cli import progress
from napari_tileseg.io import read_volume
from napari_tileseg.job import SegmentOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command in this process and returns status, stdout and stderr."""

    def call(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main([str(arg) for arg in args])
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, out, err

    return call


@pytest.fixture
def raw(images: list[Path]) -> Path:
    """Return the folder of the images."""
    return images[0].parent


@pytest.fixture
def batch(run: Run, raw: Path, classes_model: str, tmp_path: Path) -> Run:
    """Return a function that does the folder."""
    return lambda *more: run("batch", raw, "-o", tmp_path / "out", "--model", classes_model, *more)


def results(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.ome.tif") if ".tileseg" not in path.parts}


def test_a_folder_is_done_as_the_function_does_it(batch: Run, raw: Path, classes_model: str, tmp_path: Path) -> None:
    status, said, told = batch("--no-report", "--overlap", "0.25")
    assert status == 0, told
    assert re.fullmatch(r"6 done in [\d.]+ s\.\n", said)
    lines = told.splitlines()
    assert lines[0] == "6 images"
    assert len(lines) == 7
    assert all(re.fullmatch(r"image_\d\d\.tif: left \d+, right \d+, [\d.]+ s", line) for line in lines[1:])
    options = SegmentOptions(overlap=0.25)
    run_batch(BatchJob(models=(classes_model,), options=options, inputs=(str(raw),), output=str(tmp_path / "same"), report=False))
    assert results(tmp_path / "out") == results(tmp_path / "same")


def test_the_report_is_named(batch: Run, tmp_path: Path) -> None:
    status, said, _ = batch()
    assert status == 0
    assert said.splitlines()[1] == f"Report: {tmp_path / 'out' / 'report.html'}"
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_file_that_fails_is_named_and_the_others_are_done(batch: Run, raw: Path) -> None:
    (raw / "image_02.tif").write_text("no image")
    (raw / "notes.txt").write_text("not meant")
    status, said, told = batch("--no-report")
    assert status == 1
    assert re.fullmatch(r"5 done, 1 failed in [\d.]+ s\.\n", said)
    assert "notes.txt is left out: it is no image" in told
    failure = 'image_02.tif failed: "image_02.tif" holds text, not a TIFF image. Save the image itself under that name.'
    assert failure in told.splitlines()
    status, said, told = batch("--no-report")
    assert status == 1
    assert told.splitlines() == ["6 images, 5 of them done before", "notes.txt is left out: it is no image", failure]
    (raw / "image_02.tif").write_bytes((raw / "image_01.tif").read_bytes())
    status, said, _ = batch("--no-report")
    assert (status, said.startswith("6 done (5 of them before)")) == (0, True)


def test_json_is_all_that_is_printed(batch: Run, raw: Path) -> None:
    (raw / "image_02.tif").write_text("no image")
    status, said, told = batch("--json", "--no-report")
    assert status == 1
    events = [from_dict(json.loads(line)) for line in said.splitlines()]
    assert [event.kind for event in (events[0], events[-1])] == ["batch started", "batch finished"]
    ended = [event for event in events if isinstance(event, TaskEnded)]
    assert sorted(event.number for event in ended) == list(range(6))
    assert [event.name for event in ended if event.state == "failed"] == ["image_02.tif"]
    assert told.startswith("image_02.tif failed: ")
    assert len(told.splitlines()) == 1


def test_bars_on_a_terminal(batch: Run, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (raw / "image_02.tif").write_text("no image")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    status, said, told = batch("--no-report")
    assert status == 1
    assert said.startswith("5 done, 1 failed")
    assert "image_02.tif failed: " in told


def test_a_dry_run_says_all_and_does_nothing(batch: Run, raw: Path, tmp_path: Path) -> None:
    (raw / "image_02.tif").write_text("no image")
    (raw / "notes.txt").write_text("not meant")
    status, said, told = batch("--dry-run", "--pattern", "*_0[0-4].tif")
    lines = said.splitlines()
    assert (status, told) == (1, "")
    assert lines[0] == "image_00.tif -> image_00.ome.tif"
    assert 'image_02.tif will fail: "image_02.tif" holds text' in said
    assert any(line.startswith("5 images, ") for line in lines)
    assert not (tmp_path / "out").exists()
    (raw / "image_02.tif").unlink()
    assert batch("--no-report", "--pattern", "*_0[0-1].tif")[0] == 0
    status, said, _ = batch("--dry-run")
    assert status == 0
    assert "image_00.tif skipped: done before" in said.splitlines()
    assert "image_03.tif -> image_03.ome.tif" in said.splitlines()
    assert "notes.txt is left out: it is no image" in said.splitlines()
    status, said, _ = batch("--dry-run", "--json")
    events = [json.loads(line) for line in said.splitlines()]
    assert [event["event"] for event in events] == ["forecast"] * 5 + ["preview"]
    assert [event["action"] for event in events[:-1]] == ["skip", "skip", "do", "do", "do"]
    assert (events[-1]["images"], len(events[-1]["left_out"])) == (5, 1)
    status, said, _ = batch("--dry-run", "--overlap", "0.1")
    assert status == 1
    assert "other settings" in said


WRONG = [
    (("--format", "xyz"), "must be auto or one of .ome.tif, "),
    (("--series", "first"), "a number from 0, or all"),
    (("--name", "{size}"), "{stem}"),
    (("--overlap", "2"), "overlap = 2.0 is not accepted"),
    (("--model", "nuclei-9d"), 'no model "nuclei-9d"'),
    (("--workers", "0"), "--workers"),
    (("--dry-run", "--watch"), "Give one of them"),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, tuple) else None)
def test_wrong_arguments_end_with_2(batch: Run, tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    status, said, told = batch(*arguments)
    assert (status, said) == (2, ""), told
    assert sentence in told
    assert not results(tmp_path / "out")


def test_no_images_end_with_1(run: Run, tmp_path: Path, classes_model: str) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "nowhere"):
        status, _, told = run("batch", tmp_path / name, "-o", tmp_path / "out", "--model", classes_model)
        assert status == 1
        assert name in told
        assert len(told.splitlines()) == 1


def test_other_settings_ask_for_another_folder(batch: Run, tmp_path: Path) -> None:
    assert batch("--no-report")[0] == 0
    before = results(tmp_path / "out")
    status, _, told = batch("--no-report", "--overlap", "0.1")
    assert status == 1
    assert "another output folder" in told
    assert results(tmp_path / "out") == before


def test_models_side_by_side_and_together(run: Run, raw: Path, tmp_path: Path, classes_model: str, objects_model: str) -> None:
    out, both = tmp_path / "out", ("--model", classes_model, "--model", objects_model)
    status, said, _ = run("batch", raw, "-o", out, *both, "--pattern", "*_00.tif", "--pattern", "*_01.tif", "--no-report")
    assert (status, said.startswith("4 done")) == (0, True)
    assert set(results(out)) == {f"image_0{number}_{model}.ome.tif" for number in (0, 1) for model in ("classes", "objects")}
    mean = ("--model", f"ensemble:{classes_model},{classes_model}")
    status, said, told = run("batch", raw, "-o", tmp_path / "mean", *mean, "--exclude", "image_0[1-5]*", "--no-report")
    assert (status, said.startswith("1 done")) == (0, True), told
    assert len(read_volume(tmp_path / "mean" / "image_00.ome.tif").metadata["provenance"]["model"]["members"]) == 2
    assert told.count("is left out: it is excluded") == 5


def test_every_setting_reaches_the_job(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[BatchJob] = []
    monkeypatch.setattr("napari_tileseg.cli.batch.perform_batch", lambda job, how, json_lines: jobs.append(job))
    words = (
        "a b -o out --model m --model n --pattern *.tif --exclude old --recursive --format ome.zarr --name {stem}_labels --series all "
        "--level 1 --axes ZYX --channels 0,2 --objects --overlays --no-report --window 8,8 --overlap 0.3 --adaptive --skip-background "
        "--blending crop --sigma 0.2 --padding reflect --precision auto --device cpu --batch 3 --threshold 0.4 --min-size 5 --no-rescale "
        "--tta flips --scores --uncertainty entropy --memory-limit 99 --unreadable skip"
    )
    assert run("batch", *words.split())[0] == 0
    (job,) = jobs
    for model in (job, job.options):
        for name, field in type(model).model_fields.items():
            if name != "kind":
                assert getattr(model, name) != field.default, f"no option of the command has reached {name}"
    assert (job.inputs, job.models, job.format, job.template) == (("a", "b"), ("m", "n"), ".ome.zarr", "{stem}_labels")


def test_every_option_is_explained_by_the_one_parameter_model(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    _, said, _ = run("batch", "--help")
    for model in (BatchJob, SegmentOptions):
        for name, field in model.model_fields.items():
            if name not in ("kind", "models", "options", "inputs", "output", "scores", "axes", "channels", "level"):
                assert str(field.description) in said, name
    assert "ensemble:REF,REF" in said


def test_a_saved_job_runs_and_goes_on(run: Run, job: BatchJob, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(job.model_dump_json(indent=2))
    status, said, _ = run("run", tmp_path / "job.json")
    assert (status, said.startswith("6 done in")) == (0, True)
    status, said, _ = run("run", tmp_path / "job.json")
    assert (status, said.startswith("6 done (6 of them before)")) == (0, True)
    status, said, _ = run("run", tmp_path / "job.json", "-o", tmp_path / "other")
    assert (status, said.startswith("6 done in")) == (0, True)
    assert results(tmp_path / "other") == results(tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "arguments", "sentence"),
    [
        ('{"kind": "batch"}', (), "is no job: models"),
        ('{"kind": "batch", "models": ["m"], "inputs": ["a"], "output": "b", "colour": 1}', (), "colour"),
        ('{"kind": "batch", "models": ["m"], "inputs": ["a"], "output": "b"}', ("--restart",), "give another folder with -o"),
        ('{"model": "m", "input": "a.tif", "output": "b.tif"}', ("--retry-failed",), "for batches"),
    ],
)
def test_jobs_that_do_not_fit(run: Run, tmp_path: Path, text: str, arguments: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "job.json").write_text(text)
    status, said, told = run("run", tmp_path / "job.json", *arguments)
    assert (status, said) == (2, "")
    assert sentence in told


def test_ctrl_c_stops_and_the_same_command_goes_on(batch: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tell, seen = progress._tell_lines, []

    def interrupt(event: Any) -> None:
        tell(event)
        if isinstance(event, TaskEnded):
            seen.append(event)
            if len(seen) == 2:
                signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(progress, "_tell_lines", interrupt)
        status, said, told = batch("--no-report")
    assert status == 130
    assert 2 <= len(results(tmp_path / "out")) < 6
    assert " waiting in " in said
    assert told.splitlines()[-1] == "Stopped. The same command goes on from here."
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    status, said, _ = batch("--no-report")
    assert status == 0
    assert re.match(r"6 done \(\d of them before\)", said)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process that gets SIGTERM")
def test_sigterm_stops_a_process_that_can_be_started_again(
    tmp_path: Path, classes_model: str, write_images: Callable[..., list[Path]]
) -> None:
    write_images(tmp_path / "raw", 60)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(name: str) -> subprocess.Popen[str]:
        words = ["batch", str(tmp_path / "raw"), "-o", str(tmp_path / name), "--model", classes_model, "--no-report", "--json"]
        command = [sys.executable, "-m", "napari_tileseg.cli", *words]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    with start("out") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "task ended":
                process.send_signal(signal.SIGTERM)
                break
        rest, told = process.communicate(timeout=300)
    assert process.returncode == 130, told
    last = json.loads(rest.splitlines()[-1])
    assert (last["event"], last["cancelled"], last["failed"]) == ("batch finished", True, 0)
    assert last["waiting"] > 0
    with start("out") as process:
        again, told = process.communicate(timeout=300)
    assert process.returncode == 0, told
    events = [json.loads(line) for line in again.splitlines()]
    started = [event["name"] for event in events if event["event"] == "task started"]
    assert len(started) == 60 - last["done"]
    for path in (tmp_path / "raw").iterdir():
        found = np.asarray(read_volume(tmp_path / "out" / f"{path.stem}.ome.tif").data)
        assert found.shape == np.asarray(read_volume(path).data).shape


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no process groups that get Ctrl-C from a program")
def test_ctrl_c_in_a_terminal_does_not_frighten_the_workers(
    tmp_path: Path, classes_model: str, write_images: Callable[..., list[Path]]
) -> None:
    """A terminal sends Ctrl-C to all processes of the command, the workers too."""
    write_images(tmp_path / "raw", 60)
    words = [
        "batch",
        str(tmp_path / "raw"),
        "-o",
        str(tmp_path / "out"),
        "--model",
        classes_model,
        "--no-report",
        "--json",
        "--workers",
        "2",
    ]
    command = [sys.executable, "-m", "napari_tileseg.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "task ended":
                os.killpg(process.pid, signal.SIGINT)
                break
        rest, told = process.communicate(timeout=300)
    assert (process.returncode, told) == (130, "Stopped. The same command goes on from here.\n")
    last = json.loads(rest.splitlines()[-1])
    assert (last["cancelled"], last["failed"]) == (True, 0)
    assert last["waiting"] > 0
