"""Time the tools of refine on one object among thousands, in memory and on Zarr; thresholds on kept scores; the first look.

Run it on a quiet machine, from the root of the repository::

    python benchmarks/bench_refine.py [--size 512] [--rounds 5] [--zarr FOLDER]

A step is what a user waits for: the tool, its edit done, the index kept true, and the step kept in the undo log. The medians of
some objects are told, and the slowest.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from napari_tileseg.refine.again import blend
from napari_tileseg.refine.autosave import EditJournal, recover
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.refine.history import EditLog
from napari_tileseg.refine.objects import merge, relabel, remove, remove_smaller, sizes
from napari_tileseg.refine.scores import decode
from napari_tileseg.refine.shape import convex_hull, fill_holes, grow, shrink, smooth
from napari_tileseg.refine.split import split_line, split_seeds

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.refine.delta import Edit

TARGETS = {"memory": 0.1, "zarr": 0.3}
"""Seconds for merge, split and remove of one object."""


def volume(size: int) -> tuple[NDArray[np.int32], list[int]]:
    """Return 5,000 objects (of a volume of 512^3), eight of them balls of 100,000 voxels in touching pairs."""
    random = np.random.default_rng(0)
    labels = np.zeros((size,) * 3, np.int32)
    count = max(int(5000 * (size / 512) ** 3), 8)
    for value in range(1, count + 1):
        radius = int(random.integers(4, 10))
        centre = [int(at) for at in random.integers(radius, size - radius, 3)]
        place(labels, centre, radius, value)
    large = []
    step = size // 5
    for number in range(4):  # pairs that touch: two balls of 100,000 voxels, 29 of radius
        for side in (0, 1):
            value = count + 1 + 2 * number + side
            centre = [step * (1 + number), size // 3, size // 3 + 52 * side]
            place(labels, centre, 29, value)
            large.append(value)
    return labels, large


def place(labels: NDArray[np.int32], centre: list[int], radius: int, value: int) -> None:
    low = [max(at - radius, 0) for at in centre]
    box = tuple(slice(at, min(c + radius + 1, size)) for at, c, size in zip(low, centre, labels.shape, strict=True))
    grid = np.ogrid[box]
    labels[box][sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) <= radius**2] = value


def timed(action: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


def processor(action: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall time, processor time (which a busy machine disturbs less) and the result."""
    start = time.process_time()
    seconds, result = timed(action)
    return seconds, time.process_time() - start, result


def measure(name: str, canvas: Canvas, tools: dict[str, Callable[[int], Edit]], objects: list[int], target: float) -> None:
    log = EditLog()
    for tool, make in tools.items():
        done, busy, undone, pixels = [], [], [], 0
        for object_id in objects:

            def step(make: Callable[[int], Edit] = make, object_id: int = object_id) -> Edit:
                edit = make(object_id)
                canvas.apply(edit)
                log.add(edit)
                return edit

            seconds, own, edit = processor(step)
            done.append(seconds)
            busy.append(own)
            pixels = max(pixels, edit.pixels)
            if edit:
                undone.append(timed(lambda: canvas.revert(log.undo()))[0])  # type: ignore[arg-type]  # only edits are in this log
        worst = max(done)
        verdict = "" if tool not in ("merge", "remove", "split by a line", "split by seeds") else ("ok" if worst < target else "SLOW")
        print(
            f"  {name:7} {tool:16} {1000 * statistics.median(done):7.1f} ms, slowest {1000 * worst:7.1f}; "
            f"processor {1000 * statistics.median(busy):7.1f}; "
            f"undo {1000 * statistics.median(undone or [0.0]):6.1f}; up to {pixels:,} voxels changed {verdict}"
        )


def tools_of(canvas: Canvas) -> dict[str, Callable[[int], Edit]]:
    def across(object_id: int) -> list[tuple[float, ...]]:
        box = canvas.index.box(object_id)
        z, y, x = ((part.start + part.stop) / 2 for part in box)
        return [(z, y - 40, x + 2), (z, y + 40, x - 3)]

    def two(object_id: int) -> list[tuple[float, ...]]:
        box = canvas.index.box(object_id)
        z, y, x = ((part.start + part.stop) / 2 for part in box)
        return [(z, y, x - 14), (z, y, x + 14)]

    return {
        "merge": lambda i: merge(canvas, [i, i + 1 if i % 2 == min(odd) else i - 1]),
        "remove": lambda i: remove(canvas, i),
        "split by a line": lambda i: split_line(canvas, i, across(i)),
        "split by seeds": lambda i: split_seeds(canvas, i, two(i)),
        "fill holes": lambda i: fill_holes(canvas, i),
        "smooth 2": lambda i: smooth(canvas, i, 2.0),
        "grow 3": lambda i: grow(canvas, i, 3.0),
        "shrink 3": lambda i: shrink(canvas, i, 3.0),
        "hull": lambda i: convex_hull(canvas, i),
    }


