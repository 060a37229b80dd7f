"""How much faster than MONAI runs them networks become in each way that ``precision="auto"`` chooses from, on this computer.

From the root of the repository::

    python benchmarks/bench_ways.py [--threads 1] [--only "UNet 3D"] [--rounds 5]

One tile, processor time of the network as MONAI calls it (float32, freed memory goes back to the system) divided by that of each way in a
run ("exact" among them), the best of the rounds; the first tile of a way, which may be compiled, does not count. Weights of MONAI's
networks are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from bench_engine import hardware

from napari_tileseg.engine.backends import backends
from napari_tileseg.engine.predict import Network
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.engine.ways import measure
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.predictor import Predictor, from_module, load_model
from napari_tileseg.models.spec import ModelSpec

UNET = {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2), "num_res_units": 2}

NETWORKS = {
    "nuclei-2d": ("nuclei-2d", {}, (320, 320)),
    "hippocampus-3d": ("hippocampus-3d", {}, (48, 64, 48)),
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


def plainly(predictor: Predictor, pixels: np.ndarray, rounds: int) -> float:
    """Return the processor's seconds for a tile, as MONAI's sliding window calls a network."""
    batch, seconds = torch.from_numpy(pixels)[None], []
    with torch.inference_mode():
        for _ in range(rounds + 1):
            start = time.process_time()
            predictor(batch)
            seconds.append(time.process_time() - start)
    return min(seconds[1:])


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
        tile = Tile((0,) * len(window), window), pixels
        plain = plainly(predictor, pixels, arguments.rounds)
        seconds = measure(Network(predictor, window), tile, backends(predictor), rounds=arguments.rounds, timer=time.process_time)
        ways = ", ".join(f"{way} {plain / taken:.2f}" for way, taken in seconds.items())
        print(f"{name}, {' x '.join(map(str, window))}, {plain * 1000:.0f} ms: {ways}", flush=True)


if __name__ == "__main__":
    main()
