"""One image on several workers is the image on one: every label, every object, whatever happens to a worker meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
import zarr

from napari_tileseg import division
from napari_tileseg.batch import regions
from napari_tileseg.batch.cluster import DaskExecutor
from napari_tileseg.batch.events import TaskProgress
from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.listing import list_tasks
from napari_tileseg.batch.regions import segment_on_cluster, worth_dividing
from napari_tileseg.batch.run import run_batch
from napari_tileseg.engine.events import Finished, Planned, Progress
from napari_tileseg.errors import Cancelled, InputError, OptionsError
from napari_tileseg.io import read_volume
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import read_spec, write_package, write_spec
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment
from napari_tileseg.unfinished import folder_beside

if TYPE_CHECKING:
    from collections.abc import Iterator

OBJECTS = {"output": "instances", "decoder": "watershed", "heads": ["foreground", "border", "distance"], "classes": ["background", "cell"]}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Start two workers for all tests of this file."""
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


@pytest.fixture(autouse=True)
def _as_many_threads_as_a_worker() -> Iterator[None]:
    """Sums are cut among threads, and round accordingly."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def package(folder: Path, kind: str, ndim: int) -> str:
    """Write a small model with weights of no meaning, whose scores are about as often high as low."""
    torch.manual_seed(3)
    more: dict[str, Any] = OBJECTS if kind == "objects" else {"classes": ["background", "left", "right"]}
    arguments = {"spatial_dims": ndim, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "stem_channels": 4}
    network = build_network("residual_unet", **arguments).eval()
    with torch.no_grad():  # so that no score is high everywhere
        found = network(torch.randn((4, 1, *(32,) * ndim)))
        network.head.bias -= found.transpose(0, 1).flatten(1).median(1).values
    window = (16, 32, 32)[3 - ndim :]
    card = {"name": kind, "axes": "C" + "ZYX"[3 - ndim :], "channels": ["grey"], "window": window, "normalization": {"kind": "zscore"}}
    write_package(folder / kind, ModelSpec(**card, architecture="residual_unet", arguments=arguments, **more), network.state_dict())
    return str(folder / kind)


def image(folder: Path, shape: tuple[int, ...]) -> Path:
    path = folder / "image.tif"
    axes = {"axes": "ZYX" if len(shape) == 3 else "YX"}
    pixels = np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16)
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata=axes)
    return path


SHAPES = {2: (500, 460), 3: (34, 110, 100)}


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", ["classes", "objects"])
def test_two_workers_give_what_one_process_gives(
    kind: str, ndim: int, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(division, "MOST_SCORES", 60_000)
    monkeypatch.setattr("napari_tileseg.io.zarr_layout._SIDE", 128)
    monkeypatch.setattr("napari_tileseg.io.zarr_layout._SIDE_3D", 64)
    monkeypatch.setattr("napari_tileseg.io.zarr_layout._DEPTH", 16)
    monkeypatch.setattr("napari_tileseg.io.zarr_layout._COARSEST", 64)
    model, source = package(tmp_path, kind, ndim), image(tmp_path, SHAPES[ndim])
    events: list[Any] = []
    together = segment_on_cluster(
        source, model, tmp_path / "together.ome.zarr", scheduler=cluster.scheduler_address, on_event=events.append, axes="ZYX"[3 - ndim :]
    )
    alone = segment(source, model, out=tmp_path / "alone.ome.zarr", axes="ZYX"[3 - ndim :])
    labels = np.asarray(alone.labels)
    assert len(np.unique(labels)) > 2
    assert 0.1 < np.mean(labels > 0) < 0.9
    np.testing.assert_array_equal(np.asarray(together.labels), labels)
    assert together.counts == alone.counts
    assert together.provenance == alone.provenance
    stores = [zarr.open_group(tmp_path / f"{name}.ome.zarr", mode="r") for name in ("together", "alone")]
    assert dict(stores[0].attrs) == dict(stores[1].attrs)
    levels = [sorted(store.array_keys()) for store in stores]
    assert levels[0] == levels[1]
    assert len(levels[0]) > 1
    for level in levels[0]:
        np.testing.assert_array_equal(np.asarray(stores[0][level]), np.asarray(stores[1][level]))
    assert isinstance(events[0], Planned)
    assert isinstance(events[-1], Finished)
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].done == progress[-1].total == events[0].tiles
    assert [event.done for event in progress] == sorted(event.done for event in progress)
    assert {path.name for path in tmp_path.iterdir()} == {kind, "image.tif", "together.ome.zarr", "alone.ome.zarr"}


def test_workers_turn_volumes_as_one_process_does(cluster: Any, tmp_path: Path) -> None:
    import nibabel

    model = Path(package(tmp_path, "classes", 2))
    spec = read_spec(model)
    write_spec(model, spec.model_copy(update={"orientation": "SAR"}))
    pixels = np.random.default_rng(0).integers(0, 4000, (40, 50, 60)).astype(np.int16)
    affine = np.array([[0, 0, 1.0, 0], [-1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(pixels, affine), tmp_path / "turned.nii.gz")
    source = tmp_path / "turned.nii.gz"
    alone = np.asarray(segment(source, str(model)).labels)
    together = segment_on_cluster(source, str(model), tmp_path / "together.ome.zarr", scheduler=cluster.scheduler_address)
    np.testing.assert_array_equal(np.asarray(together.labels), alone)
    write_spec(model, spec)
    assert not np.array_equal(np.asarray(segment(source, str(model)).labels), alone), "turning changes what the model sees"


def run(job: BatchJob, cluster: Any, **more: Any) -> Any:
    return run_batch(job, executor=DaskExecutor(scheduler=cluster.scheduler_address), **more)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchJob:
    """Return a job of one image that counts as large, whose result is cut into small chunks."""
    monkeypatch.setattr(regions, "LARGE", 100_000)
    monkeypatch.setattr("napari_tileseg.io.zarr_layout._SIDE", 128)
    model, source = package(tmp_path, "objects", 2), image(tmp_path, (700, 600))
    return BatchJob(models=(model,), inputs=(str(source),), output=str(tmp_path / "out"), format=".ome.zarr", report=False)


def outputs(job: BatchJob) -> np.ndarray:
    return np.asarray(read_volume(Path(job.output) / "image.ome.zarr").data)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGKILL")
def test_a_batch_of_one_large_image_survives_the_death_of_a_worker(job: BatchJob, cluster: Any, tmp_path: Path) -> None:
    from distributed import Client

    killed: list[int] = []
    with Client(cluster, set_as_default=False) as client:
        client.wait_for_workers(2)
        workers = client.run(os.getpid)

    def kill(event: Any) -> None:
        if isinstance(event, TaskProgress) and not killed:
            killed.append(workers.popitem()[1])
            os.kill(killed[0], signal.SIGKILL)

    report = run(job, cluster, on_event=kill)
    assert killed
    assert (report.done, report.failed) == (1, 0)
    here = job.model_copy(update={"output": str(tmp_path / "alone")})
    alone = run_batch(here)
    np.testing.assert_array_equal(outputs(job), outputs(here))
    assert report.rows[0].digest == alone.rows[0].digest
    assert report.rows[0].counts == alone.rows[0].counts
    assert not list((Path(job.output) / ".tileseg" / "journals").iterdir())


@pytest.mark.slow
def test_a_cancelled_image_goes_on_with_the_shares_that_are_missing(job: BatchJob, cluster: Any, tmp_path: Path) -> None:
    done: list[int] = []

    def hear(event: Any) -> None:
        if isinstance(event, TaskProgress):
            done.append(event.done)

    report = run(job, cluster, on_event=hear, cancel=lambda: bool(done) and done[-1] > 500)
    assert report.cancelled
    reached = done[-1]
    first = len(done)
    assert run(job, cluster, on_event=hear).done == 1
    assert min(done[first:]) > reached // 2
    here = job.model_copy(update={"output": str(tmp_path / "alone")})
    run_batch(here)
    np.testing.assert_array_equal(outputs(job), outputs(here))


def test_an_image_is_divided_where_that_is_worth_it(job: BatchJob, monkeypatch: pytest.MonkeyPatch) -> None:
    task = list_tasks(job).tasks[0]
    assert worth_dividing(task, tasks=1, workers=2)
    assert not worth_dividing(task, tasks=2, workers=2), "each worker has an image of its own"
    assert not worth_dividing(task, tasks=1, workers=1)
    tiff = list_tasks(job.model_copy(update={"format": ".ome.tif"})).tasks[0]
    assert not worth_dividing(tiff, tasks=1, workers=2)
    for options in (SegmentOptions(adaptive=True), SegmentOptions(scores=True), SegmentOptions(uncertainty="entropy")):
        assert not worth_dividing(list_tasks(job.model_copy(update={"options": options})).tasks[0], tasks=1, workers=2)
    monkeypatch.setattr(regions, "LARGE", 10**9)
    assert not worth_dividing(task, tasks=1, workers=2)


def test_what_cannot_be_divided_is_refused_with_a_reason(tmp_path: Path) -> None:
    model, source = package(tmp_path, "classes", 2), image(tmp_path, (50, 50))
    with pytest.raises(OptionsError, match="only a result that is an OME-Zarr"):
        segment_on_cluster(source, model, tmp_path / "a.ome.tif", workers=2)
    with pytest.raises(OptionsError, match="adaptive overlap"):
        segment_on_cluster(source, model, tmp_path / "a.ome.zarr", workers=2, options=SegmentOptions(adaptive=True))


def test_the_python_call_is_refused_cancelled_and_goes_on(cluster: Any, tmp_path: Path) -> None:
    model, source = package(tmp_path, "classes", 2), image(tmp_path, (300, 300))
    out = tmp_path / "a.ome.zarr"
    with pytest.raises(InputError):
        segment_on_cluster(tmp_path / "none.tif", model, out, scheduler=cluster.scheduler_address)
    where = {"scheduler": cluster.scheduler_address}
    with pytest.raises(Cancelled):
        segment_on_cluster(source, model, out, cancel=lambda: True, **where)
    assert not out.exists()
    # What is left of a run by one process is no beginning of this one.
    folder = folder_beside(out)
    shutil.rmtree(folder, ignore_errors=True)
    with pytest.raises(Cancelled):
        rows: list[Any] = []
        segment(source, model, out=out, on_event=rows.append, cancel=lambda: len(rows) > 150)
    assert (folder / "journal.json").exists()
    shutil.rmtree(tmp_path / "a_unfinished.ome.zarr", ignore_errors=True)
    found = segment_on_cluster(source, model, out, **where)
    np.testing.assert_array_equal(np.asarray(found.labels), segment(source, model).labels)
    assert not folder.exists()


def test_fast_arithmetic_is_decided_once_for_all_workers(cluster: Any, tmp_path: Path) -> None:
    model, source = package(tmp_path, "classes", 2), image(tmp_path, (300, 300))
    options = SegmentOptions(precision="auto")
    found = segment_on_cluster(source, model, tmp_path / "a.ome.zarr", options=options, scheduler=cluster.scheduler_address)
    assert found.provenance["settings"]["precision"]
    assert np.asarray(found.labels).any()
