"""Time the engine against MONAI's sliding window on the same image and network, in turns (A B A B), and print ratios.

Run it on a quiet machine, from the root of the repository::

    python benchmarks/bench_engine.py [--rounds 3] [--threads 2] [--only 2D]

"outside" is what is left of the wall time when the forward passes are taken away; "CPU" is the same in processor time, which a
busy machine disturbs less. Both sides end with labels (MONAI's
scores by a running maximum would be faster than by `argmax`, so both ways of decoding them are printed).
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from monai.networks.nets import BasicUNet

from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.run import run
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

CASES = {
    "2D 2048 x 2048, 3 classes, window 512": ((2048, 2048), (512, 512), (8, 8, 16, 32, 64, 8)),
    "3D 160 x 192 x 192, 3 classes, window 96": ((160, 192, 192), (96, 96, 96), (4, 4, 8, 16, 32, 4)),
}


@dataclass
class Timed:
    """A network that adds up the time of its forward passes."""

    module: torch.nn.Module
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        start, cpu_start = time.perf_counter(), time.process_time()
        scores = self.module(batch)
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu_start
        return scores


@dataclass
class Side:
    """One of the two that are compared."""

    name: str
    labels: Callable[[Timed], np.ndarray]
    wall: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def go(self, module: torch.nn.Module) -> np.ndarray:
        network = Timed(module)
        start, cpu_start = time.perf_counter(), time.process_time()
        labels = self.labels(network)
        self.cpu.append(time.process_time() - cpu_start - network.cpu_seconds)
        self.wall.append(time.perf_counter() - start)
        self.outside.append(self.wall[-1] - network.seconds)
        return labels


def by_monai(image: np.ndarray, window: tuple[int, ...], *, running: bool) -> Callable[[Timed], np.ndarray]:
    def labels(network: Timed) -> np.ndarray:
        with torch.inference_mode():
            scores = sliding_window_inference(torch.from_numpy(image)[None], window, 1, network, overlap=0.5, mode="gaussian")[0]
            return (scores.max(0).indices if running else scores.argmax(0)).to(torch.uint8).numpy()

    return labels


def by_engine(image: np.ndarray, window: tuple[int, ...]) -> Callable[[Timed], np.ndarray]:
    axes = "CYX" if image.ndim == 3 else "CZYX"
    spec = ModelSpec(name="bench", axes=axes, channels=["grey"], classes=["a", "b", "c"], window=window)

    def labels(network: Timed) -> np.ndarray:
        sink = ArraySink(image.shape[1:])
        for _ in run(ArraySource(image), FunctionPredictor(spec, network), sink):
            pass
        return sink.labels

    return labels


def compare(name: str, shape: tuple[int, ...], window: tuple[int, ...], features: tuple[int, ...], rounds: int) -> None:
    torch.manual_seed(0)
    module = BasicUNet(spatial_dims=len(shape), in_channels=1, out_channels=3, features=features).eval()
    image = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    engine = Side("engine", by_engine(image, window))
    sides = [Side("MONAI", by_monai(image, window, running=False)), engine, Side("MONAI, max()", by_monai(image, window, running=True))]
    results = {}
    for number in range(rounds + 1):
        for side in sides:
            results[side.name] = side.go(module)
            if number == 0:  # the first round is for warming up
                side.wall.clear()
                side.outside.clear()
                side.cpu.clear()
    print(f"\n{name}, overlap 0.5, {torch.get_num_threads()} threads, {rounds} rounds in turns (median, lowest to highest)")
    for side in sides:
        wall, outside, cpu = (f"{statistics.median(v):7.3f} s ({min(v):.3f} to {max(v):.3f})" for v in (side.wall, side.outside, side.cpu))
        print(f"  {side.name:12} wall {wall}   outside the model {outside}, CPU {cpu}")
    for side in sides:
        if side is not engine:
            wall = statistics.median(other / own for own, other in zip(engine.wall, side.wall, strict=True))
            outside = statistics.median(other / own for own, other in zip(engine.outside, side.outside, strict=True))
            cpu = statistics.median(other / own for own, other in zip(engine.cpu, side.cpu, strict=True))
            equal = np.mean(results[side.name] == results["engine"])
            print(f"  {side.name} / engine: wall {wall:.2f}, outside the model {outside:.1f}, CPU {cpu:.1f}; equal labels {equal:.6%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=["2D", "3D"], default="", help="leave the other case out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for name, case in CASES.items():
        if name.startswith(arguments.only):
            compare(name, *case, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
