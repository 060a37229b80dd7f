"""A batch goes through the pipe: the same files as in this process, one queue with single images, cut off and gone on with."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
import tifffile

from napari_tileseg.batch.events import BatchFinished, BatchProgress, BatchStarted, TaskEnded, TaskProgress, TaskStarted
from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.run import run_batch
from napari_tileseg.io.registry import read_volume
from napari_tileseg.worker.batch_run import BatchRun, rooted
from napari_tileseg.worker.child import Sparing

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.job import Job
    from napari_tileseg.volume import Volume

PATIENCE = 300

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


class Desk:
    """A supervisor whose batches are recorded."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.supervisor = bench.supervisor
        self.start = bench.start_batch

    def run(self, job: BatchJob, **more: Any) -> tuple[BatchRun, Any]:
        run, recorder = self.start(job, **more)
        assert run.wait(PATIENCE), f"{run} did not end"
        return run, recorder


@pytest.fixture
def desk(bench: Any) -> Desk:
    return Desk(bench)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve small images."""
    made = tmp_path / "raw"
    made.mkdir()
    rng = np.random.default_rng(3)
    for number in range(12):
        tifffile.imwrite(made / f"image{number}.tif", rng.normal(size=(96, 80)).astype(np.float32))
    return made


@pytest.fixture
def batch(folder: Path, classes_model: str) -> BatchJob:
    return BatchJob(models=(classes_model,), inputs=(str(folder),), output=str(folder.parent / "labels"), report=False)


def ended(recorder: Any) -> dict[str, TaskEnded]:
    return {event.name: event for event in recorder.events if isinstance(event, TaskEnded)}


def results(output: Path) -> dict[str, Any]:
    return {path.name: np.asarray(read_volume(path).data[...]) for path in sorted(output.glob("*.tif"))}


def is_over(event: Any) -> bool:
    return isinstance(event, TaskEnded)


def test_the_files_are_those_of_this_process(desk: Desk, batch: BatchJob, tmp_path: Path) -> None:
    here = batch.model_copy(update={"output": str(tmp_path / "here")})
    run_batch(here)
    run, recorder = desk.run(batch)
    assert run.state == "done"
    assert run.tiles == (12, 12)
    mine, others = results(tmp_path / "here"), results(tmp_path / "labels")
    assert mine.keys() == others.keys()
    assert len(mine) == 12
    for name, labels in mine.items():
        np.testing.assert_array_equal(labels, others[name])
    kinds = [type(event) for event in recorder.events]
    assert kinds[0] is BatchStarted
    assert kinds[-1] is BatchFinished
    assert kinds.count(TaskStarted) == kinds.count(TaskEnded) == 12
    assert recorder.kinds == ["Loading", "Done"]
    assert not desk.supervisor.busy


def test_a_bad_file_does_not_stop_it(desk: Desk, batch: BatchJob, folder: Path) -> None:
    (folder / "image3.tif").write_text("no image")
    run, recorder = desk.run(batch)
    found = ended(recorder)
    assert run.state == "done"
    assert found["image3.tif"].state == "failed"
    assert "image3.tif" in found["image3.tif"].message
    assert sum(event.state == "done" for event in found.values()) == 11
    assert run.tiles == (11, 12)


def test_one_file_is_tried_again_by_its_name(desk: Desk, batch: BatchJob, folder: Path) -> None:
    good = (folder / "image3.tif").read_bytes()
    for name in ("image3.tif", "image5.tif"):
        (folder / name).write_bytes(b"")
    desk.run(batch)
    _, recorder = desk.run(batch, retry_failed=("image5.tif",))
    started = [event.name for event in recorder.events if isinstance(event, TaskStarted)]
    assert started == ["image5.tif"]
    (folder / "image3.tif").write_bytes(good)
    _, recorder = desk.run(batch, retry_failed=True)
    assert ended(recorder)["image3.tif"].state == "done"
    assert ended(recorder)["image5.tif"].state == "failed"


def test_cancelled_and_gone_on_with(desk: Desk, batch: BatchJob, tmp_path: Path) -> None:
    run, recorder = desk.start(batch)
    recorder.until(is_over)
    run.cancel()
    assert run.wait(PATIENCE)
    assert run.state == "cancelled"
    done, total = run.tiles
    assert 1 <= done < total == 12
    again, recorder = desk.run(batch)
    assert again.state == "done"
    started = next(event for event in recorder.events if isinstance(event, BatchStarted))
    assert started.before == done
    assert sum(isinstance(event, TaskStarted) for event in recorder.events) == 12 - done
    assert len(results(tmp_path / "labels")) == 12


def test_pause_and_resume(desk: Desk, batch: BatchJob) -> None:
    run, recorder = desk.start(batch)
    recorder.until(is_over)
    run.pause()
    recorder.until(lambda event: isinstance(event, BatchProgress) and event.paused)
    before = -1
    while before != (before := len(ended(recorder))):  # what was being written may still come
        time.sleep(1)
    assert before < 12
    assert run.state == "running"
    run.pause(False)
    assert run.wait(PATIENCE)
    assert run.tiles == (12, 12)


def test_a_paused_batch_can_be_cancelled(desk: Desk, batch: BatchJob) -> None:
    run, recorder = desk.start(batch)
    recorder.until(is_over)
    run.pause()
    recorder.until(lambda event: isinstance(event, BatchProgress) and event.paused)
    run.cancel()
    assert run.wait(PATIENCE)
    assert run.state == "cancelled"


@posix
def test_the_process_dies_and_the_batch_goes_on(desk: Desk, batch: BatchJob, tmp_path: Path) -> None:
    run, recorder = desk.start(batch)
    recorder.until(is_over)
    psutil.Process(desk.supervisor.pid).kill()
    assert run.wait(PATIENCE)
    assert run.state == "died"
    done, _ = run.tiles
    last = recorder.messages[-1]
    assert last.message == f"The model's process ended, most likely for lack of memory. {run.left}"
    assert run.left == f"{done} of 12 files {'is' if done == 1 else 'are'} safe."
    again, recorder = desk.run(batch)
    assert again.state == "done"
    assert again.tiles == (12, 12)
    assert not list((tmp_path / "labels").rglob("*.part"))


def test_images_and_batches_wait_for_each_other(desk: Desk, batch: BatchJob, job: Job, volume: Volume) -> None:
    first, recorder = desk.start(batch)
    recorder.until(lambda event: isinstance(event, BatchStarted))
    second, other = desk.bench.start(job, volume)
    other.until(lambda message: type(message).__name__ == "Queued")
    assert second.state == "queued"
    assert first.wait(PATIENCE)
    assert second.wait(PATIENCE)
    assert (first.state, second.state) == ("done", "done")
    third, _ = desk.start(batch)
    third.cancel()
    assert third.wait(PATIENCE)
    assert third.state in ("cancelled", "done")


def test_a_waiting_batch_can_be_cancelled_and_begins_paused(desk: Desk, batch: BatchJob) -> None:
    first, recorder = desk.start(batch)
    recorder.until(lambda event: isinstance(event, BatchStarted))
    second, _ = desk.start(batch.model_copy(update={"output": batch.output + "2"}))
    third, told = desk.start(batch.model_copy(update={"output": batch.output + "3"}))
    third.pause()
    second.cancel()
    assert second.wait(PATIENCE)
    assert second.state == "cancelled"
    told.until(lambda event: isinstance(event, BatchProgress) and event.paused)
    assert not ended(told)
    third.pause(False)
    assert third.wait(PATIENCE)
    assert (first.state, third.state) == ("done", "done")


def test_what_cannot_begin_is_said(desk: Desk, batch: BatchJob, tmp_path: Path) -> None:
    run, recorder = desk.run(batch.model_copy(update={"inputs": (str(tmp_path / "nowhere"),)}))
    assert run.state == "failed"
    last = recorder.messages[-1]
    assert last.kind == "InputError"
    assert "nowhere" in last.message


def test_the_model_of_the_run_before_makes_room(desk: Desk, batch: BatchJob, job: Job, volume: Volume) -> None:
    desk.bench.run(job, volume)
    assert desk.supervisor.loaded is not None
    desk.run(batch)
    assert desk.supervisor.loaded is None


def test_a_rooted_job_means_the_same_everywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, classes_model: str) -> None:
    monkeypatch.chdir(tmp_path)
    named = rooted(BatchJob(models=("nuclei-2d", "no such model"), inputs=("raw", "~/x"), output="out"))
    assert named.models == ("nuclei-2d", "no such model")
    assert named.inputs[0] == str(tmp_path / "raw")
    assert "~" not in named.inputs[1]
    assert named.output == str(tmp_path / "out")
    package = tmp_path / "package"
    package.symlink_to(classes_model)
    assert rooted(BatchJob(models=("package",), inputs=("raw",), output="out")).models == (str(package),)


def test_progress_within_files_is_told_sparingly() -> None:
    told: list[Any] = []
    tell = Sparing(told.append)
    for done in range(1000):
        tell(TaskProgress(0, done, 1000))
        tell(TaskEnded(done, "a", "done"))
    assert sum(isinstance(event, TaskEnded) for event in told) == 1000
    assert sum(isinstance(event, TaskProgress) for event in told) < 1000
