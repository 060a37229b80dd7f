"""A run in a process of its own is the run in this process: whole, cut short, cut short and continued."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.events import Finished, Planned, Progress, SlabDone
from napari_tileseg.errors import InputError, ModelNotFoundError, OptionsError, OutputError, RunError
from napari_tileseg.job import Job, SegmentOptions
from napari_tileseg.models.registry import find_spec
from napari_tileseg.pipeline import segment
from napari_tileseg.volume import Volume
from napari_tileseg.worker import Supervisor, scratch, supervisor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE = 300

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


def is_slab(event: Any) -> bool:
    return isinstance(event, SlabDone)


def reached(path: Path) -> None:
    """Wait for a file, and take it away."""
    end = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end, "the run did not come so far"
        time.sleep(0.01)
    path.unlink()


def gone(pid: int, seconds: float = PATIENCE) -> bool:
    """Wait until a process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def expected(job: Job, volume: Volume) -> Any:
    return segment(volume, job.model).labels


# A whole run


def test_the_result_is_that_of_this_process(bench: Any, job: Job, volume: Volume) -> None:
    job = job.model_copy(update={"options": SegmentOptions(scores=True)})
    here = segment(volume, job.model, options=job.options)
    run, recorder = bench.run(job, volume)
    assert run.state == "done"
    np.testing.assert_array_equal(run.labels, here.labels)
    np.testing.assert_allclose(run.scores, here.scores, atol=1e-5 * np.abs(here.scores).max())
    assert recorder.kinds == ["Loading", "Loaded", "Done"]
    done = recorder.messages[-1]
    assert done.counts == here.counts
    assert done.provenance["model"] == here.provenance["model"]
    assert job.model not in str(done.provenance), "a provenance names no paths"
    assert bench.supervisor.loaded.model == "classes"
    assert bench.supervisor.loaded.bytes > 0
    assert not bench.supervisor.busy


def test_events_come_in_order_and_every_slab_comes(bench: Any, job: Job, volume: Volume) -> None:
    run, recorder = bench.run(job, volume)
    events = recorder.events
    assert isinstance(events[0], Planned)
    assert isinstance(events[-1], Finished)
    stops = [event.region[0] for event in events if isinstance(event, SlabDone)]
    assert [start for start, _ in stops] == [0, *(stop for _, stop in stops[:-1])]
    assert stops[-1][1] == run.finished_rows == run.total_rows == volume.shape[0]
    progress = [event for event in events if isinstance(event, Progress)]
    assert [event.done for event in progress] == sorted({event.done for event in progress})
    assert progress[-1].done == progress[-1].total == events[0].tiles


def test_progress_comes_at_most_twenty_times_a_second(bench: Any, job: Job) -> None:
    volume = Volume(np.zeros((300, 300), np.float32), "YX")
    stamps: list[float] = []

    def stamp(message: Any) -> None:
        if isinstance(getattr(message, "event", None), Progress):
            stamps.append(time.monotonic())

    run = bench.supervisor.start(job, volume, on_message=stamp)
    assert run.wait(PATIENCE)
    # The first and the last may follow closely on others.
    assert len(stamps) <= (stamps[-1] - stamps[0]) / supervisor.PROGRESS_SECONDS + 2
    assert run.tiles[0] == run.tiles[1] > len(stamps)


def test_the_model_stays_loaded_until_it_is_unloaded(stand_in: Callable[..., Any], tmp_path: Path, job: Job, volume: Volume) -> None:
    loads = tmp_path / "loads"
    bench = stand_in(loads=loads)
    bench.run(job, volume)
    pid = bench.supervisor.pid
    bench.run(job, volume)
    assert bench.supervisor.pid == pid
    assert loads.read_text().count("\n") == 1
    bench.supervisor.unload()
    assert gone(pid, 5)
    assert bench.supervisor.pid is None
    assert bench.supervisor.loaded is None
    run, _ = bench.run(job, volume)
    assert run.state == "done"
    assert loads.read_text().count("\n") == 2


