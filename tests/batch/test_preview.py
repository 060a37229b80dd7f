"""The dry run: what would be done and why not, time and disk, and nothing is touched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_tileseg import estimation
from napari_tileseg.batch import preview as preview_module
from napari_tileseg.batch.listing import list_tasks
from napari_tileseg.batch.preview import preview
from napari_tileseg.batch.run import run_batch
from napari_tileseg.errors import Cancelled, InputError, ModelNotFoundError
from napari_tileseg.io import read_volume
from napari_tileseg.io.lazy import LazyArray

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.batch.job import BatchJob


def everything(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_nothing_is_touched_and_everything_is_said(
    tmp_path: Path, job: BatchJob, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))  # nothing is known of the model's speed yet
    (tmp_path / "raw" / "bad.tif").write_text("no image")
    whole = images[0].read_bytes()
    (tmp_path / "raw" / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "raw" / "notes.txt").write_text("x")
    tifffile.imwrite(tmp_path / "raw" / "stack.tif", np.zeros((3, 50, 50), np.uint16), photometric="minisblack")
    before = everything(tmp_path)
    seen = preview(job)
    assert everything(tmp_path) == before
    assert seen.listing.left_out == (("notes.txt", "it is no image"),)
    assert (seen.count("do"), seen.count("fail"), seen.opened) == (6, 3, 9)
    failing = {forecast.name: forecast.reason for forecast in seen.forecasts if forecast.action == "fail"}
    assert "holds text" in failing["bad.tif"]
    assert "ends after" in failing["cut.tif"]
    assert "does not say what axis 1" in failing["stack.tif"]
    assert seen.disk == sum(48 * (48 + number % 5) for number in range(6))
    assert seen.free > 0
    assert seen.seconds is None
    assert seen.lines[0].startswith("9 images, ")
    assert seen.lines[0].endswith("; 1 file left out.")
    assert "How long it takes is not known yet." in seen.lines[1]
    assert seen.lines[2] == "3 will fail."
    assert json.loads(json.dumps(seen.to_dict()))["forecasts"][0]["action"] == "fail"
    assert seen.forecasts[1].output == "cut.ome.tif"


def test_what_is_done_is_left_out_of_the_account(tmp_path: Path, job: BatchJob, images: list[Path]) -> None:
    (tmp_path / "raw" / "bad.tif").write_text("no image")
    run_batch(job)
    (tmp_path / "out" / "image_01.ome.tif").unlink()
    os.utime(tmp_path / "out" / "image_02.ome.tif", (1, 1))
    tifffile.imwrite(images[3], np.zeros((20, 20), np.uint16))
    tifffile.imwrite(tmp_path / "raw" / "new.tif", np.zeros((20, 20), np.uint16))
    seen = {forecast.name: (forecast.action, forecast.reason) for forecast in preview(job).forecasts}
    assert seen == {
        "bad.tif": ("skip", 'failed before: "bad.tif" holds text, not a TIFF image. Save the image itself under that name.'),
        "image_00.tif": ("skip", "done before"),
        "image_01.tif": ("again", "the result is gone"),
        "image_02.tif": ("skip", "done before; the result is compared first"),
        "image_03.tif": ("again", "the image has changed"),
        "image_04.tif": ("skip", "done before"),
        "image_05.tif": ("skip", "done before"),
        "new.tif": ("do", ""),
    }
    assert "5 of 8 are done before or skipped." in preview(job).lines
    again = preview(job, retry_failed=True)
    assert again.forecasts[0].action == "fail"
    done = run_batch(job)
    assert (done.before, done.done) == (4, 7), "it was as forecast"


def test_other_settings_are_said(job: BatchJob, images: list[Path]) -> None:
    run_batch(job)
    changed = preview(job.model_copy(update={"level": 1}))
    assert "made with other settings: level (was 0, is 1)" in changed.problem
    assert changed.lines[-1] == changed.problem
    ledger = Path(job.output) / ".tileseg" / "ledger.sqlite"
    for path in ledger.parent.glob("ledger.sqlite*"):
        path.unlink()
    ledger.write_bytes(b"no database" * 100)
    assert "damaged" in preview(job).problem


def test_interrupted_images_and_foreign_files(job: BatchJob, images: list[Path]) -> None:
    first, second, *_ = list_tasks(job).tasks
    Path(first.journal).mkdir(parents=True)
    Path(second.output).write_text("somebody's own", encoding="utf-8")
    seen = preview(job)
    assert (seen.forecasts[0].action, seen.forecasts[0].reason) == ("continue", "goes on where it was interrupted")
    assert (seen.forecasts[1].action, seen.forecasts[1].reason) == ("do", "replaces what is there")
    assert "1 file that no batch has made will be replaced." in seen.lines


def test_many_images_are_sampled(job: BatchJob, images: list[Path]) -> None:
    for path in images:
        tifffile.imwrite(path, np.zeros((64, 64), np.uint16))
    every, some = preview(job), preview(job, headers=2)
    assert (every.opened, some.opened) == (6, 2)
    assert every.disk == some.disk == 6 * 64 * 64
    assert sum(forecast.tiles is None for forecast in some.forecasts) == 4


def test_time_is_that_of_runs_before(job: BatchJob, images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimation, "expected_seconds", lambda *_, **__: 0.5)
    seen = preview(job, headers=3)
    tiles = sum(forecast.tiles or 0 for forecast in seen.forecasts)
    assert seen.seconds == pytest.approx(tiles * 0.5 * 2, rel=0.1)
    assert seen.lines[1].startswith("About ")


def test_full_disk_is_said_before(job: BatchJob, images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview_module, "_free", lambda *_: 100)
    assert any("are free. Choose another folder, or free some space." in line for line in preview(job).lines)


def test_it_can_be_stopped(job: BatchJob, images: list[Path]) -> None:
    asked = 0

    def after(most: int) -> Callable[[], bool]:
        def stop() -> bool:
            nonlocal asked
            asked += 1
            return asked > most

        return stop

    for most in range(0, 15, 2):
        asked = 0
        with pytest.raises(Cancelled):
            preview(job, cancel=after(most))


def test_what_is_wrong_with_the_job_is_raised(job: BatchJob, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        preview(job.model_copy(update={"models": ("none",)}))
    with pytest.raises(InputError):
        preview(job.model_copy(update={"inputs": (str(tmp_path / "none"),)}))


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGB", "RGBA", "P", "I;16"])
def test_headers_of_pictures_say_what_the_pixels_say(tmp_path: Path, mode: str) -> None:
    pixels: Any = np.random.default_rng(0).integers(0, 255, (7, 9), np.uint8)
    picture = Image.fromarray(pixels.astype(np.uint16) * 200) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    picture.save(tmp_path / "a.png")
    whole, header = read_volume(tmp_path / "a.png"), read_volume(tmp_path / "a.png", lazy=True)
    assert (header.axes, header.shape, header.dtype) == (whole.axes, whole.shape, whole.dtype)
    assert isinstance(header.data, LazyArray) == (mode != "P")
    np.testing.assert_array_equal(np.asarray(header.data[...]), np.asarray(whole.data[...]))


def test_header_of_a_tiff_reads_no_pixels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.arange(42, dtype=np.uint16).reshape(6, 7), compression="zlib")
    header = read_volume(tmp_path / "a.tif", lazy=True)
    assert isinstance(header.data, LazyArray)
    np.testing.assert_array_equal(np.asarray(header.data[...]).ravel(), np.arange(42))
