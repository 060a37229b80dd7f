"""How well models of what is normal find what is not: on defects pasted into real images, and on real structures.

From the root of the repository::

    python benchmarks/anomaly.py DATA [--steps 1500] [--networks vae,conv_autoencoder]

DATA holds ``axon_myelin_sem`` and ``ebhi_colon_glands``, each with ``train`` and ``val``. Prints a table.

Pasted: discs of 20 to 44 pixels in images that were not learnt from, of three kinds. ``shuffled``: the grey values of the place itself in
random order, so that neither brightness nor contrast gives them away; ``foreign``: texture of the other data set, at the brightness and
contrast of the place; ``stain``: one constant brightness. Real: glands for a model that has seen only what lies between them; and whole
images of adenocarcinoma for one that has seen only normal mucosa.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage
from scipy.stats import rankdata

from napari_tileseg.io import read_volume
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import load_model
from napari_tileseg.pipeline import segment
from napari_tileseg.training.unsupervised import UnsupervisedConfig, train_unsupervised
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

NETWORKS: dict[str, dict[str, Any]] = {
    "autoencoder": {"arguments": {"features": (256, 64, 16)}},
    "conv_autoencoder": {},
    "vae": {},
    "vae-ssim": {"network": "vae", "residual": "ssim"},
    "lsgan": {},
    "dcgan": {"steps": 0.25},
}
"""Options by the name in the table; of ``steps`` the share that fits in the same time."""

KINDS = ("shuffled", "foreign", "stain")
SIDE = 224


def auroc(scores: NDArray[Any], truth: NDArray[np.bool_]) -> float:
    """Return the area under the curve of true over false alarms, from ranks."""
    ranks = rankdata(scores.ravel())
    inside = truth.ravel()
    count = int(inside.sum())
    return float((ranks[inside].sum() - count * (count + 1) / 2) / (count * (inside.size - count)))


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum()))


def read(folder: Path) -> list[NDArray[np.uint8]]:
    """Read all images of a folder as (Y, X) or (Y, X, C)."""
    return [np.asarray(read_volume(path).data) for path in sorted(folder.glob("*.png"))]


def crops(image: NDArray[np.uint8], count: int, generator: np.random.Generator) -> Iterator[NDArray[np.uint8]]:
    for _ in range(count):
        top, left = (int(generator.integers(side - SIDE + 1)) for side in image.shape[:2])
        yield image[top : top + SIDE, left : left + SIDE].copy()


def paste(
    image: NDArray[np.uint8], kind: str, foreign: NDArray[np.uint8], generator: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Paste three discs of one kind; return the image and where they are."""
    image = image.copy()
    truth = np.zeros(image.shape[:2], bool)
    rows, columns = np.indices(truth.shape)
    for _ in range(3):
        radius = generator.uniform(10, 22)
        centre = [generator.uniform(radius, side - radius) for side in truth.shape]
        disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        place = image[disc].astype(float)
        if kind == "shuffled":
            values = generator.permutation(place)
        elif kind == "stain":
            values = np.broadcast_to(generator.uniform(30, 225, place.shape[1:]), place.shape)
        else:
            top, left = (int(generator.integers(side - SIDE + 1)) for side in foreign.shape)
            values = foreign[top : top + SIDE, left : left + SIDE][disc].astype(float)
            values = (values - values.mean()) / (values.std() + 1e-6)
            values = values.reshape(-1, *(1,) * (place.ndim - 1)) * place.std(0) + place.mean(0)
        image[disc] = np.clip(values, 0, 255).astype(np.uint8)
        truth |= disc
    return image, truth


def volume(image: NDArray[np.uint8], name: str) -> Volume:
    return Volume(image, "YX" if image.ndim == 2 else "YXC", name=name)


