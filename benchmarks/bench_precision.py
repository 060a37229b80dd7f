"""What ``precision="auto"`` gains in time and changes in labels: the bundled models on labelled images, against exact mode.

From the root of the repository::

    python benchmarks/bench_precision.py DATA [--images 6] [--packages FOLDER]

DATA holds ``dsb2018_nuclei`` and ``hippocampus_mri`` with ``val/images`` and ``val/labels``. "agreement" is the Dice of the class
that agrees worst between exact and auto, or the share of objects that match at IoU 0.9; "loss" is what auto loses in Dice, or in
objects found (F1 at IoU 0.5), against the reference. FOLDER holds what ``train_monai.py`` has made.
"""

from __future__ import annotations

import argparse
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_engine import hardware

from napari_tileseg.engine import precision as deciding
from napari_tileseg.engine.precision import agreement, object_agreement
from napari_tileseg.io import read_volume
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import load_model
from napari_tileseg.pipeline import segment

SETS = {"nuclei-2d": "dsb2018_nuclei", "hippocampus-3d": "hippocampus_mri"}


_decide = deciding.decide


def as_if_large(*arguments: Any, **options: Any) -> deciding.Verdict:
    """Decide as for an image of many tiles: on one of a few the check costs more than it saves, and nothing would be compared."""
    return _decide(*arguments, **{**options, "tiles": 1_000_000})


def quality(labels: np.ndarray, truth: np.ndarray, *, instances: bool) -> float | None:
    """Return the mean Dice of the classes, or the F1 of objects at IoU 0.5."""
    if instances:
        return object_agreement(truth, labels, least=0.5 + 1e-9)
    found = [agreement(truth, labels, [value]) for value in range(1, int(truth.max()) + 1)]
    values = [value for value in found if value is not None]
    return statistics.mean(values) if values else None


def compare(name: str, folder: Path, images: int) -> bool:
    """Print one model's results; return whether the limits hold."""
    model = load_model(name, device="cpu")
    instances = model.spec.output == "instances"
    deciding.decide = as_if_large
    agreements, losses, speeds, ways = [], [], [], {}
    for path in sorted((folder / "val" / "images").iterdir())[:images]:
        image = read_volume(path)
        truth = np.asarray(read_volume(folder / "val" / "labels" / path.name).data).astype(np.int64)
        labels = {}
        for precision in ("exact", "auto"):
            result = segment(image, model, options=SegmentOptions(precision=precision))
            labels[precision] = np.asarray(result.labels).astype(np.int64)
        settings = result.provenance["settings"]
        way = settings["precision"] if settings["precision"] != "exact" else f"exact ({settings['precision_reason']})"
        ways[way] = ways.get(way, 0) + 1
        compared = object_agreement(*labels.values()) if instances else agreement(*labels.values(), list(range(1, len(model.spec.classes))))
        own = {key: quality(value, truth.reshape(value.shape), instances=instances) for key, value in labels.items()}
        if compared is None or None in own.values():
            continue
        agreements.append(compared)
        losses.append(own["exact"] - own["auto"])
        speeds.append(float(found[1]) if (found := re.search(r": ([\d.]+) times", settings["precision_reason"])) else 1.0)
    if not agreements:
        print(f"{name}: it finds nothing in these images, so there is nothing to compare", flush=True)
        return False
    least = 0.99 if instances else 0.995
    print(f"{name} on {len(agreements)} images: ways {ways}")
    print(f"  agreement mean {statistics.mean(agreements):.4f}, lowest {min(agreements):.4f} (at least {least} is asked for)")
    print(f"  loss mean {statistics.mean(losses):+.4f}, largest {max(losses):+.4f} (at most 0.001 in the mean)")
    print(f"  one tile is {statistics.median(speeds):.1f} times as fast as in exact mode (processor time)", flush=True)
    return statistics.mean(agreements) >= least and statistics.mean(losses) <= 0.001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, nargs="?", help="without it nothing is measured")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--packages", type=Path, help="folder of more models, whose names end with 2d or 3d")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.data is None:
        return print("No folder of labelled images was given, so nothing is measured.")
    torch.set_num_threads(arguments.threads)
    print(hardware())
    models = dict(SETS)
    for package in sorted(arguments.packages.iterdir()) if arguments.packages else ():
        models[str(package)] = SETS["nuclei-2d" if package.name.endswith("2d") else "hippocampus-3d"]
    held = [compare(name, arguments.data / folder, arguments.images) for name, folder in models.items()]
    if not all(held):
        raise SystemExit("A target is missed.")


if __name__ == "__main__":
    main()
