"""Time the engine in exact mode against MONAI's and nnU-Net's sliding windows: same image, network, window, overlap; in turns.

Run it on a quiet machine, from the root of the repository::

    python benchmarks/bench_engine.py [--rounds 3] [--threads 2] [--only 2D] [--skip-large]

"outside" is what is left of the wall time when the forward passes are taken away; "CPU" is processor time (user and system) of
the same, which a busy machine disturbs less. Every side ends with labels. nnU-Net takes part where it is installed (it is no
dependency); it averages in float16 and on its own grid, so its labels may differ. Labels must equal MONAI's.
"""

from __future__ import annotations

import argparse
import gc
import platform
import statistics
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_tileseg.engine.arrays import ArraySink, ArraySource, FunctionPredictor
from napari_tileseg.engine.run import run
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL_3D = (4, 4, 8, 16, 32, 4)
CASES = {
    "2D 2048 x 2048, 3 classes, window 512": ((2048, 2048), (512, 512), (8, 8, 16, 32, 64, 8), 3),
    "3D 160 x 192 x 192, 3 classes, window 96": ((160, 192, 192), (96, 96, 96), SMALL_3D, 3),
    "3D 192 x 256 x 256, 104 classes, window 96": ((192, 256, 256), (96, 96, 96), SMALL_3D, 104),
}
TARGETS = {"2D 2": (0.95, 0.25), "3D 16": (0.95, 0.25), "3D 19": (0.92, 0.55)}
"""Most of MONAI's wall time, and of its time outside the model, by the beginning of a case's name."""


class Timed(torch.nn.Module):
    """A network that adds up the time of its forward passes."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module
        self.seconds = self.cpu_seconds = 0.0

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        start, cpu_start = time.perf_counter(), time.process_time()
        scores = self.module(batch)
        self.seconds += time.perf_counter() - start
        self.cpu_seconds += time.process_time() - cpu_start
        return scores


@dataclass
class Side:
    """One of those that are compared; every list has one entry a round."""

    name: str
    labels: Callable[[Timed], np.ndarray]
    wall: list[float] = field(default_factory=list)
    outside: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    cpu_outside: list[float] = field(default_factory=list)

    def go(self, module: torch.nn.Module) -> np.ndarray:
        gc.collect()
        network = Timed(module)
        start, cpu_start = time.perf_counter(), time.process_time()
        labels = self.labels(network)
        self.cpu.append(time.process_time() - cpu_start)
        self.wall.append(time.perf_counter() - start)
        self.cpu_outside.append(self.cpu[-1] - network.cpu_seconds)
        self.outside.append(self.wall[-1] - network.seconds)
        return labels


def by_monai(image: np.ndarray, window: tuple[int, ...], heads: int) -> Callable[[Timed], np.ndarray]:
    def labels(network: Timed) -> np.ndarray:
        with torch.inference_mode():
            from monai.inferers import sliding_window_inference

            scores = sliding_window_inference(torch.from_numpy(image)[None], window, 1, network, overlap=0.5, mode="gaussian")[0]
            return scores.argmax(0).to(torch.uint8).numpy()

    return labels


def by_nnunet(image: np.ndarray, window: tuple[int, ...], heads: int, device: str = "cpu") -> Callable[[Timed], np.ndarray]:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    pixels = torch.from_numpy(image if image.ndim == 4 else image[:, None])  # its 2D networks take stacks of planes

    def labels(network: Timed) -> np.ndarray:
        predictor = nnUNetPredictor(
            tile_step_size=0.5,
            use_gaussian=True,
            use_mirroring=False,
            perform_everything_on_device=device != "cpu",
            device=torch.device(device),
            verbose=False,
            allow_tqdm=False,
        )
        predictor.network = network
        predictor.configuration_manager = SimpleNamespace(patch_size=window)
        predictor.label_manager = SimpleNamespace(num_segmentation_heads=heads)
        scores = predictor.predict_sliding_window_return_logits(pixels)
        return scores.argmax(0).to(torch.uint8).cpu().numpy().reshape(image.shape[1:])

    return labels


def by_engine(image: np.ndarray, window: tuple[int, ...], heads: int) -> Callable[[Timed], np.ndarray]:
    axes = "CYX" if image.ndim == 3 else "CZYX"
    classes = [str(index) for index in range(heads)]
    spec = ModelSpec(name="bench", axes=axes, channels=["grey"], classes=classes, window=window)

    def labels(network: Timed) -> np.ndarray:
        sink = ArraySink(image.shape[1:])
        for _ in run(ArraySource(image), FunctionPredictor(spec, network), sink):
            pass
        return sink.labels

    return labels


def compare(
    name: str, shape: tuple[int, ...], window: tuple[int, ...], features: tuple[int, ...], heads: int, *, rounds: int, nnunet: bool
) -> None:
    torch.manual_seed(0)
    from monai.networks.nets import BasicUNet

    module = BasicUNet(spatial_dims=len(shape), in_channels=1, out_channels=heads, features=features).eval()
    image = np.random.default_rng(0).random((1, *shape), dtype=np.float32)
    sides = [Side("MONAI", by_monai(image, window, heads)), Side("engine", by_engine(image, window, heads))]
    if nnunet:
        sides.append(Side("nnU-Net", by_nnunet(image, window, heads)))
    with torch.inference_mode():  # warm: the libraries choose their kernels in the first pass
        module(torch.from_numpy(image[(None, slice(None), *(slice(size) for size in window))]))
    results = {}
    for _ in range(rounds):
        for side in sides:
            results[side.name] = side.go(module)
    print(f"\n{name}, overlap 0.5, {torch.get_num_threads()} threads, {rounds} rounds in turns: median (lowest to highest)")
    for side in sides:
        columns = {"wall": side.wall, "outside the model": side.outside, "CPU": side.cpu, "CPU outside": side.cpu_outside}
        print(f"  {side.name:8}" + ", ".join(f"{key} {_spread(values)}" for key, values in columns.items()))
    engine = sides[1]
    wall, outside = next(target for start, target in TARGETS.items() if name.startswith(start))
    for side in (sides[0], *sides[2:]):
        ratios = [_ratio(getattr(engine, key), getattr(side, key)) for key in ("wall", "outside", "cpu", "cpu_outside")]
        equal = np.mean(results[side.name] == results["engine"])
        print("  engine / {}: wall {:.2f}, outside the model {:.2f}, CPU {:.2f}, CPU outside {:.2f}".format(side.name, *ratios), end="")
        print(f"; equal labels {equal:.6%}" + (f" (targets {wall} and {outside})" if side is sides[0] else ""), flush=True)


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} s ({min(values):.2f} to {max(values):.2f})"


def _ratio(own: list[float], other: list[float]) -> float:
    return statistics.median(first / second for first, second in zip(own, other, strict=True))


def hardware() -> str:
    """Name processor, cores and the versions that matter."""
    names = ("torch", "monai", "nnunetv2", "numpy")
    return f"{platform.machine()} {_processor()}, Python {platform.python_version()}, " + ", ".join(
        f"{name} {_version(name)}" for name in names if _version(name)
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name starts so")
    parser.add_argument("--skip-large", action="store_true", help="leave out the case of 104 classes, which takes minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(hardware())
    nnunet = bool(_version("nnunetv2"))
    if not nnunet:
        print("nnU-Net is not installed, so it is left out.")
    for name, case in CASES.items():
        if name.startswith(arguments.only) and not (arguments.skip_large and case[3] > 100):
            compare(name, *case, rounds=arguments.rounds, nnunet=nnunet)


if __name__ == "__main__":
    main()