def test_another_model_takes_the_place_of_the_first(bench: Any, job: Job, objects_model: str, volume: Volume) -> None:
    bench.run(job, volume)
    pid = bench.supervisor.pid
    run, _ = bench.run(Job(model=objects_model), volume)
    assert run.state == "done"
    assert run.labels.dtype == np.int32
    assert bench.supervisor.loaded.model == "objects"
    assert bench.supervisor.pid == pid


def test_runs_wait_for_each_other_in_order(stand_in: Callable[..., Any], tmp_path: Path, job: Job, volume: Volume) -> None:
    gate = tmp_path / "gate"
    bench = stand_in(pause=1, gate=gate)
    first, heard = bench.start(job, volume)
    heard.until(is_slab)
    others = [bench.start(job, volume) for _ in range(3)]
    for position, (run, recorder) in enumerate(others, start=1):
        assert recorder.until(lambda message: True).position == position
        assert run.state == "queued"
    others[1][0].cancel()
    assert others[1][0].wait(PATIENCE)
    assert others[1][1].kinds == ["Queued", "CancelledRun"]
    assert others[2][1].until(lambda message: True).position == 2
    gate.touch()
    for run in (first, others[0][0], others[2][0]):
        assert run.wait(PATIENCE)
        assert run.state == "done"


@pytest.mark.parametrize("dtype", [">u2", "<i8", "?", ">f8", "f2", "u4", "i1"])
def test_pixels_of_any_type_cross_over(bench: Any, job: Job, dtype: str) -> None:
    image = np.random.default_rng(2).integers(0, 2 if dtype == "?" else 100, (40, 50)).astype(dtype)
    run, _ = bench.run(job, Volume(image, "YX"))
    np.testing.assert_array_equal(run.labels, segment(Volume(image, "YX"), job.model).labels)


def test_a_film_with_channels_is_read_from_a_lazy_array(bench: Any, job: Job) -> None:
    class Lazy:
        """Reads one box at a time, as files do, and knows who asks."""

        def __init__(self, data: Any) -> None:
            self.data, self.shape, self.dtype = data, data.shape, data.dtype
            self.threads: set[str] = set()

        def __getitem__(self, key: Any) -> Any:
            import threading

            self.threads.add(threading.current_thread().name)
            return self.data[key]

    lazy = Lazy(np.random.default_rng(3).integers(0, 255, (3, 2, 40, 36), dtype=np.uint8))
    job = job.model_copy(update={"channels": (1,)})
    run, _ = bench.run(job, Volume(lazy, "TCYX"))
    np.testing.assert_array_equal(run.labels, segment(lazy.data, job.model, axes="TCYX", channels=(1,)).labels)
    assert lazy.threads == {"tileseg-blocks"}, "the window's thread must not wait for a file"


# Cut short


def test_cancel_stops_before_the_next_tile(stand_in: Callable[..., Any], tmp_path: Path, job: Job, volume: Volume, expected: Any) -> None:
    calls = tmp_path / "calls"
    bench = stand_in(until_cancelled=5, calls=calls, reached=tmp_path / "reached")
    run, recorder = bench.start(job, volume)
    reached(tmp_path / "reached")
    run.cancel()
    assert run.state == "cancelling"
    assert run.wait(PATIENCE)
    assert run.state == "cancelled"
    assert recorder.kinds[-1] == "CancelledRun"
    assert calls.read_text().split() == ["call"] * 5 + ["cancelled"]
    assert 0 < run.finished_rows < run.total_rows
    np.testing.assert_array_equal(run.labels[: run.finished_rows], expected[: run.finished_rows])
    assert bench.supervisor.loaded is not None, "the model stays"


def test_a_cancelled_run_is_continued_in_its_own_array(
    stand_in: Callable[..., Any], tmp_path: Path, job: Job, volume: Volume, expected: Any
) -> None:
    bench = stand_in(until_cancelled=5, reached=tmp_path / "reached")
    first, _ = bench.start(job, volume)
    reached(tmp_path / "reached")
    first.cancel()
    assert first.wait(PATIENCE)
    labels, rows = first.labels, first.finished_rows
    second, recorder = bench.start(job, volume, previous=first)
    reached(tmp_path / "reached")
    second.cancel()
    assert second.wait(PATIENCE)
    slabs = [event for event in recorder.events if isinstance(event, SlabDone)]
    assert all(event.region[0][0] >= rows for event in slabs), "finished rows are not computed again"
    third, _ = bench.start(job, volume, previous=second)
    reached(tmp_path / "reached")
    bench.supervisor.unload()
    assert third.wait(PATIENCE)
    assert rows < second.finished_rows <= third.finished_rows < third.total_rows
    plain = Supervisor(scratch=tmp_path / "plain")
    try:
        last = plain.start(job, volume, on_message=lambda message: None, previous=third)
        assert last.wait(PATIENCE)
        assert last.state == "done"
        assert last.labels is labels
        np.testing.assert_array_equal(labels, expected)
    finally:
        plain.close()