odd: set[int] = set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--zarr", type=Path, help="where to put the labels on Zarr; a temporary folder by default")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    labels, large = volume(arguments.size)
    odd.add(large[0] % 2)
    print(f"Labels {labels.shape} {labels.dtype}")
    canvas = Canvas(labels)
    seconds, _ = timed(canvas.look)
    print(f"  memory  first look at {len(canvas.index):,} objects {seconds:.2f} s; large ones of {canvas.index.size(large[0]):,} voxels")
    measure("memory", canvas, tools_of(canvas), large, TARGETS["memory"])
    for name, action in (
        ("sizes", lambda: sizes(canvas)),
        ("smaller", lambda: remove_smaller(canvas, 1500.0)),
        ("relabel", lambda: relabel(canvas)),
    ):
        seconds, _ = timed(action)
        print(f"  memory  of all: {name:10} {seconds:.2f} s")
    box = tuple(slice(100, 228) for _ in range(3)) if arguments.size >= 256 else tuple(slice(0, 64) for _ in range(3))
    again = np.where(labels[box] > 0, labels[box] + 1, 0)
    print(f"  memory  blend a box of 128^3: {1000 * timed(lambda: blend(canvas, box, again))[0]:.0f} ms")
    with tempfile.TemporaryDirectory(dir=arguments.zarr) as folder:
        stored = zarr.create_array(Path(folder) / "labels.zarr", shape=labels.shape, dtype=labels.dtype, chunks=(64, 64, 64))
        stored[...] = labels
        on_disk = Canvas(stored)
        seconds, _ = timed(on_disk.look)
        print(f"  zarr    first look {seconds:.2f} s")
        for name, everywhere in (("fill", fill_holes), ("smaller", partial(remove_smaller, size=1500.0))):
            made, own, edit = processor(lambda everywhere=everywhere: everywhere(on_disk))
            done, _ = timed(lambda edit=edit: on_disk.apply(edit))
            print(f"  zarr    of all: {name:10} {made:.2f} s, processor {own:.2f}; {len(edit.deltas)} boxes done in {done:.2f} s")
            if edit:
                on_disk.revert(edit)
        measure("zarr", on_disk, tools_of(on_disk), large, TARGETS["zarr"])
        seconds, journal = timed(lambda: EditJournal(Path(folder) / "journal", canvas, keep_base=True))
        journal.add(remove(canvas, large[0]))
        written, _ = timed(journal.flush)
        back, _ = timed(lambda: recover(Path(folder) / "journal"))
        print(f"  journal with a copy of the labels: taken in {seconds:.2f} s, written in {written:.2f} s, read in {back:.2f} s")
    scores(arguments.rounds)


def scores(rounds: int) -> None:
    random = np.random.default_rng(0)
    for name, shape in (("2048^2", (2048, 2048)), ("slice of 512 x 512", (512, 512))):
        for classes in (2, 4):
            values = random.normal(size=(classes, *shape)).astype(np.float32)
            blobs = np.repeat(np.repeat(values[:, ::16, ::16], 16, 1), 16, 2)
            for kind in ("softmax", "sigmoid"):
                for min_size in (0, 20):
                    again = partial(decode, blobs, kind, threshold=0.4, min_size=min_size)
                    times = [processor(again) for _ in range(rounds)]
                    middle = statistics.median(seconds for seconds, _, _ in times)
                    own = statistics.median(seconds for _, seconds, _ in times)
                    verdict = "ok" if middle < 0.1 else "SLOW"
                    told = f"{1000 * middle:6.1f} ms, processor {1000 * own:6.1f} {verdict}"
                    print(f"  scores {name:18} {classes} x {kind}, min. size {min_size:2}: {told}")


if __name__ == "__main__":
    main()
