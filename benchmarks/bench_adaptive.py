"""What adaptive overlap saves in windows and changes in scores: the bundled models on labelled images, against an overlap of one half.

From the root of the repository::

    python benchmarks/bench_adaptive.py DATA [--images 60] [--threads 1]

DATA holds ``dsb2018_nuclei``, ``bbbc039_u2os_nuclei`` and ``hippocampus_mri`` with ``val/images`` and ``val/labels``. Exact mode, the
models' own windows. Images are told apart by the windows that an overlap of one half takes: of a few, the first pass alone takes as many.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from bench_engine import hardware

from napari_tileseg.io import read_volume
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor, load_model
from napari_tileseg.pipeline import segment
from napari_tileseg.training.data import Pair, list_pairs
from napari_tileseg.training.metrics import average_precision, dice

SETS = {"dsb2018_nuclei": "nuclei-2d", "bbbc039_u2os_nuclei": "nuclei-2d", "hippocampus_mri": "hippocampus-3d"}
GROUPS = {"all images": (1, 10**9), "1 window": (1, 1), "2 to 19 windows": (2, 19), "20 windows or more": (20, 10**9)}
LIMIT = 0.002
"""Of what may be lost in AP or in the Dice of a class."""


def measure(pair: Pair, model: Predictor) -> tuple[list[int], np.ndarray]:
    """Return the windows with an overlap of one half and with an adaptive one, and the scores: AP at 0.5, or the Dice of each class."""
    image = read_volume(pair.image)
    windows, scores = [], []
    for options in (SegmentOptions(overlap=0.5, precision="exact"), SegmentOptions(adaptive=True, precision="exact")):
        result = segment(image, model, options=options)
        labels = np.asarray(result.labels)
        truth = np.asarray(read_volume(pair.label).data).reshape(labels.shape)
        windows.append(result.windows)
        objects = model.spec.output == "instances"
        scores.append(average_precision(labels, truth) if objects else dice(labels, truth, range(1, len(model.spec.classes))))
    return windows, np.stack(scores)


def report(name: str, measured: list[tuple[list[int], np.ndarray]]) -> bool:
    """Print one set of images; return whether nothing is lost, and half of the windows saved where an image takes many."""
    held = True
    for group, (least, most) in GROUPS.items():
        of_group = [(windows, scores) for windows, scores in measured if least <= windows[0] <= most]
        if not of_group:
            continue
        half, adaptive = np.sum([windows for windows, _ in of_group], 0)
        before, after = np.mean([scores for _, scores in of_group], 0)
        texts = (", ".join(f"{value:.4f}" for value in values) for values in (before, after))
        print(f"{name}, {group}: {len(of_group)} images, windows {half} -> {adaptive}, scores {' -> '.join(texts)}", flush=True)
        if group == "all images":
            held &= bool(np.all(before - after <= LIMIT))
        elif least > 2:
            held &= bool(2 * adaptive <= half)
    return held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="without it nothing is measured")
    parser.add_argument("--images", type=int, default=100, help="of each set, at most")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.data is None:
        return print("No folder of labelled images was given, so nothing is measured.")
    torch.set_num_threads(arguments.threads)
    print(hardware())
    models = {name: load_model(name, device="cpu") for name in set(SETS.values())}
    held = []
    for folder, name in SETS.items():
        pairs = list_pairs(arguments.data / folder, "val")[: arguments.images]
        held.append(report(f"{name}, {folder}", [measure(pair, models[name]) for pair in pairs]))
    if not all(held):
        raise SystemExit("A target is missed.")


if __name__ == "__main__":
    main()
