"""Two worker processes against one, one thread each: the same batch of images in turns, A B A B.

Clusters and models are there before the clock starts, as they are for most of a long batch; what starting them takes is printed too.

    python benchmarks/bench_cluster.py [--files 30] [--size 384] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_tileseg import BatchJob, SegmentOptions, run_batch
from napari_tileseg.batch.cluster import DaskExecutor
from napari_tileseg.io import read_volume

AIM = 0.6
SAMPLE = Path(__file__).parents[1] / "sample_data" / "nuclei_fluorescence.tif"


def write_images(folder: Path, count: int, size: int) -> None:
    folder.mkdir()
    image = np.asarray(read_volume(SAMPLE).data)
    whole = np.tile(image, (3, 3))
    for number in range(count):
        start = 17 * number
        tifffile.imwrite(folder / f"{number:03}.tif", whole[start : start + size, start : start + size])


def cluster(workers: int) -> Any:
    from distributed import LocalCluster

    environment = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    quiet = {"dashboard": False, "dashboard_address": ":0"}
    return LocalCluster(n_workers=workers, threads_per_worker=1, env=environment, memory_limit=0, silence_logs=50, scheduler_kwargs=quiet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=30)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        place = Path(folder)
        write_images(place / "raw", chosen.files, chosen.size)

        def seconds(executor: DaskExecutor, name: str) -> float:
            options = SegmentOptions(device="cpu")
            job = BatchJob(models=("nuclei-2d",), options=options, inputs=(str(place / "raw"),), output=str(place / name), report=False)
            began = time.perf_counter()
            report = run_batch(job, executor=executor)
            assert report.done == chosen.files, report
            return time.perf_counter() - began

        times: dict[int, list[float]] = {1: [], 2: []}
        executors = {}
        for workers in times:
            began = time.perf_counter()
            address = stack.enter_context(cluster(workers)).scheduler_address
            executors[workers] = DaskExecutor(scheduler=address)
            first = seconds(executors[workers], f"first{workers}")
            print(f"{workers} workers, with the start of processes and models: {time.perf_counter() - began:.1f} s (batch {first:.1f} s)")
        for turn in range(chosen.rounds):
            for workers, executor in executors.items():
                times[workers].append(seconds(executor, f"{workers}-{turn}"))
                load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
                print(f"turn {turn}, {workers} workers: {times[workers][-1]:.2f} s (load {load:.1f})", flush=True)
        one, two = (statistics.median(times[workers]) for workers in (1, 2))
        print(
            f"{chosen.files} images of {chosen.size} x {chosen.size}: {one:.2f} s with 1 worker, {two:.2f} s with 2; ratio {two / one:.2f}"
        )
        print(f"aim: at most {AIM}")


if __name__ == "__main__":
    main()
