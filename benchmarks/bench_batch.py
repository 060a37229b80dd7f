"""Measure how busy a batch keeps the model: 500 images of 512 x 512 with the bundled model for nuclei.

Run it on a quiet machine, from the root of the repository::

    python benchmarks/bench_batch.py [--images 500] [--lanes 2] [--threads 2] [--no-report] [--skip-plain]

"model" is the time inside the network's own calls, one at a time, taken with a clock around each; its share of the wall time of
the whole run (from listing the folder to the report) is what counts: at least 85 %. "one after another" reads,
segments and saves the same files with `segment`, the model loaded once, without a ledger.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command and napari's child process have it; before torch comes

import numpy as np
import tifffile
import torch

from napari_tileseg.batch.executor import LocalExecutor
from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.run import run_batch
from napari_tileseg.batch.work import Models
from napari_tileseg.io import read_volume
from napari_tileseg.models.predictor import load_model
from napari_tileseg.pipeline import segment

MODEL = "nuclei-2d"
SIDE = 512
TARGET = 0.85
SAMPLE = Path(__file__).parents[1] / "sample_data" / "nuclei_fluorescence.tif"


class Timed:
    """A predictor that adds up the time of its calls."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.spec, self.device, self.module = inner.spec, inner.device, inner.module
        self.seconds, self.calls = 0.0, 0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        began = time.perf_counter()
        scores = self.inner(batch)
        if scores.is_cuda:  # otherwise only the start of the computation would be timed
            torch.cuda.synchronize(scores.device)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        return scores


def write_images(folder: Path, count: int) -> None:
    """Write crops of a real image, turned and moved so that no two are equal."""
    folder.mkdir()
    image = np.asarray(read_volume(SAMPLE).data)[:SIDE]
    for number in range(count):
        moved = np.roll(image, (17 * number, 29 * number), (0, 1))[:, :SIDE]
        tifffile.imwrite(folder / f"image_{number:04}.tif", np.rot90(moved, number % 4))


def one_after_another(raw: Path, out: Path, timed: Timed) -> float:
    out.mkdir()
    began = time.perf_counter()
    for path in sorted(raw.iterdir()):
        segment(path, timed, out=out / f"{path.stem}.ome.tif")
    return time.perf_counter() - began


def line(name: str, count: int, wall: float, timed: Timed, more: str = "") -> None:
    share = timed.seconds / wall
    print(f"  {name:<20} {wall:8.1f} s  {1000 * wall / count:7.1f} ms an image  model {timed.seconds:7.1f} s = {share:6.1%}  {more}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--lanes", type=int, default=LocalExecutor().lanes)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--skip-plain", action="store_true", help="Leave out the loop that the batch is compared with.")
    parser.add_argument("--no-report", action="store_true", help="Leave out the report and its pictures.")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        write_images(raw, given.images)
        loaded: list[Timed] = []

        def load(ref: str, device: str) -> Timed:
            loaded.append(Timed(load_model(ref, device=device)))
            return loaded[-1]

        warm = load_model(MODEL)
        segment(sorted(raw.iterdir())[0], warm)  # the libraries choose their kernels in the first pass
        print(f"{given.images} images of {SIDE} x {SIDE}, {MODEL} on {warm.device}, {given.threads} threads, {given.lanes} lanes")
        if not given.skip_plain:
            plain = Timed(warm)
            line("one after another", given.images, one_after_another(raw, Path(folder) / "plain", plain), plain)
        executor = LocalExecutor(Models(load), lanes=given.lanes)
        job = BatchJob(models=(MODEL,), inputs=(str(raw),), output=str(Path(folder) / "out"), report=not given.no_report)
        began = time.perf_counter()
        report = run_batch(job, executor=executor)
        wall = time.perf_counter() - began
        assert report.done == given.images
        line("batch", given.images, wall, loaded[0], f"{executor.most_images} images in memory at most, {len(loaded)} model load")
        began = time.perf_counter()
        again = run_batch(job)
        print(f"  nothing to do        {time.perf_counter() - began:8.1f} s  {again.before} images looked at")
        met = "met" if loaded[0].seconds / wall >= TARGET else "MISSED"
        print(f"  target: the model is busy for {TARGET:.0%} of the wall time: {met}")


if __name__ == "__main__":
    main()
