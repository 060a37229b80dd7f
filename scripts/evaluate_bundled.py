"""Print the score tables of the bundled models' cards: ``python scripts/evaluate_bundled.py DATA_DIR [MODEL ...]``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec
from napari_tileseg.training.assess import CHANGES, assess, mean_scores
from napari_tileseg.training.data import list_pairs
from napari_tileseg.training.recipes import RECIPES


def main() -> None:
    """Evaluate model after model on the val parts of its data sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds the data sets")
    parser.add_argument("models", nargs="*", help=f"names of {', '.join(RECIPES)}; all if none is named")
    parser.add_argument("--package", type=Path, help="evaluate this package instead of the bundled one (with one model named)")
    parser.add_argument("--each", action="store_true", help="also print the scores of every image")
    parser.add_argument("--as-it-is", action="store_true", help="leave out inverted and grey images")
    parser.add_argument("--options", default="{}", help='options of the run as JSON, say {"tta": true}')
    parser.add_argument("--threads", type=int, help="threads of torch")
    arguments = parser.parse_intermixed_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    for name in arguments.models or RECIPES:
        table(name, arguments)


def table(name: str, arguments: argparse.Namespace) -> None:
    """Print the scores of one model."""
    ref = str(arguments.package or name)
    spec = find_spec(ref)
    predictor = load_model(ref, device="cpu")
    options = SegmentOptions.parse(**{"device": "cpu", **json.loads(arguments.options)})
    measure = ["AP at 0.5"] if spec.output == "instances" else [f"Dice {label}" for label in spec.foreground_classes]
    print(f"# {spec.label}, weights {spec.weights_sha256[:12]}: {', '.join(measure)}; options {arguments.options}")
    for folder in RECIPES[name].folders:
        pairs = list_pairs(arguments.data / folder, "val")
        changes = list(CHANGES) if spec.spatial_ndim == 2 and not arguments.as_it_is else ["as it is"]
        for change in changes:
            scores = list(assess(predictor, pairs, change=CHANGES[change], options=options))
            for group, (count, values) in mean_scores(scores).items():
                print(f"{folder} | {change} | {group} ({count}) | {' | '.join(f'{value:.4f}' for value in values)}", flush=True)
            if arguments.each and change == "as it is":
                for score in scores:
                    print(f"  {score.name} {' '.join(f'{value:.4f}' for value in score.values)}")


if __name__ == "__main__":
    main()
