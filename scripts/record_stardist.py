"""Train small StarDist models and record what StarDist itself answers, for tests/models/loaders/test_stardist.py.

Run it in an environment of its own, from the root of the repository; nothing of StarDist is needed to run the tests::

    python -m venv stardist-venv
    stardist-venv/bin/pip install stardist tensorflow-cpu imageio
    stardist-venv/bin/python scripts/record_stardist.py FOLDER_OF_NUCLEI     # trains, then records
    stardist-venv/bin/python scripts/record_stardist.py                      # records again

The folder holds ``train/images`` and ``train/labels``; volumes are made up. The models that lie there were trained by an earlier form of
this script, which did not round volumes to whole numbers.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # which would round differently

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "tests" / "models" / "loaders" / "stardist"
BOXES = [[0, 520, 0, 696], [40, 251, 100, 333]]
SHAPE = (29, 62, 75)


def planes(source: Path) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return normalised images of fluorescence and their labels."""
    import imageio.v3 as iio
    from csbdeep.utils import normalize

    images, labels = [], []
    for path in sorted((source / "train" / "images").glob("*"))[:140]:
        image = iio.imread(path)
        image = image[..., :3].mean(-1) if image.ndim == 3 else image
        if np.median(image) > 0.5 * image.max() or min(image.shape) < 192:
            continue
        images.append(normalize(image.astype(np.float32), 1, 99.8))
        of_image = iio.imread(next((source / "train" / "labels").glob(f"{path.stem}.*")))
        labels.append(of_image.astype(np.int32))
    return images, labels


def balls(seed: int, shape: tuple[int, int, int] = (32, 64, 64)) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume of blurred balls, flat along Z, and their labels."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    labels, image = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    for number in range(1, 30):
        centre, radius = rng.uniform(0, 1, 3) * shape, rng.uniform(5, 9)
        inside = ((z - centre[0]) * 2) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
        inside &= labels == 0
        labels[inside], image[inside] = number, rng.uniform(0.5, 1)
    noisy = gaussian_filter(image, (0.5, 1, 1)) + rng.normal(0, 0.05, shape)
    return np.clip(noisy * 200 + 20, 0, 255).astype(np.uint8), labels


def train(source: Path) -> None:
    """Train for a few minutes, so that labels mean something."""
    from csbdeep.utils import normalize
    from stardist import Rays_GoldenSpiral
    from stardist.models import Config2D, Config3D, StarDist2D, StarDist3D

    usual: dict[str, Any] = {
        "n_channel_in": 1,
        "unet_n_filter_base": 4,
        "net_conv_after_unet": 16,
        "train_tensorboard": False,
        "train_learning_rate": 3e-3,
    }
    flat = {**usual, "train_patch_size": (128, 128), "train_batch_size": 4, "train_steps_per_epoch": 60}
    configurations = {
        "plane": Config2D(n_rays=32, grid=(2, 2), unet_n_depth=2, train_epochs=20, **flat),
        "norms": Config2D(n_rays=16, grid=(1, 1), unet_n_depth=1, unet_batch_norm=True, unet_last_activation="elu", train_epochs=4, **flat),
    }
    images, labels = planes(source)
    for name, config in configurations.items():
        model = StarDist2D(config, name=name, basedir=str(TARGET))
        model.train(images[:-12], labels[:-12], validation_data=(images[-12:], labels[-12:]), seed=0)
        model.optimize_thresholds(images[-12:], labels[-12:])
    deep = {
        **usual,
        "train_learning_rate": 2e-3,
        "train_patch_size": (32, 64, 64),
        "train_batch_size": 1,
        "train_steps_per_epoch": 40,
        "train_epochs": 8,
    }
    rays = Rays_GoldenSpiral(32, anisotropy=(2, 1, 1))
    config = Config3D(rays=rays, grid=(1, 2, 2), anisotropy=(2, 1, 1), unet_n_depth=1, **deep)
    pairs = [balls(seed) for seed in range(14)]
    images, labels = [normalize(pair[0].astype(np.float32), 1, 99.8) for pair in pairs], [pair[1] for pair in pairs]
    model = StarDist3D(config, name="volume", basedir=str(TARGET))
    model.train(images[:-2], labels[:-2], validation_data=(images[-2:], labels[-2:]), seed=0)
    model.optimize_thresholds(images[-2:], labels[-2:])


def main() -> None:
    """Train where a folder is given; record."""
    import tifffile
    from csbdeep.utils import normalize
    from stardist.models import StarDist2D, StarDist3D

    if len(sys.argv) > 1:
        train(Path(sys.argv[1]))
    sample = tifffile.imread(ROOT / "sample_data" / "nuclei_fluorescence.tif")
    arrays: dict[str, np.ndarray] = {}
    for folder in sorted(path.parent for path in TARGET.glob("*/config.json")):
        for junk in ("weights_last.h5", "weights_now.h5"):
            (folder / junk).unlink(missing_ok=True)
        volume = folder.name == "volume"
        model = (StarDist3D if volume else StarDist2D)(None, name=folder.name, basedir=str(TARGET))
        images = [balls(99, SHAPE)[0]] if volume else [sample[a:b, c:d] for a, b, c, d in BOXES]
        if volume:
            arrays["balls"] = images[0]
        for index, image in enumerate(images):
            pixels = normalize(image.astype(np.float32), 1, 99.8)
            likely, distances = model.predict(pixels)
            labels, _ = model.predict_instances(pixels)
            arrays[f"{folder.name} {index}, labels"] = labels.astype(np.uint16)
            arrays[f"{folder.name} {index}, probabilities"] = likely[(slice(None, None, 5),) * likely.ndim].astype(np.float32)
            arrays[f"{folder.name} {index}, distances"] = distances[(*(slice(None, None, 11),) * likely.ndim, slice(None, None, 5))]
            print(folder.name, image.shape, labels.max())
    np.savez_compressed(TARGET / "answers.npz", **arrays)


if __name__ == "__main__":
    main()