@pytest.mark.slow
def test_objects_are_continued_in_the_middle_of_a_sample(stand_in: Callable[..., Any], tmp_path: Path, objects_model: str) -> None:
    film = np.random.default_rng(6).normal(size=(3, 64, 48)).astype(np.float32)
    volume, job = Volume(film, "TYX"), Job(model=objects_model)
    # 3 x 2 tiles a frame: the run stops in the middle of the second.
    bench = stand_in(until_cancelled=9, reached=tmp_path / "reached")
    first, _ = bench.start(job, volume)
    reached(tmp_path / "reached")
    first.cancel()
    assert first.wait(PATIENCE)
    assert 64 <= first.finished_rows < 3 * 64
    plain = Supervisor(scratch=tmp_path / "plain")
    try:
        second = plain.start(job, volume, on_message=lambda message: None, previous=first)
        assert second.wait(PATIENCE)
        np.testing.assert_array_equal(second.labels, segment(volume, objects_model).labels)
    finally:
        plain.close()


def test_only_the_same_job_is_continued(bench: Any, job: Job, volume: Volume, objects_model: str) -> None:
    run, _ = bench.run(job, volume)
    with pytest.raises(OptionsError, match="same job"):
        bench.start(Job(model=objects_model), volume, previous=run)
    with pytest.raises(OptionsError, match="same image"):
        bench.start(job, Volume(np.zeros((9, 9)), "YX"), previous=run)
    assert run.labels.any(), "a refusal takes nothing away"


@posix
def test_a_killed_process_leaves_the_finished_rows(
    stand_in: Callable[..., Any], tmp_path: Path, job: Job, volume: Volume, expected: Any
) -> None:
    bench = stand_in(pause=2, gate=tmp_path / "gate")
    run, recorder = bench.start(job, volume)
    for _ in range(2):
        recorder.until(is_slab)
    os.kill(bench.supervisor.pid, signal.SIGKILL)
    assert run.wait(PATIENCE)
    assert run.state == "died"
    died = recorder.messages[-1]
    done, total = run.tiles
    assert 0 < done < total
    assert died.message == (f"The model's process ended, most likely for lack of memory. {done} of {total} tiles are safe in the layer.")
    assert (died.done, died.total) == (done, total)
    assert 0 < run.finished_rows < run.total_rows
    np.testing.assert_array_equal(run.labels[: run.finished_rows], expected[: run.finished_rows])
    assert bench.supervisor.loaded is None
    (tmp_path / "gate").touch()
    again, _ = bench.run(job, volume, previous=run)
    assert again.state == "done"
    np.testing.assert_array_equal(again.labels, expected)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("slab", range(1, 7))
@pytest.mark.parametrize("round_", range(3))
def test_kills_at_every_slab(
    stand_in: Callable[..., Any], tmp_path: Path, job: Job, volume: Volume, expected: Any, slab: int, round_: int
) -> None:
    bench = stand_in(pause=slab, gate=tmp_path / "gate")
    run, recorder = bench.start(job, volume)
    for _ in range(slab):
        recorder.until(is_slab)
    os.kill(bench.supervisor.pid, signal.SIGKILL)
    assert run.wait(PATIENCE)
    np.testing.assert_array_equal(run.labels[: run.finished_rows], expected[: run.finished_rows])
    (tmp_path / "gate").touch()
    again, _ = bench.run(job, volume, previous=run)
    assert again.state == "done"
    np.testing.assert_array_equal(again.labels, expected)


