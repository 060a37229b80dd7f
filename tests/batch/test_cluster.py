"""A batch on a real Dask cluster: the results of one process, whatever happens to its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from napari_tileseg.batch import connection
from napari_tileseg.batch.cluster import DaskExecutor, kept, make_executor
from napari_tileseg.batch.connection import compare, cuda_places, threads_each
from napari_tileseg.batch.crew import Crew, error_of
from napari_tileseg.batch.events import TaskProgress, TaskStarted
from napari_tileseg.batch.executor import LocalExecutor
from napari_tileseg.batch.remote import fresh_models
from napari_tileseg.batch.run import run_batch
from napari_tileseg.errors import ModelError, OptionsError, RunError
from napari_tileseg.io import read_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_tileseg.batch.job import BatchJob

STAND_INS = Path(__file__).parent / "stand_ins"

posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGKILL")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start two workers for all tests of this file, as somebody else's cluster."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        memory_limit=0,
        silence_logs=50,
        env={"OMP_NUM_THREADS": "1"},
        scheduler_kwargs={"allowed_failures": 2, "dashboard": False, "dashboard_address": ":0"},
    ) as found:
        yield found


def on(cluster: Any, **more: Any) -> DaskExecutor:
    return DaskExecutor(scheduler=cluster.scheduler_address, **more)


def elsewhere(job: BatchJob, tmp_path: Path, name: str) -> BatchJob:
    return job.model_copy(update={"output": str(tmp_path / name)})


def same_outputs(one: str, other: str) -> None:
    names = [{path.name for path in Path(folder).iterdir() if path.name != ".tileseg"} for folder in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        np.testing.assert_array_equal(np.asarray(read_volume(Path(one) / name).data), np.asarray(read_volume(Path(other) / name).data))


@pytest.mark.usefixtures("images")
def test_two_workers_do_what_one_program_does_and_load_the_model_once(job: BatchJob, tmp_path: Path, told: Any) -> None:
    executor = make_executor(job, workers=2)
    assert isinstance(executor, DaskExecutor)
    there = run_batch(job, executor=executor, on_event=told)
    alone = elsewhere(job, tmp_path, "alone")
    here = run_batch(alone)
    assert (there.done, there.failed) == (6, 0)
    assert [row.digest for row in there.rows] == [row.digest for row in here.rows], "not only the labels are the same"
    same_outputs(job.output, alone.output)
    assert set(executor.loads.values()) == {1}
    assert 1 <= len(executor.loads) <= 2
    assert len(told.of(TaskStarted)) == 6
    assert all(event.attempt == 1 for event in told.of(TaskStarted))
    assert not list((Path(job.output) / ".tileseg" / "journals").iterdir())


def test_no_workers_means_this_program(job: BatchJob) -> None:
    assert isinstance(make_executor(job), LocalExecutor)
    with kept(make_executor(job)) as executor:
        assert isinstance(executor, LocalExecutor)


def test_a_scheduler_knows_its_workers(job: BatchJob) -> None:
    assert make_executor(job, workers=1, scheduler="tcp://x:1", divide=False) == DaskExecutor(scheduler="tcp://x:1", divide=False)


@pytest.mark.slow
@pytest.mark.usefixtures("images")
def test_workers_and_their_models_stay_from_batch_to_batch(job: BatchJob, tmp_path: Path) -> None:
    with kept(make_executor(job, workers=2)) as executor:
        for name in ("one", "two"):
            assert run_batch(elsewhere(job, tmp_path, name), executor=executor).done == 6
    assert isinstance(executor, DaskExecutor)
    assert 1 <= len(executor.loads) <= 2, "no process was started for the second batch"
    assert set(executor.loads.values()) == {1}


def slow_images(write_images: Callable[..., list[Path]], folder: Path, count: int) -> None:
    write_images(folder, count, size=400)


@pytest.mark.slow
@posix
def test_the_files_of_a_worker_that_dies_are_given_to_another(
    job: BatchJob, tmp_path: Path, write_images: Callable[..., list[Path]], cluster: Any, told: Any
) -> None:
    from distributed import Client

    slow_images(write_images, tmp_path / "raw", 6)
    killed: list[int] = []
    with Client(cluster, set_as_default=False) as client:
        workers = client.run(os.getpid)

        def kill(event: Any) -> None:
            told(event)
            if isinstance(event, TaskProgress) and not killed:
                killed.append(workers.popitem()[1])
                os.kill(killed[0], signal.SIGKILL)

        report = run_batch(job, executor=on(cluster), on_event=kill)
    assert killed
    assert (report.done, report.failed) == (6, 0)
    assert [row.finishes for row in report.rows] == [1] * 6
    alone = elsewhere(job, tmp_path, "alone")
    run_batch(alone)
    same_outputs(job.output, alone.output)


@pytest.mark.slow
@posix
def test_a_file_that_always_ends_its_worker_fails_alone(
    job: BatchJob, tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch, told: Any
) -> None:
    (tmp_path / "raw" / "killer.tif").write_bytes(images[0].read_bytes())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STAND_INS), *filter(None, [os.environ.get("PYTHONPATH")])]))
    report = run_batch(job, executor=make_executor(job, workers=2), on_event=told)
    assert (report.done, report.failed) == (6, 1)
    assert told.ends["killer.tif"].message.startswith('"killer.tif" has ended several workers')
    monkeypatch.undo()
    assert run_batch(job).failed == 1, "it is not tried again unless somebody asks for it"


@pytest.mark.slow
def test_cancel_reaches_a_worker_within_a_tile_and_the_batch_goes_on_later(
    job: BatchJob, tmp_path: Path, write_images: Callable[..., list[Path]], cluster: Any, told: Any
) -> None:
    slow_images(write_images, tmp_path / "raw", 6)
    stop = threading.Event()

    def hear(event: Any) -> None:
        told(event)
        if isinstance(event, TaskProgress) and event.done > 100:  # several rows of tiles
            stop.set()

    report = run_batch(job, executor=on(cluster), on_event=hear, cancel=stop.is_set)
    assert report.cancelled
    assert report.waiting >= 5, "nothing that was begun was finished first"
    assert report.failed == 0
    assert list((Path(job.output) / ".tileseg" / "journals").glob("*/journal.json")), "what was begun goes on from its journal"
    again = run_batch(job, executor=on(cluster))
    assert (again.done, again.before) == (6, report.done)
    alone = elsewhere(job, tmp_path, "alone")
    run_batch(alone)
    same_outputs(job.output, alone.output)


def test_workers_wait_while_the_batch_is_paused(
    job: BatchJob, tmp_path: Path, write_images: Callable[..., list[Path]], cluster: Any, told: Any
) -> None:
    slow_images(write_images, tmp_path / "raw", 4)
    paused, heard = threading.Event(), []

    def hear(event: Any) -> None:
        told(event)
        if isinstance(event, TaskProgress):
            heard.append(event)
            if len(heard) == 1:
                paused.set()
                threading.Thread(target=go_on).start()

    def go_on() -> None:
        time.sleep(1)  # messages that were on their way have arrived
        before = len(heard)
        time.sleep(1)
        quiet.append(len(heard) == before)
        paused.clear()

    quiet: list[bool] = []
    report = run_batch(job, executor=on(cluster), on_event=hear, paused=paused.is_set)
    assert (report.waiting, report.failed) == (0, 0)
    assert quiet == [True]


def test_a_caller_who_leaves_stops_the_workers(
    job: BatchJob, tmp_path: Path, write_images: Callable[..., list[Path]], cluster: Any
) -> None:
    from napari_tileseg.batch.listing import list_tasks

    slow_images(write_images, tmp_path / "raw", 6)
    tasks = list_tasks(job).tasks
    for task in tasks:
        Path(task.journal).parent.mkdir(parents=True, exist_ok=True)
    answers = on(cluster).run(tasks, tell=lambda event: None, cancel=lambda: False, paused=lambda: False)
    next(answers)
    answers.close()
    from distributed import Client

    with Client(cluster, set_as_default=False) as client:
        deadline = time.monotonic() + 60
        while any(client.processing().values()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(client.processing().values())
    assert len(list(Path(job.output).glob("*.ome.tif"))) < 6


def test_a_faulty_file_fails_with_its_sentence(job: BatchJob, tmp_path: Path, images: list[Path], cluster: Any, told: Any) -> None:
    images[2].write_bytes(b"this is a text")
    images[3].write_bytes(b"")
    report = run_batch(job, executor=on(cluster), on_event=told)
    assert (report.done, report.failed) == (4, 2)
    alone = elsewhere(job, tmp_path, "alone")
    here = run_batch(alone)
    assert [row.message for row in report.rows] == [row.message for row in here.rows]


@pytest.mark.usefixtures("images")
def test_a_model_that_cannot_be_loaded_ends_the_batch(job: BatchJob, tmp_path: Path, cluster: Any) -> None:
    from napari_tileseg.batch.listing import list_tasks

    tasks = list_tasks(job).tasks
    Path(tasks[0].journal).parent.mkdir(parents=True)
    (Path(job.models[0]) / "model.json").rename(tmp_path / "model.json")
    try:
        with pytest.raises(ModelError, match="no model that is known here"):
            list(on(cluster).run(tasks, tell=lambda event: None, cancel=lambda: False, paused=lambda: False))
    finally:
        (tmp_path / "model.json").rename(Path(job.models[0]) / "model.json")


def test_a_model_that_has_changed_is_loaded_again(job: BatchJob) -> None:
    ref = job.models[0]
    models = fresh_models(ref)
    models.get(ref, "cpu")
    assert fresh_models(ref) is models
    card = Path(ref) / "model.json"
    os.utime(card, (1, 1))
    assert fresh_models(ref) is not models


# What cannot work is said before anything is sent


def test_one_of_workers_and_scheduler_is_needed() -> None:
    for given in ({"workers": 2, "scheduler": "tcp://127.0.0.1:1"}, {"workers": 0}, {"workers": -1}):
        with pytest.raises(OptionsError, match="Give either"), connection.connect(**given):
            raise AssertionError


def test_without_distributed_the_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(OptionsError, match=r'pip install "napari-tileseg\[cluster\]"'), connection.connect(workers=2):
        raise AssertionError


def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_PATIENCE", 0.5)
    for scheduler in ("tcp://127.0.0.1:1", "nonsense://x"):
        with pytest.raises(OptionsError, match=f'No Dask scheduler answers at "{scheduler}"'), connection.connect(scheduler=scheduler):
            raise AssertionError
    missing = str(tmp_path / "scheduler.json")
    with pytest.raises(OptionsError, match="There is no scheduler file"), connection.connect(scheduler=missing):
        raise AssertionError


def test_a_scheduler_file_leads_to_the_scheduler(cluster: Any, tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(f'{{"address": "{cluster.scheduler_address}"}}')
    with connection.connect(scheduler=str(file)) as client:
        connection.check_greetings(client, [str(tmp_path)])
        assert Crew(client).size() == 2
        with pytest.raises(OptionsError, match=r'does not see ".*gone"'):
            connection.check_greetings(client, [str(tmp_path / "gone")])


def test_workers_that_do_not_fit_are_named() -> None:
    mine = {"napari-tileseg": "1.0", "distributed": "2"}
    good = {**mine, "torch": "2.6.0", "host": "node1", "unseen": []}
    compare({"a": good, "b": good}, mine)
    with pytest.raises(OptionsError, match=r"The worker b on node1 has napari-tileseg 0.9, this program has 1.0"):
        compare({"a": good, "b": {**good, "napari-tileseg": "0.9"}}, mine)
    with pytest.raises(OptionsError, match=r"The worker b cannot load napari-tileseg 1.0 \(No module"):
        compare({"a": good, "b": ModuleNotFoundError("No module named 'napari_tileseg'")}, mine)
    with pytest.raises(OptionsError, match=r"torch 2.6.0 \(a\) and torch 2.7.0 \(b\)"):
        compare({"a": good, "b": {**good, "torch": "2.7.0"}}, mine)


def test_errors_of_workers_keep_their_kind() -> None:
    assert isinstance(error_of({"error": "ModelError", "message": "x"}), ModelError)
    assert isinstance(error_of({"error": "annotations", "message": "x"}), RunError)


@pytest.mark.slow
def test_a_script_without_a_main_part_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from napari_tileseg.batch.connection import connect\nwith connect(workers=1): pass\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert "OptionsError: The 1 worker processes could not be started" in done.stderr
    assert 'if __name__ == "__main__"' in done.stderr


# The whole command


@posix
@pytest.mark.slow
def test_the_whole_command_is_killed_and_goes_on(job: BatchJob, tmp_path: Path, write_images: Callable[..., list[Path]], told: Any) -> None:
    slow_images(write_images, tmp_path / "raw", 6)
    arguments = ["batch", job.inputs[0], "-o", job.output, "--model", job.models[0], "--workers", "2", "--no-report", "--json"]
    command = [sys.executable, "-c", "from napari_tileseg.cli import main; main()", *arguments]
    journals = Path(job.output) / ".tileseg" / "journals"
    for rows in (1, 3):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            deadline, changed, last = time.monotonic() + 300, 0, 0.0
            while changed < rows and process.poll() is None and time.monotonic() < deadline:
                stamps = [path.stat().st_mtime for path in journals.glob("*/journal.json") if path.exists()]
                if max(stamps, default=0.0) > last:
                    last, changed = max(stamps), changed + 1
                time.sleep(0.002)
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive, "workers end with the program that has started them"
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    alone = elsewhere(job, tmp_path, "alone")
    run_batch(alone)
    same_outputs(job.output, alone.output)


# GPUs and cores


def test_gpus_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5,GPU-7")
    assert cuda_places(4, "auto") == ["2", "5", "GPU-7", "2"]
    assert cuda_places(2, "cuda:1") == []
    assert cuda_places(2, "cpu") == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert cuda_places(4, "cuda") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert cuda_places(3, "auto") == ["0", "1", "0"]


def test_each_process_gets_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setitem(sys.modules, "dask_cuda", None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with connection.connect(workers=2) as client:
        assert "OMP_NUM_THREADS" not in os.environ, "other programs that are started from here are none of Dask's business"
        client.wait_for_workers(2, timeout=60)
        found = client.run(lambda: (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]))
    each = str(threads_each(2))
    assert sorted(found.values()) == [("5", each), ("7", each)]


def test_dask_cuda_shares_out_the_gpus_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    asked: dict[str, Any] = {}

    class Stand:
        """Stands for dask-cuda's cluster, which needs GPUs."""

        def __init__(self, **arguments: Any) -> None:
            asked.update(arguments)
            raise OptionsError("enough")

    monkeypatch.setitem(sys.modules, "dask_cuda", types.SimpleNamespace(LocalCUDACluster=Stand))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(OptionsError, match="enough"), connection.connect(workers=2):
        raise AssertionError
    assert asked["CUDA_VISIBLE_DEVICES"] == ["0", "1"]
    assert (asked["n_workers"], asked["threads_per_worker"]) == (2, 1)


def test_cores_are_spread_over_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    assert [threads_each(count) for count in (1, 2, 5, 16, 40)] == [16, 8, 3, 1, 1]