class Method:
    """A network, trained on images of one kind and asked about others."""

    def __init__(self, network: str, images: Sequence[NDArray[np.uint8]], arguments: argparse.Namespace, place: Path, **more: Any) -> None:
        options = {**NETWORKS[network], **more}
        steps = max(1, round(arguments.steps * options.pop("steps", 1)))
        options.setdefault("network", network)
        began = time.perf_counter()
        config = UnsupervisedConfig(
            name=network, output=str(place), tile=arguments.tile, steps=steps, batch=64, seed=arguments.seed, **options
        )
        self.spec = train_unsupervised(config, volumes=[volume(image, f"{number:04d}") for number, image in enumerate(images)])
        self.seconds = time.perf_counter() - began
        self.model = load_model(str(place), device="cpu")

    def __call__(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the smoothed map and the labels."""
        found = segment(volume(image, "image"), self.model, options=SegmentOptions(scores=True))
        assert found.scores is not None
        return ndimage.median_filter(found.scores[0], int(self.spec.decoder_parameters["median"]), mode="reflect"), found.labels > 0


def judge(method: Method, samples: Sequence[tuple[NDArray[np.uint8], NDArray[np.bool_]]]) -> tuple[float, float]:
    """Return AUROC and Dice of the pixels of all images together."""
    answers = [method(image) for image, _ in samples]
    truth = np.stack([where for _, where in samples])
    return auroc(np.stack([scores for scores, _ in answers]), truth), dice(np.stack([labels for _, labels in answers]), truth)


def stroma(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield squares of 48 pixels without a gland."""
    for path in sorted((folder / "images").glob("normal_*.png")):
        image, mask = (np.asarray(read_volume(folder / part / path.name).data) for part in ("images", "labels"))
        for top in range(0, SIDE - 47, 16):
            for left in range(0, SIDE - 47, 16):
                if not mask[top : top + 48, left : left + 48].any():
                    yield image[top : top + 48, left : left + 48]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="without it nothing is measured")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--tile", type=int, default=28)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--only", default="", help="axon_myelin_sem, ebhi_colon_glands or stroma; all by default")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.data is None:
        print("Give the folder of the data sets to measure how anomalies are found.")
        return
    torch.set_num_threads(arguments.threads)
    axons, glands = arguments.data / "axon_myelin_sem", arguments.data / "ebhi_colon_glands"
    sem = read(axons / "train" / "images")
    normal = [np.asarray(read_volume(path).data) for path in sorted((glands / "train" / "images").glob("normal_*.png"))]
    unseen = [np.asarray(read_volume(path).data) for path in sorted((glands / "val" / "images").glob("normal_*.png"))]
    cancer = [np.asarray(read_volume(path).data) for path in sorted(glands.glob("*/images/adenocarcinoma_*.png"))]
    generator = np.random.default_rng(arguments.seed)
    tests = {
        "axon_myelin_sem": list(crops(read(axons / "val" / "images")[0], 5, generator)),
        "ebhi_colon_glands": [image[:SIDE, :SIDE] for image in unseen],
    }
    foreign = {"axon_myelin_sem": normal[0].mean(-1).astype(np.uint8), "ebhi_colon_glands": sem[0]}
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {arguments.threads} threads, seed {arguments.seed}, "
          f"tile {arguments.tile}, {arguments.steps} steps of 64 tiles")  # fmt: skip
    print("| images | network | seconds | " + " | ".join(f"{kind} AUROC / Dice" for kind in KINDS) + " |")
    with tempfile.TemporaryDirectory() as folder:
        for name, train in (("axon_myelin_sem", sem), ("ebhi_colon_glands", normal)):
            for network in arguments.networks.split(",") if arguments.only in ("", name) else ():
                method = Method(network, train, arguments, Path(folder) / f"{name}-{network}")
                told = []
                for kind in KINDS:
                    draw = np.random.default_rng([arguments.seed, KINDS.index(kind)])
                    told.append("{:.3f} / {:.2f}".format(*judge(method, [paste(i, kind, foreign[name], draw) for i in tests[name]])))
                print(f"| {name} | {network} | {method.seconds:.0f} | {' | '.join(told)} |", flush=True)
                if name == "ebhi_colon_glands" and cancer:
                    means = np.array([method(image)[0].mean() for image in [*unseen, *cancer]])
                    ill = np.arange(len(means)) >= len(unseen)
                    print(
                        f"| whole images: {len(unseen)} normal, {len(cancer)} cancer | {network} | | {auroc(means, ill):.3f} |", flush=True
                    )
        squares = list(stroma(glands / "train"))
        truths = [np.asarray(read_volume(path).data) > 0 for path in sorted((glands / "val" / "labels").glob("normal_*.png"))]
        for network in arguments.networks.split(",") if arguments.only in ("", "stroma") else ():
            method = Method(network, squares, arguments, Path(folder) / f"stroma-{network}", normalization="range")
            print(f"| glands, {len(squares)} squares without | {network} | {method.seconds:.0f} | "
                  "{:.3f} / {:.2f} |".format(*judge(method, list(zip(unseen, truths, strict=True)))), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
