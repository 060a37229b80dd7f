"""Train MONAI's UNet and SegResNet for a few minutes each, for ``bench_precision.py``: weights that have seen images.

From the root of the repository::

    python benchmarks/train_monai.py DATA -o OUT [--minutes 8]

They learn what the bundled models learn, by the same recipes, into packages ``OUT/unet-2d`` and so on.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import write_package
from napari_tileseg.training.data import list_pairs, read_examples
from napari_tileseg.training.fit import Finished, Step, fit
from napari_tileseg.training.recipes import RECIPES
from napari_tileseg.training.sampling import Sampler

NETWORKS = {
    "unet-2d": ("nuclei-2d", "monai.UNet", {"channels": (16, 32, 64, 128, 256), "strides": (2, 2, 2, 2), "num_res_units": 2}),
    "segresnet-2d": ("nuclei-2d", "monai.SegResNet", {"init_filters": 16}),
    "unet-3d": ("hippocampus-3d", "monai.UNet", {"channels": (16, 32, 64, 128), "strides": (2, 2, 2), "num_res_units": 2}),
    "segresnet-3d": ("hippocampus-3d", "monai.SegResNet", {"init_filters": 16}),
}
"""The recipe, the network and its arguments, by the name of the package."""


def train(name: str, data: Path, out: Path, minutes: float) -> None:
    based_on, network, arguments = NETWORKS[name]
    recipe = RECIPES[based_on]
    spec = recipe.spec
    channels = {"in_channels": len(spec.channels), "out_channels": len(spec.score_names)}
    arguments = {"spatial_dims": spec.spatial_ndim, **channels, **arguments}
    spec = spec.model_copy(update={"name": name, "title": name, "architecture": network, "arguments": arguments})
    torch.manual_seed(0)
    pairs = [pair for folder in recipe.folders for pair in list_pairs(data / folder, "train")]
    examples = read_examples(pairs, spec, make_maps=recipe.make_maps)
    sampler = Sampler(
        examples, recipe.augmentation, channels=len(spec.channels), batch=recipe.batch, shares=recipe.shares, centred=recipe.centred, seed=0
    )
    options = replace(recipe.fit, time_limit=minutes * 60, average=0.99)
    for event in fit(build_network(network, **arguments), recipe.loss(), sampler.batch, options):
        if isinstance(event, Step):
            print(f"{name} {event.step} loss {event.loss:.4f} {event.seconds:.0f} s", flush=True)
        elif isinstance(event, Finished):
            write_package(out / name, spec, event.state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="without it nothing is trained")
    parser.add_argument("-o", "--out", type=Path, default=Path("build") / "monai")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("names", nargs="*", help=f"which of {', '.join(NETWORKS)}; all if none is named")
    arguments = parser.parse_intermixed_args()
    if arguments.data is None:
        return print("No folder of labelled images was given, so nothing is trained.")
    torch.set_num_threads(arguments.threads)
    for name in arguments.names or NETWORKS:
        train(name, arguments.data, arguments.out, arguments.minutes)


if __name__ == "__main__":
    main()