@pytest.mark.parametrize(
    ("do", "kind", "text"),
    [
        ("raise", "Failed", "divides by zero"),
        ("sys.exit", "Failed", "SystemExit"),
        ("memory", "Failed", "no memory left"),
        ("exit", "Died", "ended by itself (exit status 3)"),
        pytest.param("abort", "Died", "crashed (SIGABRT)", marks=posix),
    ],
)
def test_a_failing_model_is_told_as_it_is(
    stand_in: Callable[..., Any], job: Job, volume: Volume, expected: Any, do: str, kind: str, text: str
) -> None:
    bench = stand_in(at=7, do=do)
    run, recorder = bench.run(job, volume)
    assert recorder.kinds[-1] == kind
    assert run.state == kind.lower()
    assert text in recorder.messages[-1].message
    assert "tileseg_stand_in" in recorder.messages[-1].details or do == "exit"
    assert 0 < run.finished_rows < run.total_rows
    np.testing.assert_array_equal(run.labels[: run.finished_rows], expected[: run.finished_rows])
    assert (bench.supervisor.pid is not None) == (kind == "Failed")


def test_an_image_that_vanishes_fails_the_run_with_a_sentence(bench: Any, job: Job, volume: Volume, expected: Any) -> None:
    class Vanishing:
        shape, dtype = volume.shape, volume.dtype

        def __getitem__(self, key: Any) -> Any:
            if key[0].start >= 48:
                raise FileNotFoundError(2, "No such file or directory", "noise.tif")
            return volume.data[key]

    run, recorder = bench.run(job, Volume(Vanishing(), "YX", name="noise"))
    failed = recorder.messages[-1]
    assert run.state == "failed"
    assert failed.kind == "InputError"
    assert failed.message == (
        "The image \"noise\" could not be read: [Errno 2] No such file or directory: 'noise.tif'. Check that its file is still there."
    )
    assert "Vanishing" in failed.details or "__getitem__" in failed.details
    assert 0 < run.finished_rows < run.total_rows
    np.testing.assert_array_equal(run.labels[: run.finished_rows], expected[: run.finished_rows])
    again, _ = bench.run(job, volume)
    assert again.state == "done"


def test_cancel_does_not_wait_for_an_image_that_hangs(bench: Any, job: Job, volume: Volume) -> None:
    import threading

    reading, released = threading.Event(), threading.Event()

    class Hanging:
        shape, dtype = volume.shape, volume.dtype

        def __getitem__(self, key: Any) -> Any:
            reading.set()
            released.wait(PATIENCE)
            return volume.data[key]

    run, _ = bench.start(job, Volume(Hanging(), "YX"))
    assert reading.wait(PATIENCE)
    run.cancel()
    assert run.wait(10)
    assert run.state == "cancelled"
    again, _ = bench.run(job, volume)
    assert again.state == "done"
    released.set()


def test_a_second_cancel_ends_the_process(stand_in: Callable[..., Any], tmp_path: Path, job: Job, volume: Volume) -> None:
    calls = tmp_path / "calls"
    bench = stand_in(at=3, do="hang", calls=calls)
    run, recorder = bench.start(job, volume)
    recorder.until(is_slab)
    pid = bench.supervisor.pid
    run.cancel()
    assert run.state == "cancelling"
    run.cancel()
    assert run.wait(PATIENCE)
    assert run.state == "cancelled"
    assert gone(pid)
    assert 0 < run.finished_rows < run.total_rows


def test_a_cancel_that_takes_too_long_ends_the_process(
    stand_in: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, job: Job, volume: Volume
) -> None:
    monkeypatch.setattr(supervisor, "CANCEL_SECONDS", 0.2)
    bench = stand_in(at=3, do="hang")
    run, recorder = bench.start(job, volume)
    recorder.until(is_slab)
    run.cancel()
    assert run.wait(PATIENCE)
    assert run.state == "cancelled"


def test_unloading_amid_a_tile_cancels_the_run(stand_in: Callable[..., Any], job: Job, volume: Volume) -> None:
    bench = stand_in(at=3, do="hang")
    run, recorder = bench.start(job, volume)
    recorder.until(is_slab)
    pid = bench.supervisor.pid
    bench.supervisor.unload()
    assert gone(pid, 5)
    assert run.wait(PATIENCE)
    assert run.state == "cancelled"
    assert recorder.kinds[-1] == "CancelledRun"


