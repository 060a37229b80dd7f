"""Time whole runs with ``precision="auto"`` against MONAI's sliding window: same network, pixels, window, overlap; labels at the end.

From the root of the repository, on a quiet machine::

    python benchmarks/bench_auto.py DATA [--packages FOLDER] [--rounds 3] [--threads 1]

The bundled models, and those in FOLDER that ``train_monai.py`` has made, on images of the val part set side by side, with an overlap of one
half. Models of nuclei give the foreground only, so that both sides end with the same: how objects are told apart is no part of MONAI's.
The first round, in which the engine times its ways and may compile, is told apart; each later one looks again whether labels agree.
"""

from __future__ import annotations

import argparse
import statistics
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from bench_engine import by_monai, hardware
from torch import nn

from napari_tileseg.engine.arrays import ArraySink, ArraySource
from napari_tileseg.engine.events import Warned
from napari_tileseg.engine.precision import agreement, decide
from napari_tileseg.engine.run import run
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor, from_module, load_model
from napari_tileseg.training.data import list_pairs, prepare_image, read_array

if TYPE_CHECKING:
    from collections.abc import Callable

SETS = {"nuclei-2d": ("bbbc039_u2os_nuclei", (4, 4)), "hippocampus-3d": ("hippocampus_mri", (3, 3, 3))}
"""The images, and how many of them lie side by side along each axis."""
OPTIONS = SegmentOptions(precision="auto", overlap=0.5)


class Foreground(nn.Module):
    """The first score of a network, as those of a background and a foreground."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        first = self.network(batch)[:, :1]
        return torch.cat([-first, first], 1)


def classes_only(model: Predictor) -> Predictor:
    """Return a model that gives classes, which is the same one unless it gives objects."""
    if model.spec.output == "softmax":
        return model
    plain = {"output": "softmax", "decoder": "", "decoder_parameters": {}, "heads": [], "classes": model.spec.classes[:2]}
    other = {"weights_sha256": model.spec.weights_sha256[::-1]}  # under which its times are remembered, apart from the model's own
    spec = type(model.spec).model_validate({**model.spec.model_dump(), **plain, **other})
    return from_module(Foreground(model.module), spec, device="cpu")


def side_by_side(folder: Path, model: Predictor, counts: tuple[int, ...]) -> np.ndarray:
    """Return normalised images in one, shape (C, *spatial), each cut to the smallest; the same ones again where they are too few."""
    images = [prepare_image(read_array(pair.image), model.spec) for pair in list_pairs(folder, "val")]
    sides = tuple(min(image.shape[axis] for image in images) for axis in range(1, 1 + len(counts)))
    cut = [image[(slice(None), *(slice(side) for side in sides))] for image in images]
    joined = np.zeros((len(cut[0]), *(count * side for count, side in zip(counts, sides, strict=True))), np.float32)
    for number, place in enumerate(np.ndindex(*counts)):
        region = tuple(slice(index * side, (index + 1) * side) for index, side in zip(place, sides, strict=True))
        joined[(slice(None), *region)] = cut[number % len(cut)]
    return joined.repeat(len(model.spec.channels), 0) if len(joined) < len(model.spec.channels) else joined


def timed(work: Callable[[], np.ndarray]) -> tuple[np.ndarray, tuple[float, float]]:
    """Return labels, and the seconds that they took by the wall's clock and by the processor's."""
    wall, cpu = time.perf_counter(), time.process_time()
    labels = work()
    return labels, (time.perf_counter() - wall, time.process_time() - cpu)


def compare(name: str, model: Predictor, image: np.ndarray, rounds: int) -> float:
    """Print one model's times; return how much faster the engine is by the wall's clock."""

    def ours() -> np.ndarray:
        sink = ArraySink(image.shape[1:])
        for event in run(ArraySource(image), model, sink, options=OPTIONS):
            if isinstance(event, Warned):
                print(f"  {event.message}")
        return sink.labels

    theirs = partial(by_monai(image, model.spec.window, len(model.spec.classes)), model.module)
    monai, engine = [], []
    for _ in range(rounds + 1):
        expected, taken = timed(theirs)
        monai.append(taken)
        labels, taken = timed(ours)
        engine.append(taken)
    way = decide(ArraySource(image), model, OPTIONS)
    found = agreement(expected, labels, list(range(1, len(model.spec.classes))))
    pairs = list(zip(monai[1:], engine[1:], strict=True))
    wall, cpu = (statistics.median(other[clock] / own[clock] for other, own in pairs) for clock in (0, 1))
    seconds = [statistics.median(taken[0] for taken in side[1:]) for side in (monai, engine)]
    size, window = (" x ".join(map(str, sides)) for sides in (image.shape[1:], model.spec.window))
    print(f"{name}, {size}, window {window}: MONAI {seconds[0]:.2f} s, engine {seconds[1]:.2f} s (first {engine[0][0]:.1f} s)")
    print(f"  {wall:.2f} times as fast ({cpu:.2f} by the processor's time), Dice of the worst class {found:.4f}")
    print(f"  {way.reason}")
    return wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="without it nothing is measured")
    parser.add_argument("--packages", type=Path, help="folder of more models, whose names end with 2d or 3d")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.data is None:
        return print("No folder of labelled images was given, so nothing is measured.")
    torch.set_num_threads(arguments.threads)
    print(hardware())
    models = {name: name for name in SETS}
    for package in sorted(arguments.packages.iterdir()) if arguments.packages else ():
        models[str(package)] = "nuclei-2d" if package.name.endswith("2d") else "hippocampus-3d"
    faster = []
    for name, like in models.items():
        folder, counts = SETS[like]
        model = load_model(name, device="cpu")
        image = side_by_side(arguments.data / folder, model, counts)
        faster.append(compare(Path(name).name, classes_only(model), image, arguments.rounds))
    if min(faster) < 2:
        raise SystemExit("A target is missed.")


if __name__ == "__main__":
    main()
