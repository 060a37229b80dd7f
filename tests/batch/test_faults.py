"""What goes wrong overnight: one file fails with its sentence and all others are done, or everything stops and goes on later."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch

from napari_tileseg.batch.events import BatchStarted, TaskEnded, TaskProgress, TaskStarted
from napari_tileseg.batch.executor import LocalExecutor
from napari_tileseg.batch.run import run_batch
from napari_tileseg.batch.work import Models
from napari_tileseg.errors import DeviceMemoryError, InputError, ModelError, OutputError
from napari_tileseg.io import read_volume
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.registry import find_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_tileseg.batch.job import BatchJob

BAD = "image_02.tif"


@pytest.fixture
def bad(images: list[Path]) -> Path:
    return images[2]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def text(path: Path) -> None:
    path.write_text("time;cells\n0;12\n", encoding="utf-8")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def five_axes(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((2, 2, 2, 40, 40), np.uint16), imagej=True, metadata={"axes": "TZCYX"})


def nameless_axes(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((3, 2, 5, 40, 40), np.uint16), photometric="minisblack")


def complex_numbers(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((40, 40), np.complex64))


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncated, "ends after"),
    "text": (text, "holds text, not a TIFF image"),
    "0 bytes": (nothing, "is empty: it has 0 bytes"),
    "5 dimensions": (five_axes, "takes 1 channel; the image has 2"),
    "5 dimensions without names": (nameless_axes, "does not say what axis 1"),
    "complex": (complex_numbers, "complex"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_bad_file_fails_with_its_sentence(fault: str, job: BatchJob, bad: Path, told: Any) -> None:
    spoil, sentence = FAULTS[fault]
    spoil(bad)
    report = run_batch(job, on_event=told)
    assert (report.done, report.failed, report.waiting) == (5, 1, 0)
    ended = told.ends[BAD]
    assert ended.state == "failed"
    assert sentence in ended.message
    assert not ended.output
    assert told.events[-1].failed == 1


def vanishes(path: Path) -> None:
    path.unlink()


def becomes_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def becomes_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [(vanishes, "There is no file"), (becomes_a_folder, "is a folder"), (becomes_a_pipe, "is no file but a pipe")],
)
def test_what_happens_after_the_list_was_made(change: Callable[[Path], None], sentence: str, job: BatchJob, bad: Path, told: Any) -> None:
    def listen(event: object) -> None:
        told(event)
        if isinstance(event, BatchStarted):
            change(bad)

    report = run_batch(job, on_event=listen)
    assert (report.done, report.failed) == (5, 1)
    assert sentence in told.ends[BAD].message


@pytest.mark.skipif(
    sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="who may read everything is told nothing"
)
def test_a_file_that_may_not_be_read(job: BatchJob, bad: Path, told: Any) -> None:
    bad.chmod(0)
    assert (run_batch(job, on_event=told).failed) == 1
    assert "may not be read" in told.ends[BAD].message


def test_an_empty_folder_is_told(job: BatchJob, images: list[Path]) -> None:
    for path in images:
        path.unlink()
    with pytest.raises(InputError, match="There is no image"):
        run_batch(job)


def test_more_memory_than_is_allowed(job: BatchJob, bad: Path, told: Any) -> None:
    tifffile.memmap(bad, shape=(40_000, 40_000), dtype=np.uint16, photometric="minisblack").flush()  # 3.2 GB, none of it on the disk
    limited = job.model_copy(update={"options": SegmentOptions(memory_limit=2_000_000)})
    report = run_batch(limited, on_event=told)
    assert (report.done, report.failed) == (5, 1)
    assert "the limit is 0.00 GB" in told.ends[BAD].message


def test_more_memory_than_there_is(job: BatchJob, bad: Path, told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_tileseg.engine.memory.free_memory", lambda device: 5_000_000)
    tifffile.memmap(bad, shape=(40_000, 40_000), dtype=np.uint16, photometric="minisblack").flush()
    report = run_batch(job, on_event=told)
    assert (report.done, report.failed) == (5, 1)
    assert "of memory, 0.0 GB are free" in told.ends[BAD].message


@pytest.mark.skipif(sys.platform != "linux", reason="names that other systems do not allow, or not side by side")
def test_strange_names(job: BatchJob, tmp_path: Path, images: list[Path], told: Any) -> None:
    raw = tmp_path / "raw"
    names = ["two\nlines.tif", "blanks in it .tif", "Ünïcødé 細胞.tif", "IMAGE_00.TIF", "'quotes\".tif"]
    for number, name in enumerate(names):
        tifffile.imwrite(raw / name, np.full((40, 40), number, np.uint16))
    shutil.copy(images[1], os.path.join(os.fsencode(raw), b"\xff is no text.tif"))
    (raw / "one link.tif").symlink_to(images[0])
    (raw / "another link.tif").symlink_to(images[0])
    report = run_batch(job, on_event=told)
    assert (report.done, report.failed) == (12, 0)
    assert sum("the same file as image_00.tif" in reason for _, reason in report.left_out) == 2
    results = [path for path in (tmp_path / "out").iterdir() if path.name != ".tileseg"]
    assert len({path.name.casefold() for path in results}) == 12
    assert run_batch(job).before == 12


class Scarce(torch.nn.Module):
    """Has no memory, or another fault, for one image, which it knows by its brightest pixel."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
        self.calls = 0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if batch.max() > 50_000:
            raise self.error
        return torch.cat([1000 - batch, batch - 2000, batch - 3000], 1)


