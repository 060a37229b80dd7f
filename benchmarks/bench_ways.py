"""How much faster than MONAI runs them networks become in each way that ``precision="auto"`` chooses from, on this computer.

From the root of the repository::

    python benchmarks/bench_ways.py [--threads 1] [--only "UNet 3D"] [--rounds 5]

One tile, processor time of the network as MONAI calls it (float32, freed memory goes back to the system) divided by that of each way in a
run ("exact" among them). All take turns, and each computes a tile twice in its turn, of which the second counts, as in a run of many tiles;
the best of the rounds. Weights of MONAI's networks are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext

import numpy as np
import torch
from bench_engine import hardware

from napari_tileseg.engine.allocator import kept_memory
from napari_tileseg.engine.backends import backends
from napari_tileseg.engine.predict import Network
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.engine.ways import EXACT, compute
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.predictor import Predictor, from_module, load_model
from napari_tileseg.models.spec import ModelSpec

MONAI = "as MONAI calls it"
UNET = {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2), "num_res_units": 2}

NETWORKS = {
    "nuclei-2d": ("nuclei-2d", {}, (320, 320)),
    "hippocampus-3d": ("hippocampus-3d", {}, (48, 64, 48)),
    "MONAI UNet 2D, small": ("monai.UNet", UNET, (256, 256)),
    "MONAI SegResNet 2D, small": ("monai.SegResNet", {"init_filters": 16}, (256, 256)),
    "MONAI UNet 2D": ("monai.UNet", UNET, (512, 512)),
    "MONAI SegResNet 2D": ("monai.SegResNet", {"init_filters": 16}, (512, 512)),
    "MONAI BasicUNet 2D": ("monai.BasicUNet", {}, (512, 512)),
    "MONAI UNet 3D": ("monai.UNet", UNET, (96, 96, 96)),
    "MONAI SegResNet 3D": ("monai.SegResNet", {"init_filters": 16}, (96, 96, 96)),
    "MONAI BasicUNet 3D": ("monai.BasicUNet", {}, (96, 96, 96)),
}
"""The model, or the network and its arguments, and the window, by the name that is printed."""


def predictor_of(model: str, arguments: dict[str, object], window: tuple[int, ...]) -> Predictor:
    """Return a bundled model, or a network of MONAI for one channel and three classes."""
    if not model.startswith("monai."):
        return load_model(model, device="cpu")
    torch.manual_seed(0)
    network = build_network(model, spatial_dims=len(window), in_channels=1, out_channels=3, **arguments)
    spec = ModelSpec(name="network", axes="C" + "ZYX"[-len(window) :], channels=1, classes=["a", "b", "c"], window=window)
    return from_module(network, spec, device="cpu")


def measure(predictor: Predictor, pixels: np.ndarray, rounds: int) -> dict[str, float]:
    """Return the processor's seconds for a tile by the name of the way; `MONAI` is how MONAI's sliding window calls a network."""
    batch, place = torch.from_numpy(pixels)[None], Tile((0,) * (pixels.ndim - 1), pixels.shape[1:])
    network = Network(predictor, place.shape)
    seconds: dict[str, list[float]] = {name: [] for name in (MONAI, EXACT, *backends(predictor))}
    with torch.inference_mode():
        for _ in range(rounds + 1):  # the first one compiles
            for name, times in seconds.items():
                with nullcontext() if name == MONAI else kept_memory():
                    for _ in range(2):
                        start = time.process_time()
                        predictor(batch) if name == MONAI else compute(network, batch, place, name)
                    times.append(time.process_time() - start)
    return {name: min(times[1:]) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="networks whose name holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(hardware())
    for name, (model, options, window) in NETWORKS.items():
        if arguments.only not in name:
            continue
        predictor = predictor_of(model, options, window)
        pixels = np.random.default_rng(0).normal(size=(len(predictor.spec.channels), *window)).astype(np.float32)
        seconds = measure(predictor, pixels, arguments.rounds)
        plain = seconds.pop(MONAI)
        ways = ", ".join(f"{way} {plain / taken:.2f}" for way, taken in seconds.items())
        print(f"{name}, {' x '.join(map(str, window))}, {plain * 1000:.0f} ms: {ways}", flush=True)


if __name__ == "__main__":
    main()