def test_closing_amid_a_tile_ends_everything_in_silence(stand_in: Callable[..., Any], tmp_path: Path, job: Job, volume: Volume) -> None:
    bench = stand_in(at=3, do="hang")
    run, recorder = bench.start(job, volume)
    waiting, silent = bench.start(job, volume)
    recorder.until(is_slab)
    pid, labels = bench.supervisor.pid, run.labels
    began = time.monotonic()
    bench.supervisor.close()
    assert time.monotonic() - began < 5
    heard = len(recorder.messages), len(silent.messages)
    assert gone(pid, 5)
    assert run.wait(0)
    assert waiting.wait(0)
    assert (run.state, waiting.state) == ("cancelled", "cancelled")
    assert (len(recorder.messages), len(silent.messages)) == heard
    if sys.platform != "win32":
        assert not list((tmp_path / "scratch").glob("tileseg-*"))
    assert labels.shape == volume.shape, "a layer may still show what is there"
    assert labels[: run.finished_rows].size > 0
    with pytest.raises(RunError, match="closed"):
        bench.start(job, volume)
    bench.supervisor.close()


# Oddities


def test_prints_of_libraries_do_not_reach_the_pipe(stand_in: Callable[..., Any], job: Job, volume: Volume, expected: Any) -> None:
    run, recorder = stand_in(print=True).run(job, volume)
    assert run.state == "done"
    assert recorder.kinds == ["Loading", "Loaded", "Done"]
    np.testing.assert_array_equal(run.labels, expected)


def test_the_log_tells_what_a_dead_model_printed(stand_in: Callable[..., Any], job: Job, volume: Volume) -> None:
    _, recorder = stand_in(print=True, at=2, do="exit").run(job, volume)
    details = recorder.messages[-1].details
    assert details.startswith("Exit status 3.")
    for text in ("naïve €", "no line end", "to stderr", "from a process"):
        assert text in details


def test_a_failing_callback_stops_nothing(bench: Any, job: Job, volume: Volume, caplog: pytest.LogCaptureFixture) -> None:
    def fail(message: Any) -> None:
        raise KeyError("the window is gone")

    run = bench.supervisor.start(job, volume, on_message=fail)
    assert run.wait(PATIENCE)
    assert run.state == "done"
    assert "the window is gone" in caplog.text


def test_a_removed_run_leaves_no_files(bench: Any, job: Job, volume: Volume) -> None:
    run, _ = bench.run(job, volume)
    labels, folder = run.labels, run.store.folder
    before = labels.copy()
    run.remove()
    if sys.platform != "win32":
        assert not folder.exists()
    np.testing.assert_array_equal(labels, before)
    with pytest.raises(OutputError, match="removed"):
        _ = run.labels


def test_what_cannot_run_is_refused_at_once(bench: Any, job: Job, volume: Volume) -> None:
    with pytest.raises(ModelNotFoundError, match="no model"):
        bench.start(Job(model="nothing-like-it"), volume)
    with pytest.raises(InputError, match="channel"):
        bench.start(job, Volume(np.zeros((5, 20, 20)), "CYX"))
    assert not bench.supervisor.busy


def test_a_full_disk_is_told_before_the_start(bench: Any, monkeypatch: pytest.MonkeyPatch, job: Job) -> None:
    class Endless:
        shape, dtype = (40_000_000, 1_000_000), np.dtype("u1")

    monkeypatch.setattr(scratch, "free_bytes", lambda folder: 12_000_000_000)
    with pytest.raises(OutputError, match=r"needs 40\.0? TB in .*; 12\.0 GB are free"):
        bench.start(job, Volume(Endless(), "YX"))


def test_a_job_with_axes_and_region_fills_its_part(bench: Any, job: Job, volume: Volume) -> None:
    job = job.model_copy(update={"axes": "XY", "region": ((10, 60), (4, 30))})
    run, _ = bench.run(job, volume)
    assert run.state == "done"
    assert run.map == map_axes("XY", volume.shape, find_spec(job.model))
    np.testing.assert_array_equal(run.labels, segment(volume, job.model, axes="XY", region=job.region).labels)