ERRORS = {
    "out of device memory": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), "no memory left for one tile"),
    "out of host memory": (MemoryError(), "no memory left"),
    "a fault of the network": (RuntimeError("index 7 is out of bounds\nfor dimension 0"), "The network failed on the tile"),
    "a fault of a library": (AssertionError(), "The network failed on the tile"),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_a_model_that_fails_in_file_17_of_30(
    kind: str, job: BatchJob, tmp_path: Path, write_images: Callable[..., list[Path]], told: Any
) -> None:
    error, sentence = ERRORS[kind]
    unlucky = write_images(tmp_path / "raw", 30)[16]
    pixels = tifffile.imread(unlucky)
    pixels[30, 30] = 60_000
    tifffile.imwrite(unlucky, pixels)
    spec = find_spec(job.models[0])
    models = Models(lambda ref, device: from_module(Scarce(error), spec, device="cpu"))
    report = run_batch(job, on_event=told, executor=LocalExecutor(models))
    assert (report.done, report.failed, report.waiting) == (29, 1, 0)
    assert sentence in told.ends[unlucky.name].message
    assert models.loads == 1
    assert run_batch(job, retry_failed=True).done == 30, "with a model that works, and with the same name"


@pytest.mark.parametrize("error", [DeviceMemoryError("The weights do not fit."), ModelError("The weights are damaged.")])
def test_a_model_that_cannot_be_loaded_ends_the_batch_at_once(error: Exception, job: BatchJob, tmp_path: Path) -> None:
    def load(ref: str, device: str) -> Any:
        raise error

    with pytest.raises(type(error), match="The weights"):
        run_batch(job, executor=LocalExecutor(Models(load)))
    assert not list((tmp_path / "out").glob("*.tif"))
    assert run_batch(job).done == 6


# The place for the results


def after(count: int, action: Callable[[], None], told: Callable[[object], None]) -> Callable[[object], None]:
    """Return a listener that acts when so many tasks have ended."""
    ends = 0

    def listen(event: object) -> None:
        nonlocal ends
        told(event)
        ends += isinstance(event, TaskEnded)
        if isinstance(event, TaskEnded) and ends == count:
            action()

    return listen


def one_at_a_time() -> LocalExecutor:
    """Return an executor that is never far ahead of what it tells."""
    return LocalExecutor(lanes=1, ahead=1)


def test_an_output_folder_that_is_taken_away(job: BatchJob, tmp_path: Path, told: Any) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputError, match=r"Nothing can be written in .*out.* any more.*goes on where it stopped"):
        run_batch(job, on_event=after(2, lambda: shutil.rmtree(out), told), executor=one_at_a_time())
    assert not out.exists(), "nobody makes it again behind its owner's back"
    assert not [event for event in told.ends.values() if event.state == "failed"]
    assert run_batch(job).done == 6


