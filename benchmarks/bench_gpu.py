"""Time the engine on a GPU against MONAI's and nnU-Net's sliding windows, all on the device, in turns; how busy the network keeps it.

It needs an NVIDIA GPU, from the root of the repository::

    python benchmarks/bench_gpu.py [--rounds 3] [--device cuda:0] [--only volume]

A volume of 512^3 with 3 classes, and a slide of 16,384 x 16,384 in three colours, in memory. Every side ends with labels on the host.
"model" is the share of the wall time in which the network runs: the time between two events of the device around each forward
pass, so waiting for pixels, blending, decoding and copies count against it (aim: 90 %). The engine and MONAI compute in float32
without TF32; "auto" is the engine with the fastest way that keeps the labels, for whose choice the first round pays; nnU-Net computes
in float16. MONAI and nnU-Net take part where they are installed. Without a GPU, ``--small --device cpu`` shows that everything runs;
its numbers say nothing about one.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from bench_engine import by_nnunet, hardware

from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.events import Warned
from napari_tileseg.engine.predict import exact_arithmetic
from napari_tileseg.engine.run import run
from napari_tileseg.errors import DeviceMemoryError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.nets.unet2015 import UNet2015
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

AIM = 0.9
"""Share of the wall time that the network should run."""

FEATURES = (32, 64, 128, 256)
SMALL = (4, 8, 8, 16)
CASES = {
    "volume, 512 x 512 x 512, window 128": ((512, 512, 512), (128, 128, 128), 1),
    "slide, 16384 x 16384, window 512": ((16384, 16384), (512, 512), 3),
}
SMALL_CASES = {
    "volume, 48 x 48 x 48, window 32": ((48, 48, 48), (32, 32, 32), 1),
    "slide, 512 x 512, window 128": ((512, 512), (128, 128), 3),
}
CLASSES = 3


class Timed(torch.nn.Module):
    """A network that notes when each forward pass begins and ends on its device."""

    def __init__(self, module: torch.nn.Module, device: str) -> None:
        super().__init__()
        self.module, self.device = module, device
        self.passes: list[tuple[Any, Any]] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        begin = self._now()
        scores = self.module(batch)
        self.passes.append((begin, self._now()))
        return scores

    @property
    def seconds(self) -> float:
        """Time in which the network has run; everything must be done."""
        if self.device == "cpu":
            return sum(end - begin for begin, end in self.passes)
        return sum(begin.elapsed_time(end) for begin, end in self.passes) / 1000

    def _now(self) -> Any:
        if self.device == "cpu":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


@dataclass
class Side:
    """One of those that are compared; every list has one entry a round."""

    name: str
    labels: Callable[[Timed], np.ndarray]
    wall: list[float] = field(default_factory=list)
    share: list[float] = field(default_factory=list)
    memory: float = 0.0

    def go(self, module: torch.nn.Module, device: str) -> np.ndarray:
        gc.collect()
        network = Timed(module, device)
        if device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        labels = self.labels(network)
        if device != "cpu":
            torch.cuda.synchronize(device)
            self.memory = torch.cuda.max_memory_allocated(device) / 1e9
        self.wall.append(time.perf_counter() - start)
        self.share.append(network.seconds / self.wall[-1])
        return labels


def by_engine(image: np.ndarray, window: tuple[int, ...], device: str, *, auto: bool = False) -> Callable[[Timed], np.ndarray]:
    axes = "CYX" if image.ndim == 3 else "CZYX"
    channels, classes = [f"channel {index}" for index in range(len(image))], [str(index) for index in range(CLASSES)]
    spec = ModelSpec(name="bench", axes=axes, channels=channels, classes=classes, window=window)
    if auto:  # how fast each way is gets remembered under this name
        spec = spec.model_copy(update={"weights_sha256": f"bench_gpu {time.time_ns()}"})
    options = SegmentOptions(precision="auto" if auto else "exact")
    known: list[Any] = []  # one predictor for all rounds, as in the program

    def labels(network: Timed) -> np.ndarray:
        sink = ArraySink(image.shape[1:])
        if auto and not known:
            known.append(from_module(network.module, spec, device=device))
        predictor = known[0] if auto else FunctionPredictor(spec, network, device)
        for event in run(ArraySource(image), predictor, sink, options=options):
            if isinstance(event, Warned):
                print(f"  {event.message}", flush=True)
        assert sink.labels is not None
        return sink.labels

    return labels


def by_monai(image: np.ndarray, window: tuple[int, ...], device: str, batch: int) -> Callable[[Timed], np.ndarray]:
    def labels(network: Timed) -> np.ndarray:
        from monai.inferers import sliding_window_inference

        with torch.inference_mode(), exact_arithmetic():  # MONAI itself would leave convolutions in TF32
            pixels = torch.from_numpy(image)[None].to(device)
            scores = sliding_window_inference(pixels, window, batch, network, overlap=0.5, mode="gaussian")[0]
            return scores.argmax(0).to(torch.uint8).cpu().numpy()

    return labels


def compare(
    name: str, shape: tuple[int, ...], window: tuple[int, ...], channels: int, *, device: str, rounds: int, batch: int, small: bool
) -> None:
    torch.manual_seed(0)
    features = SMALL if small else FEATURES
    module = UNet2015(in_channels=channels, out_channels=CLASSES, features=features, padding="same", norm=True, spatial_dims=len(shape))
    module = module.eval().requires_grad_(False).to(device)
    image = np.random.default_rng(0).random((channels, *shape), dtype=np.float32)
    sides = [
        Side("engine", by_engine(image, window, device)),
        Side("auto", by_engine(image, window, device, auto=True)),
    ]
    if find_spec("monai") is not None:
        sides.append(Side("MONAI", by_monai(image, window, device, batch)))
    if find_spec("nnunetv2") is not None:
        sides.append(Side("nnU-Net", by_nnunet(image, window, CLASSES, device)))
    results = {}
    for index in range(rounds + 1):
        for side in list(sides):
            try:
                results[side.name] = side.go(module, device)
            except (torch.OutOfMemoryError, DeviceMemoryError):
                sides.remove(side)
                print(f"  {side.name} runs out of memory", flush=True)
                continue
            if index == 0:  # the libraries choose their kernels in the first round
                side.wall.clear()
                side.share.clear()
    print(f"\n{name}, overlap 0.5, {rounds} rounds in turns: median (lowest to highest)")
    engine = sides[0]
    for side in sides:
        wall, share = statistics.median(side.wall), statistics.median(side.share)
        aim = f" (aim {AIM:.0%})" if side is engine else ""
        model = f", model {share:.1%} of it{aim}" if share else ""
        print(f"  {side.name:8} wall {wall:.2f} s ({min(side.wall):.2f} to {max(side.wall):.2f}){model}", end="")
        print(f", {side.memory:.1f} GB of the device" if device != "cpu" else "")
    for side in sides[1:]:
        ratio = statistics.median(own / other for own, other in zip(engine.wall, side.wall, strict=True))
        equal = np.mean(results[side.name] == results["engine"])
        print(f"  engine / {side.name}: wall {ratio:.2f} (aim: below 1); equal labels {equal:.4%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--batch", type=int, help="tiles at once for MONAI (4, on a CPU 1); the engine chooses for itself")
    parser.add_argument("--only", default="", help="cases whose name starts so")
    parser.add_argument("--small", action="store_true", help="small images and a small network, to see that it runs")
    arguments = parser.parse_args()
    if arguments.device != "cpu" and not torch.cuda.is_available():
        print("This benchmark needs an NVIDIA GPU, and there is none here. --small --device cpu shows that it runs.")
        sys.exit(0)
    gpu = f", {torch.cuda.get_device_name(arguments.device)}" if arguments.device != "cpu" else ""
    print(hardware() + gpu)
    for name, label in (("monai", "MONAI"), ("nnunetv2", "nnU-Net")):
        if find_spec(name) is None:
            print(f"{label} is not installed, so it is left out.")
    batch = arguments.batch or (1 if arguments.device == "cpu" else 4)
    for name, case in (SMALL_CASES if arguments.small else CASES).items():
        if name.startswith(arguments.only):
            compare(name, *case, device=arguments.device, rounds=arguments.rounds, batch=batch, small=arguments.small)


if __name__ == "__main__":
    main()
