"""Time what the folds of the Refine dock do in a real viewer: sliders on kept scores, the table of 100,000 objects, going to one.

Run it on a quiet machine, from the root of the repository; without a screen under Xvfb::

    xvfb-run -a python benchmarks/bench_refine_dock.py [--rounds 8]

A look at another threshold is what the slider waits for (reading, decoding, handing the labels to the layer); drawing them comes on
top and is told beside it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_tileseg.models.registry import find_spec
from napari_tileseg.widgets.refine import RefineWidget
from napari_tileseg.widgets.refine.kept import Kept

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def turn(until: Callable[[], bool], limit: float = 300.0) -> float:
    """Let Qt work until something is so; return the longest time in which it answered nobody."""
    application, end, longest = QApplication.instance(), time.monotonic() + limit, 0.0
    assert application is not None
    while not until() and time.monotonic() < end:
        start = time.perf_counter()
        application.processEvents()
        longest = max(longest, time.perf_counter() - start)
        time.sleep(0.001)
    return longest


def smooth(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return scores with blobs of a few hundred pixels."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=tuple(-(-size // 16) if size > 16 else size for size in shape)).astype(np.float32) * 3
    for axis, size in enumerate(shape):
        if size > 16:
            coarse = np.repeat(coarse, 16, axis=axis)
    return np.ascontiguousarray(coarse[tuple(slice(0, size) for size in shape)])


def sliders(rounds: int) -> None:
    cases = (
        ("plane of 2048 x 2048, 2 classes", "hippocampus-3d", (2, 2048, 2048), 0.0),
        ("the same, at least 20 pixels", "hippocampus-3d", (2, 2048, 2048), 20.0),
        ("plane of 2048 x 2048, 4 classes", "hippocampus-3d", (4, 2048, 2048), 0.0),
        ("the same, at least 20 pixels", "hippocampus-3d", (4, 2048, 2048), 20.0),
        ("slice of a volume of 256^3, 3 classes", "hippocampus-3d", (3, 256, 256, 256), 0.0),
        ("plane of 2048 x 2048, objects", "nuclei-2d", (3, 2048, 2048), 0.0),
    )
    for name, model, shape, least in cases:
        viewer = napari.Viewer(show=True)
        scores, spec = smooth(shape, 0), find_spec(model)
        layer = viewer.add_labels(np.zeros(shape[1:], np.int32), name="labels")
        dock = RefineWidget(viewer)
        viewer.window.add_dock_widget(dock, name="Refine", area="right")
        turn(lambda dock=dock: dock.session.work is not None and dock.session.work.canvas.looked)  # type: ignore[misc]  # bound now
        fold: Any = next(fold for fold in dock.folds if fold.title == "Scores")
        fold._take(Kept(scores, spec), dock.session.work)
        fold.kept = Kept(scores, spec)
        fold.least.number.blockSignals(True)  # a change by hand would be done at once
        fold.least.number.setValue(least)
        start = time.perf_counter()
        fold.threshold.slider.setSliderDown(True)
        pressed = time.perf_counter() - start
        turn(lambda: True)
        looks, draws, busy = [], [], []
        for number in range(rounds + 1):
            fold.threshold.slider.setValue(55 + 3 * number)
            fold._soon.stop()
            start, own = time.perf_counter(), time.process_time()
            fold._show()
            own, middle = time.process_time() - own, time.perf_counter()
            QApplication.processEvents()
            if number:  # the first one shows the layer
                looks.append(middle - start)
                busy.append(own)
                draws.append(time.perf_counter() - middle)
            else:
                first = middle - start
        told = f"{1000 * statistics.median(looks):6.1f} ms, processor {1000 * statistics.median(busy):6.1f}, first {1000 * first:.0f}, "
        told += f"pressing {1000 * pressed:.0f}, drawing {1000 * statistics.median(draws):.0f}"
        print(f"  {name:38} {told} {'ok' if statistics.median(looks) < 0.1 else 'SLOW'}")
        fold.preview.close()
        assert layer.visible
        viewer.close()


def table() -> None:
    side = 320
    labels = np.zeros((side * 12,) * 2, np.int32)
    ids = np.arange(1, side * side + 1).reshape(side, side)
    for row in range(8):
        for column in range(8):
            labels[row::12, column::12] = ids
    viewer = napari.Viewer(show=True)
    viewer.add_image(np.random.default_rng(0).normal(size=labels.shape).astype(np.float32), name="image")
    viewer.add_labels(labels, name="labels")
    dock = RefineWidget(viewer)
    viewer.window.add_dock_widget(dock, name="Refine", area="right")
    turn(lambda: dock.session.work is not None and dock.session.work.canvas.looked)
    objects: Any = next(fold for fold in dock.folds if fold.title == "Objects")
    review: Any = next(fold for fold in dock.folds if fold.title == "Review")
    objects.open()
    start = time.perf_counter()
    longest = turn(lambda: dock.session.sheets.sheet is not None)
    print(
        f"  {side * side:,} objects measured in {time.perf_counter() - start:.1f} s beside the window, which waited {1000 * longest:.0f} ms"
    )
    review.order.choose("largest")
    review.open()
    turn(lambda: bool(review._ranks))
    for name, deed in (
        ("sorted by the mean", lambda: objects.view.heading.emit("mean", True)),
        ("a row selected", lambda: objects.view.selectRow(70_000)),
        ("an object picked in the layer", lambda: setattr(dock.session.labels, "selected_label", 4321)),
        ("next object in the review", review.go_on),
        ("accepted, and the next one", lambda: review.say_of("accepted")),
    ):
        start = time.perf_counter()
        deed()
        done = time.perf_counter() - start
        QApplication.processEvents()
        print(f"  {name:38} {1000 * done:6.1f} ms, with drawing {1000 * (time.perf_counter() - start):.0f}")
    viewer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    sliders(arguments.rounds)
    table()


if __name__ == "__main__":
    main()
