"""A batch that is started again: what stands is left alone, what does not is done anew, and nothing is mixed."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_tileseg.batch import executor as executor_module
from napari_tileseg.batch import run as run_module
from napari_tileseg.batch import work as work_module
from napari_tileseg.batch.events import BatchFinished, BatchProgress, TaskProgress, TaskStarted
from napari_tileseg.batch.executor import LocalExecutor
from napari_tileseg.batch.ledger import Ledger, _uri, ledger_path
from napari_tileseg.batch.lock import OutputLock
from napari_tileseg.batch.run import run_batch
from napari_tileseg.errors import OptionsError, OutputError
from napari_tileseg.io import read_volume
from napari_tileseg.job import SegmentOptions
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_tileseg.batch.job import BatchJob


class CutOff(BaseException):
    """Stands for the end of the process: nothing may catch it."""


def started(told: Any) -> list[str]:
    return sorted(event.name for event in told.of(TaskStarted))


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(read_volume(path).data)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tif")}


def flip_a_byte(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(-9, os.SEEK_END)
        byte = stream.read(1)[0]
        stream.seek(-9, os.SEEK_END)
        stream.write(bytes([byte ^ 255]))


def test_an_altered_result_and_a_missing_one_are_done_again(job: BatchJob, tmp_path: Path, told: Any) -> None:
    run_batch(job)
    whole = contents(tmp_path / "out")
    flip_a_byte(tmp_path / "out" / "image_01.ome.tif")
    (tmp_path / "out" / "image_04.ome.tif").unlink()
    report = run_batch(job, on_event=told)
    assert started(told) == ["image_01.tif", "image_04.tif"]
    assert (report.done, report.before) == (6, 4)
    assert contents(tmp_path / "out") == whole


def test_a_result_that_was_only_copied_still_counts(job: BatchJob, tmp_path: Path, told: Any) -> None:
    run_batch(job)
    shutil.copytree(tmp_path / "out", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "out")
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "out", copy_function=shutil.copy)  # without the times of change
    run_batch(job, on_event=told)
    assert not started(told)


def test_an_image_that_changed_is_done_again_whatever_its_date(job: BatchJob, images: list[Path], told: Any) -> None:
    run_batch(job)
    pixels = tifffile.imread(images[2])
    tifffile.imwrite(images[2], pixels[::-1].copy())
    os.utime(images[2], (10**9, 10**9))  # a clock that was set back
    run_batch(job, on_event=told)
    assert started(told) == [images[2].name]


def test_more_images_are_no_reason_to_begin_anew(job: BatchJob, images: list[Path], tmp_path: Path, told: Any) -> None:
    run_batch(job)
    shutil.copy(images[0], tmp_path / "raw" / "a new one.tif")
    report = run_batch(job, on_event=told)
    assert started(told) == ["a new one.tif"]
    assert (report.done, report.before) == (7, 6)


def test_other_settings_ask_for_another_folder(job: BatchJob, objects_model: str, tmp_path: Path) -> None:
    run_batch(job)
    before = contents(tmp_path / "out")
    with pytest.raises(OutputError, match=r"other settings: overlap \(was none, is 0.25\)\. Choose another output folder"):
        run_batch(job.model_copy(update={"options": SegmentOptions(overlap=0.25)}))
    with pytest.raises(OutputError, match=r"models \(was .*classes.*, is .*objects"):
        run_batch(job.model_copy(update={"models": (objects_model,)}))
    with pytest.raises(OutputError, match="format"):
        run_batch(job.model_copy(update={"format": ".png"}))
    assert contents(tmp_path / "out") == before
    report = run_batch(job.model_copy(update={"options": SegmentOptions(device="cpu", memory_limit=10**10)}))
    assert report.before == 6  # where it runs is no other setting


def test_results_are_not_replaced_by_those_of_other_images_of_the_same_names(
    job: BatchJob, tmp_path: Path, write_images: Callable[..., list[Path]], told: Any
) -> None:
    run_batch(job)
    before = contents(tmp_path / "out")
    write_images(tmp_path / "other", 4, size=60)
    with pytest.raises(OutputError, match=r"made from images in another folder that have the same names\. Choose another output"):
        run_batch(job.model_copy(update={"inputs": (str(tmp_path / "other"),)}))
    assert contents(tmp_path / "out") == before
    shutil.move(tmp_path / "raw", tmp_path / "moved")
    report = run_batch(job.model_copy(update={"inputs": (str(tmp_path / "moved"),)}), on_event=told)
    assert report.before == 6, "the same images in another place"
    assert not started(told)


def test_two_runs_in_one_folder_are_one_too_many(job: BatchJob, tmp_path: Path) -> None:
    with OutputLock(tmp_path / "out"), pytest.raises(OutputError, match=r"Another run writes into .* right now"):
        run_batch(job)
    assert run_batch(job).done == 6


def test_cancelled_and_taken_up_again(job: BatchJob, told: Any) -> None:
    ends: list[object] = []

    def listen(event: object) -> None:
        told(event)
        if type(event).__name__ == "TaskEnded":
            ends.append(event)

    report = run_batch(job, on_event=listen, cancel=lambda: len(ends) >= 2)
    assert report.cancelled
    assert report.done >= 2
    assert report.waiting == 6 - report.done > 0
    assert told.events[-1].cancelled
    assert {row.state for row in report.rows} == {"done", "waiting"}
    again = run_batch(job)
    assert (again.done, again.before, again.cancelled) == (6, report.done, False)
    assert [row.finishes for row in again.rows] == [1] * 6


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_a_large_image_goes_on_in_the_middle(suffix: str, job: BatchJob, classes_model: str, tmp_path: Path, told: Any) -> None:
    job = job.model_copy(update={"format": suffix})
    shutil.rmtree(tmp_path / "raw")
    (tmp_path / "raw").mkdir()
    pixels = np.random.default_rng(5).integers(0, 4000, (300, 300)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "raw" / "large.tif", pixels)
    alone = segment(tmp_path / "raw" / "large.tif", classes_model)
    seen: list[int] = []

    def listen(event: object) -> None:
        if isinstance(event, TaskProgress):
            seen.append(event.done)

    report = run_batch(job, on_event=listen, cancel=lambda: len(seen) >= 200)
    assert report.cancelled
    assert max(seen) in range(200, 203), "it stops within a tile"
    report = run_batch(job, on_event=told)
    first = told.of(TaskProgress)[0]
    assert first.done > 120
    assert report.rows[0].attempts == 2
    np.testing.assert_array_equal(labels_of(tmp_path / "out" / f"large{suffix}"), alone.labels)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".tileseg", f"large{suffix}"}
    assert not list((tmp_path / "out" / ".tileseg" / "journals").iterdir())


@pytest.mark.parametrize("moment", ["store", "put", "_note"])
@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr"])
def test_a_large_image_is_not_computed_again_when_only_its_result_was_not_in_place(
    suffix: str, moment: str, job: BatchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    shutil.rmtree(tmp_path / "raw")
    (tmp_path / "raw").mkdir()
    tifffile.imwrite(tmp_path / "raw" / "large.tif", np.random.default_rng(5).integers(0, 4000, (170, 170)).astype(np.uint16))
    job = job.model_copy(update={"format": suffix})
    with monkeypatch.context() as patch:
        patch.setattr(executor_module if moment == "store" else work_module, moment, cut_off)
        with pytest.raises(CutOff):
            run_batch(job)
    assert run_batch(job, on_event=told).done == 1
    assert not told.of(TaskProgress)
    assert told.ends["large.tif"].counts["left"] > 0
    assert np.asarray(read_volume(tmp_path / "out" / f"large{suffix}").data).any()


def test_a_large_image_that_changed_meanwhile_begins_anew(job: BatchJob, classes_model: str, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "raw")
    (tmp_path / "raw").mkdir()
    path = tmp_path / "raw" / "large.tif"
    pixels = np.random.default_rng(5).integers(0, 4000, (300, 300)).astype(np.uint16)
    tifffile.imwrite(path, pixels)
    seen: list[object] = []
    run_batch(job, on_event=seen.append, cancel=lambda: len(seen) >= 400)
    tifffile.imwrite(path, pixels[:, ::-1].copy())
    assert run_batch(job).done == 1
    np.testing.assert_array_equal(labels_of(tmp_path / "out" / "large.ome.tif"), segment(path, classes_model).labels)


@pytest.mark.parametrize("suffix", [".ome.tif", ".ome.zarr", ".png"])
def test_cut_off_between_the_result_and_the_ledger(
    suffix: str, job: BatchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    job = job.model_copy(update={"format": suffix})
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", cut_off)
        with pytest.raises(CutOff):
            run_batch(job)
    written = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob(f"*{suffix}")}
    assert written
    report = run_batch(job, on_event=told)
    assert report.done == 6
    computed = {event.number for event in told.of(TaskProgress)}
    assert len(computed) == 6 - len(written), "what was written is not computed again"
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in written} == written
    assert not list((tmp_path / "out" / ".tileseg" / "journals").iterdir())


def cut_off(*_: object, **__: object) -> None:
    raise CutOff


def test_cut_off_between_writing_and_taking_its_place(job: BatchJob, monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("napari_tileseg.batch.work.put", cut_off)
        with pytest.raises(CutOff):
            run_batch(job)
    report = run_batch(job, on_event=told)
    assert report.done == 6
    assert len({event.number for event in told.of(TaskProgress)}) == 5, "one was written already"


def test_paused_between_tiles_and_the_clock_stands_still(job: BatchJob, told: Any) -> None:
    asked: list[bool] = []

    def paused() -> bool:
        asked.append(True)
        return 20 < len(asked) < 25

    assert run_batch(job, on_event=told, paused=paused, executor=LocalExecutor(lanes=1)).done == 6
    changes = [event.paused for event in told.of(BatchProgress)]
    assert True in changes
    assert not changes[-1]


def test_failed_ones_are_tried_again_when_asked_for(job: BatchJob, images: list[Path], told: Any) -> None:
    good = images[3].read_bytes()
    images[3].write_bytes(b"")
    first = run_batch(job)
    assert (first.done, first.failed) == (5, 1)
    again = run_batch(job, on_event=told)
    assert (again.done, again.failed, again.before) == (5, 1, 5)
    assert not started(told)
    assert told.ends[images[3].name].before
    third = run_batch(job, retry_failed=True)
    assert (third.failed, third.rows[3].attempts) == (1, 2)
    images[3].write_bytes(good)
    assert run_batch(job).done == 6  # it has changed: nobody needs to ask


def test_several_models_read_each_image_once(
    job: BatchJob, images: list[Path], objects_model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: Any
) -> None:
    reads: list[str] = []
    read = executor_module.read

    def counted(task: Any) -> Any:
        reads.append(task.input)
        return read(task)

    monkeypatch.setattr(executor_module, "read", counted)
    executor = LocalExecutor()
    report = run_batch(job.model_copy(update={"models": (*job.models, objects_model)}), executor=executor, on_event=told)
    assert report.done == 12
    assert sorted(reads) == sorted(str(path) for path in images)
    assert executor.models.loads == 2
    alone = segment(images[0], objects_model)
    np.testing.assert_array_equal(labels_of(tmp_path / "out" / "image_00_objects.ome.tif"), alone.labels)
    assert told.ends["image_00.tif with objects"].instances
    assert told.ends["image_00.tif with objects"].counts == dict(alone.counts)


@pytest.mark.parametrize("lanes", [1, 2])
def test_few_images_are_in_memory_at_once(lanes: int, job: BatchJob, tmp_path: Path, write_images: Callable[..., list[Path]]) -> None:
    write_images(tmp_path / "raw", 25)
    executor = LocalExecutor(lanes=lanes, ahead=2)
    assert run_batch(job, executor=executor).done == 25
    assert executor.most_images <= lanes + 4
    assert executor.models.loads == 1


def test_events_add_up(job: BatchJob, told: Any) -> None:
    run_batch(job, on_event=told)
    progress = told.of(BatchProgress)
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    assert progress[-1].done == progress[-1].total == 6
    assert progress[-1].seconds_left == 0
    assert all(event.seconds_left is None or event.seconds_left >= 0 for event in progress)
    assert {event.attempt for event in told.of(TaskStarted)} == {1}
    ended = told.of(BatchFinished)
    assert [(event.done, event.failed, event.waiting, event.before) for event in ended] == [(6, 0, 0, 0)]


def test_who_listens_badly_ends_the_batch_and_no_image(job: BatchJob) -> None:
    def listen(event: object) -> None:
        if isinstance(event, TaskProgress):
            raise BrokenPipeError("nobody reads any more")

    with pytest.raises(BrokenPipeError):
        run_batch(job, on_event=listen)
    report = run_batch(job)
    assert (report.done, report.failed) == (6, 0)


def test_a_clock_that_runs_backwards_changes_nothing(job: BatchJob, monkeypatch: pytest.MonkeyPatch, told: Any) -> None:
    import time

    ticks = iter(range(10**9, 0, -1))
    monkeypatch.setattr(time, "time", lambda: float(next(ticks)))
    monkeypatch.setattr(time, "time_ns", lambda: next(ticks) * 10**9)
    assert run_batch(job).done == 6
    report = run_batch(job, on_event=told)
    assert report.before == 6
    assert all(row.seconds > 0 for row in report.rows)


def test_the_ledger_tells_neither_who_nor_where(job: BatchJob, tmp_path: Path) -> None:
    run_batch(job)
    with sqlite3.connect(ledger_path(tmp_path / "out")) as connection:
        dump = "\n".join(connection.iterdump())
    connection.close()
    assert str(tmp_path) not in dump
    assert "image_03.tif" in dump


def test_a_ledger_that_is_none_is_told(job: BatchJob, tmp_path: Path) -> None:
    ledger_path(tmp_path / "out").parent.mkdir(parents=True)
    ledger_path(tmp_path / "out").write_text("this is no data base, but text that is long enough to be taken for one" * 40)
    with pytest.raises(OutputError, match=r"is damaged: .*Choose another output folder, or delete the ledger"):
        run_batch(job)


def test_a_disk_that_knows_no_shared_memory_gets_a_plain_ledger(job: BatchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect
    modes: list[str] = []

    class Network(sqlite3.Connection):
        def execute(self, statement: str, *more: Any) -> Any:
            if "journal_mode" in statement:
                modes.append(statement.split()[-1])
                if statement.endswith("WAL"):
                    raise sqlite3.OperationalError("locking protocol")
            return super().execute(statement, *more)

    monkeypatch.setattr(sqlite3, "connect", lambda *arguments, **more: real(*arguments, factory=Network, **more))
    assert run_batch(job).done == 6
    assert modes == ["WAL", "DELETE"]
    assert not ledger_path(tmp_path / "out").with_name("ledger.sqlite-wal").exists()
    assert len(Ledger.look(tmp_path / "out")) == 6


def test_a_folder_that_cannot_be_one_is_refused(job: BatchJob, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises((OptionsError, OutputError), match="is a file"):
        run_batch(job)


def test_nothing_of_the_results_is_verified_twice(job: BatchJob, monkeypatch: pytest.MonkeyPatch) -> None:
    run_batch(job)
    hashed: list[Path] = []
    monkeypatch.setattr(run_module, "digest", lambda path: hashed.append(path))
    assert run_batch(job).before == 6
    assert not hashed, "size and times are enough where nobody has touched a result"


def test_the_ledger_of_a_windows_share_has_an_address_that_sqlite_takes() -> None:
    assert _uri(PureWindowsPath(r"\\server\share\a b\ledger")) == "file:////server/share/a%20b/ledger"
    assert _uri(PureWindowsPath(r"C:\a b\ledger")) == "file:///C:/a%20b/ledger"
    assert _uri(PurePosixPath("/a b/ledger")) == "file:///a%20b/ledger"


def test_an_address_with_its_server_in_the_path_is_a_file(tmp_path: Path) -> None:
    """SQLite refuses a server before the path; what it takes for the path may begin with two strokes."""
    place = tmp_path / "a b.sqlite"
    address = _uri(PureWindowsPath(f"/{place.as_posix()}")) if os.name == "posix" else _uri(place)
    with contextlib.closing(sqlite3.connect(address, uri=True)) as connection:
        connection.execute("CREATE TABLE t (a)")
    assert place.is_file()
