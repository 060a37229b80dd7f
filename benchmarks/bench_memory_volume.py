"""Measure the peak of anonymous memory while a volume of 104 classes is segmented from disk to disk.

From the root of the repository::

    python benchmarks/bench_memory_volume.py [--shape 384,256,256] [--quick]

Image and labels are ``.npy`` files, mapped into memory. Each run is a process of its own, watched from outside: what counts is the
anonymous memory of that process and its children above what it had once the program was imported and the network was built. The
network's weights are random, but for ``precision="auto"`` one class is made to win everywhere, so that the fast way is taken
(labels of random weights on noise change with the precision, and the run would rightly stay exact). Exact labels are compared
with MONAI's on a corner whose windows are the same.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from bench_engine import SMALL_3D, hardware

WINDOW, HEADS = 96, 104
LIMITS = {"exact": 3.2e9, "auto": 2.5e9}
"""Most bytes above the baseline for 384 x 256 x 256."""


def network(*, decided: bool):
    """Return a BasicUNet with random weights; where one class must win, it does so everywhere."""
    import torch
    from monai.networks.nets import BasicUNet

    torch.manual_seed(0)
    module = BasicUNet(spatial_dims=3, in_channels=1, out_channels=HEADS, features=SMALL_3D).eval()
    if decided:
        with torch.no_grad():
            module.final_conv.bias[1] += 100
    return module


def child(folder: Path, precision: str, threads: int) -> None:
    """Segment ``image.npy``; say when everything is imported, and wait for the word to start."""
    import torch

    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.predictor import from_module
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.pipeline import segment

    torch.set_num_threads(threads)
    classes = [str(index) for index in range(HEADS)]
    spec = ModelSpec(name="bench", axes="CZYX", channels=["grey"], classes=classes, window=(WINDOW,) * 3, overlap=0.5)
    predictor = from_module(network(decided=precision == "auto"), spec, device="cpu")
    image = np.load(folder / "image.npy", mmap_mode="r")
    labels = np.lib.format.open_memmap(folder / f"labels_{precision}.npy", "w+", np.uint8, image.shape)
    import napari_tileseg.engine.run  # noqa: F401  # part of the baseline

    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    result = segment(image, predictor, axes="ZYX", options=SegmentOptions(precision=precision), out=labels)
    taken = result.provenance["settings"].get("precision", "exact")
    print(f"{taken}, {time.perf_counter() - started:.0f} s", flush=True)


def anonymous(process: psutil.Process) -> int:
    """Return the bytes of a process and its children that no file stands behind."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            lines = Path(f"/proc/{each.pid}/smaps_rollup").read_text(encoding="utf-8")
        except OSError:
            continue
        total += 1024 * int(next(line for line in lines.splitlines() if line.startswith("Anonymous:")).split()[1])
    return total


def watch(folder: Path, shape: tuple[int, ...], precision: str, threads: int) -> float:
    """Run one child and return its peak above the baseline in bytes."""
    command = [sys.executable, __file__, "--child", precision, "--folder", str(folder), "--threads", str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        handle = psutil.Process(process.pid)
        baseline = peak = anonymous(handle)
        process.stdin.write("go\n")
        process.stdin.close()
        while process.poll() is None:
            peak = max(peak, anonymous(handle))
            time.sleep(0.02)
        how = process.stdout.read().strip()
    if process.returncode:
        raise SystemExit(f"the run ended with status {process.returncode}")
    size = " x ".join(map(str, shape))
    print(f"{size}, asked for {precision} ({how}): peak {(peak - baseline) / 1e9:.2f} GB above {baseline / 1e9:.2f} GB", flush=True)
    return peak - baseline


def right(folder: Path) -> bool:
    """Whether the exact labels of a corner are MONAI's; windows of the corner of one and a half windows are the whole image's too."""
    import torch
    from monai.inferers import sliding_window_inference

    image = np.load(folder / "image.npy", mmap_mode="r")
    part = torch.from_numpy(np.array(image[(slice(WINDOW * 3 // 2),) * 3]))[None, None]
    with torch.inference_mode():
        scores = sliding_window_inference(part, (WINDOW,) * 3, 1, network(decided=False), overlap=0.5, mode="gaussian")[0]
    inner = (slice(WINDOW),) * 3
    found = np.load(folder / "labels_exact.npy", mmap_mode="r")[inner]
    return bool((found == scores.argmax(0).numpy()[inner]).all())


def write_image(folder: Path, shape: tuple[int, ...]) -> None:
    image = np.lib.format.open_memmap(folder / "image.npy", "w+", np.float32, shape)
    rng = np.random.default_rng(0)
    for plane in image:
        plane[:] = rng.random(plane.shape, dtype=np.float32)
    image.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shape", default="384,256,256")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="only whether the peak grows with the first axis")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        return child(arguments.folder, arguments.child, arguments.threads)
    if not Path("/proc/self/smaps_rollup").exists():
        return print("This system has no /proc/PID/smaps_rollup, so nothing is measured.")
    print(hardware())
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not arguments.quick:
            shape = tuple(int(size) for size in arguments.shape.split(","))
            write_image(folder, shape)
            for precision, limit in LIMITS.items():
                failed |= watch(folder, shape, precision, arguments.threads) > limit and shape == (384, 256, 256)
            equal = right(folder)
            print(f"labels of a corner equal MONAI's: {equal}")
            failed |= not equal
        peaks = []
        for length in (192, 384):
            write_image(folder, (length, 144, 144))
            peaks.append(watch(folder, (length, 144, 144), "exact", arguments.threads))
        print(f"twice the first axis: {peaks[1] / peaks[0] - 1:+.1%}")
        failed |= peaks[1] > 1.05 * peaks[0]
    if failed:
        raise SystemExit("A target is missed.")


if __name__ == "__main__":
    main()
