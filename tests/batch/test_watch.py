"""A watched folder: images are done once each, when their writer is through with them; a restart knows what was done."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.batch.events import BatchFinished, BatchStarted, TaskEnded
from napari_tileseg.batch.executor import LocalExecutor
from napari_tileseg.batch.run import run_batch
from napari_tileseg.batch.watch import watch_batch
from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io import read_volume, write_labels
from napari_tileseg.pipeline import segment
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_tileseg.batch.job import BatchJob

MICROSCOPE = """
import os, sys, time
source, target, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
for folder, _, names in sorted(os.walk(source)):
    below = os.path.join(target, os.path.relpath(folder, source))
    os.makedirs(below, exist_ok=True)
    for name in sorted(names):
        data = open(os.path.join(folder, name), "rb").read()
        step = len(data) // 8 + 1
        with open(os.path.join(below, name), "wb") as stream:
            for start in range(0, len(data), step):
                stream.write(data[start : start + step])
                stream.flush()
                time.sleep(pause)
"""
"""Writes what is in a folder to another one, an eighth of a file at a time."""


@pytest.fixture
def write_slowly(images: list[Path], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that starts a process which writes the files of a folder into that of the images."""
    started = []

    def start(source: Path, pause: float = 0.05) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-S", "-W", "ignore", "-c", MICROSCOPE, str(source), str(images[0].parent), str(pause)]
        started.append(subprocess.Popen(words))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


class Until:
    """Ends the watching when a number of tasks is over and the microscope has ended."""

    def __init__(self, told: Any, count: int, process: subprocess.Popen[bytes] | None = None) -> None:
        self.told, self.count, self.process = told, count, process

    def __call__(self) -> bool:
        through = self.process is None or self.process.poll() is not None
        done = {event.name for event in self.told.of(TaskEnded) if event.state == "done"}
        return through and len(done) >= self.count


def assert_done_once(report: Any, images: list[Path], model: str, output: Path) -> None:
    assert {row.name: (row.state, row.finishes) for row in report.rows} == {path.name: ("done", 1) for path in images}
    for path in images:
        found = read_volume(output / f"{path.name.split('.')[0]}.ome.tif")
        np.testing.assert_array_equal(np.asarray(found.data), segment(path, model).labels)


def test_files_that_grow_are_done_when_they_are_whole(
    job: BatchJob,
    images: list[Path],
    classes_model: str,
    tmp_path: Path,
    told: Any,
    write_images: Callable[..., list[Path]],
    write_slowly: Callable[..., subprocess.Popen[bytes]],
) -> None:
    later = [path.rename(path.with_name(f"later_{path.name}")) for path in write_images(tmp_path / "microscope", 3)]
    process = write_slowly(tmp_path / "microscope")
    report = watch_batch(job, settle=0.5, on_event=told, cancel=Until(told, 9, process))
    assert not report.cancelled
    everything = [*images, *(images[0].parent / path.name for path in later)]
    assert_done_once(report, everything, classes_model, tmp_path / "out")
    assert {event.number for event in told.of(TaskEnded)} == set(range(9))
    assert len(told.of(TaskEnded)) == 9, "no image is told of twice"
    assert len(told.of(BatchStarted)[-1].names) == 9
    assert len(told.of(BatchFinished)) == 1


def test_a_store_that_grows_is_done_when_nothing_changes_in_it(
    job: BatchJob,
    images: list[Path],
    classes_model: str,
    tmp_path: Path,
    told: Any,
    write_slowly: Callable[..., subprocess.Popen[bytes]],
) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (60, 70)).astype(np.uint16)
    (tmp_path / "microscope").mkdir()
    write_labels(Volume(pixels, "YX"), tmp_path / "microscope" / "store.ome.zarr")
    process = write_slowly(tmp_path / "microscope")
    report = watch_batch(job, settle=0.5, on_event=told, cancel=Until(told, 7, process))
    assert_done_once(report, [*images, images[0].parent / "store.ome.zarr"], classes_model, tmp_path / "out")


def test_a_restart_and_a_plain_run_go_on_with_the_same_ledger(job: BatchJob, images: list[Path], told: Any) -> None:
    kept = images.pop()
    content = kept.read_bytes()
    kept.unlink()
    assert watch_batch(job, settle=0.1, until_idle=0.2).done == 5
    kept.write_bytes(content)
    report = watch_batch(job, settle=0.1, until_idle=0.2, on_event=told)
    assert (report.done, report.before, report.cancelled) == (6, 5, False)
    assert [event.name for event in told.of(TaskEnded) if not event.before] == [kept.name]
    report = run_batch(job)
    assert (report.done, report.before) == (6, 6)
    assert {row.finishes for row in report.rows} == {1}