@pytest.fixture
def mounted() -> Iterator[Callable[..., bool]]:
    """Return what mounts something, or says that it may not; all is undone at the end."""
    places: list[Path] = []

    def mount(place: Path, *arguments: str) -> bool:
        if shutil.which("mount") is None:
            return False
        done = subprocess.run(["mount", *arguments, str(place)], capture_output=True, check=False).returncode == 0
        if done and "remount" not in "".join(arguments):
            places.append(place)
        return done

    yield mount
    for place in reversed(places):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_an_output_folder_that_becomes_read_only(
    job: BatchJob, tmp_path: Path, told: Any, mounted: Callable[..., bool], images: list[Path]
) -> None:
    out = tmp_path / "out"
    out.mkdir()

    def close() -> None:
        if os.name == "posix" and os.geteuid() != 0:
            (out / ".tileseg" / "journals").chmod(0o555)
            out.chmod(0o555)
        elif not (mounted(out, "--bind", str(out)) and mounted(out, "-o", "remount,ro,bind")):
            pytest.skip("nothing may be mounted here")

    with pytest.raises(OutputError, match=r"Nothing can be written in .*out.* any more|is read-only"):
        run_batch(job, on_event=after(2, close, told), executor=one_at_a_time())
    assert not [event for event in told.ends.values() if event.state == "failed"]
    if os.name == "posix" and os.geteuid() != 0:
        out.chmod(0o755)
        (out / ".tileseg" / "journals").chmod(0o755)
    else:
        subprocess.run(["umount", str(out)], check=True)
        mounted.__closure__[0].cell_contents.clear()  # type: ignore[attr-defined]
    report = run_batch(job)
    assert (report.done, report.failed) == (6, 0)
    assert report.before >= 2


def test_a_disk_that_is_full_for_real(job: BatchJob, tmp_path: Path, told: Any, mounted: Callable[..., bool]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if not mounted(out, "-t", "tmpfs", "-o", "size=4m", "tmpfs"):
        pytest.skip("nothing may be mounted here")

    def fill() -> None:
        with (out / "filler").open("wb", buffering=0) as stream:
            for size in (1 << 16, 1):
                while True:
                    try:
                        stream.write(b"\0" * size)
                    except OSError:
                        break

    with pytest.raises(OutputError, match=r"is full\. Free some space and start the same run again"):
        run_batch(job, on_event=after(2, fill, told), executor=one_at_a_time())
    assert not [event for event in told.ends.values() if event.state == "failed"]
    (out / "filler").unlink()
    report = run_batch(job)
    assert (report.done, report.failed) == (6, 0)
    assert report.before >= 2


def test_a_disk_that_is_full_in_the_middle_of_a_large_image(
    job: BatchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Any, images: list[Path]
) -> None:
    for path in images:
        path.unlink()
    tifffile.imwrite(tmp_path / "raw" / "large.tif", np.random.default_rng(5).integers(0, 4000, (300, 300)).astype(np.uint16))
    synced = 0
    fsync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="is full"):
            run_batch(job)
    assert run_batch(job, on_event=told).done == 1
    assert told.of(TaskProgress)[0].done > 100, "it goes on in the middle"
    assert np.asarray(read_volume(tmp_path / "out" / "large.ome.tif").data).any()


def test_a_ledger_on_a_full_disk_stops_the_batch(job: BatchJob, monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_tileseg.batch.ledger import Ledger

    finish, calls = Ledger.finish, []

    def full(self: Ledger, *arguments: Any, **more: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            self._connection.execute("PRAGMA max_page_count = 1")
            arguments = (arguments[0], arguments[1].__class__("done", "x" * 100_000))
        finish(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "finish", full)
        with pytest.raises(OutputError, match="is full"):
            run_batch(job)
    report = run_batch(job)
    assert (report.done, report.failed) == (6, 0)
    assert [row.finishes for row in report.rows] == [1] * 6


def test_a_result_that_its_format_cannot_hold_is_one_image_s_trouble(job: BatchJob, bad: Path, told: Any) -> None:
    stack = np.random.default_rng(0).integers(0, 4000, (3, 40, 40)).astype(np.uint16)
    tifffile.imwrite(bad, stack, imagej=True, metadata={"axes": "ZYX"})
    report = run_batch(job.model_copy(update={"format": ".png"}), on_event=told)
    assert (report.done, report.failed) == (5, 1)
    assert "PNG" in told.ends[BAD].message


def test_attempts_are_counted(job: BatchJob, bad: Path, told: Any) -> None:
    nothing(bad)
    run_batch(job)
    run_batch(job, retry_failed=True, on_event=told)
    assert [event.attempt for event in told.of(TaskStarted)] == [2]