def test_half_a_file_fails_in_the_end_and_is_taken_up_when_it_is_whole(job: BatchJob, images: list[Path], told: Any) -> None:
    content = images[0].read_bytes()
    images[0].write_bytes(content[: len(content) // 2])
    report = watch_batch(job, settle=0.1, until_idle=0.2, on_event=told)
    assert (report.done, report.failed) == (5, 1)
    assert "ends after" in told.ends[images[0].name].message
    assert told.of(TaskEnded)[-1].name == images[0].name, "it was waited for while the others were done"

    class Mend:
        """Completes the file after the others are known."""

        def __call__(self, event: Any) -> None:
            told(event)
            if isinstance(event, TaskEnded) and event.name == images[1].name:
                images[0].write_bytes(content)

    told.events.clear()
    report = watch_batch(job, settle=0.1, on_event=Mend(), cancel=Until(told, 6))
    assert (report.done, report.failed) == (6, 0)


def test_an_image_that_is_written_again_is_done_again(job: BatchJob, images: list[Path], told: Any) -> None:
    def change(event: Any) -> None:
        told(event)
        if isinstance(event, TaskEnded) and len(told.of(TaskEnded)) == 6:
            images[0].write_bytes(images[1].read_bytes())

    report = watch_batch(job, settle=0.1, on_event=change, cancel=lambda: len(told.of(TaskEnded)) == 7)
    assert {row.name: row.finishes for row in report.rows} == {path.name: 1 + (path == images[0]) for path in images}


def test_an_image_that_is_taken_away_stays_done(job: BatchJob, images: list[Path], told: Any, write_images: Any, tmp_path: Path) -> None:
    (more,) = write_images(tmp_path / "more", 1)

    def move(event: Any) -> None:
        told(event)
        if isinstance(event, TaskEnded) and len(told.of(TaskEnded)) == 6:
            images[0].unlink()
            more.rename(images[0].with_name("more.tif"))

    report = watch_batch(job, settle=0.1, on_event=move, cancel=Until(told, 7))
    assert (report.done, report.failed, report.waiting) == (7, 0, 0)


def test_the_folder_may_be_empty_but_must_be_there(job: BatchJob, images: list[Path], tmp_path: Path) -> None:
    for path in images:
        path.unlink()
    report = watch_batch(job, settle=0.1, until_idle=0.2)
    assert (report.done, report.rows) == (0, ())
    with pytest.raises(InputError, match="no file or folder"):
        watch_batch(job.model_copy(update={"inputs": (str(tmp_path / "nowhere"),)}))


def test_a_folder_that_is_away_for_a_moment_is_waited_for(job: BatchJob, images: list[Path], told: Any) -> None:
    folder = images[0].parent
    gone = folder.with_name("gone")

    def hide(event: Any) -> None:
        told(event)
        if isinstance(event, TaskEnded) and len(told.of(TaskEnded)) == 6:
            folder.rename(gone)
            threading.Timer(0.5, bring).start()

    def bring() -> None:
        (gone / "new.tif").write_bytes((gone / images[0].name).read_bytes())
        gone.rename(folder)

    report = watch_batch(job, settle=0.1, on_event=hide, cancel=Until(told, 7))
    assert report.done == 7


def test_the_model_is_loaded_once_and_nobody_else_writes_there(job: BatchJob, images: list[Path], told: Any, write_images: Any) -> None:
    executor = LocalExecutor()
    refused = []

    def more(event: Any) -> None:
        told(event)
        if isinstance(event, TaskEnded) and len(told.of(TaskEnded)) == 6:
            images[0].with_name("new.tif").write_bytes(images[0].read_bytes())
            with pytest.raises(OutputError, match="Another run"):
                run_batch(job)
            refused.append(True)

    watch_batch(job, settle=0.1, on_event=more, cancel=Until(told, 7), executor=executor)
    assert refused
    assert executor.models.loads == 1


def test_the_command_watches_until_ctrl_c(images: list[Path], classes_model: str, tmp_path: Path) -> None:
    words = ["batch", str(images[0].parent), "-o", str(tmp_path / "out"), "--model", classes_model, "--no-report", "--json"]
    command = [sys.executable, "-m", "napari_tileseg.cli", *words, "--watch", "--settle", "0.1"]
    ended = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            ended += json.loads(line)["event"] == "task ended"
            if ended == 6:
                break
        if sys.platform == "win32":
            process.kill()
            return
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=300)
    last = json.loads(rest.splitlines()[-1])
    assert (process.returncode, last["event"], last["done"], last["cancelled"]) == (0, "batch finished", 6, False), told


def test_the_command_ends_when_nothing_happens(images: list[Path], classes_model: str, tmp_path: Path) -> None:
    words = ["batch", str(images[0].parent), "-o", str(tmp_path / "out"), "--model", classes_model, "--no-report"]
    command = [sys.executable, "-m", "napari_tileseg.cli", *words, "--watch-until-idle", "0.2", "--settle", "0.1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 done in ")
    assert done.stderr.splitlines()[0].startswith("Watching")
