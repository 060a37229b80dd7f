"""``Trial``: one training on a public data set, judged on that set's own validation part; what the scripts of proof share.

Half-size trials see images averaged over 2 x 2 pixels; their labels are doubled again and scored in full size. What is finished is kept as
one file for each trial, so a script that is called again goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from napari_tileseg.io import read_volume
from napari_tileseg.io.output import put_in_place
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import load_model
from napari_tileseg.pipeline import segment
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.evaluate import compare
from napari_tileseg.training.events import EpochEnded, Noted, TrainingStarted
from napari_tileseg.training.train import train
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SEED = 0
PARTS = ("images", "labels")


@dataclass(frozen=True)
class Trial:
    """A training.

    Parameters
    ----------
    title : str
        As in the table.
    data : str
        Folder of the data set.
    steps : int
    config : dict
        Fields of `TrainConfig`.
    metrics : tuple of str
        Of `napari_tileseg.training.evaluate.METRICS`.
    half : bool
        Whether images are halved along Y and X.
    pattern : str
        Which images of the set take part.
    epochs : int
        In how many parts the steps are divided; a training that was stopped goes on after the last one.
    instances : bool
        Whether objects are compared one by one.
    """

    title: str
    data: str
    steps: int
    config: dict[str, Any]
    metrics: tuple[str, ...] = ("dice", "iou")
    half: bool = False
    pattern: str = "*"
    epochs: int = 2
    instances: bool = False

    @property
    def name(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", f"{self.data}-{self.title}".lower()).strip("-")


def ask(description: str, name: str, **more: str) -> argparse.Namespace | None:
    """Read the command line, begin with the number of threads it says, and return it; None where no data were given.

    Parameters
    ----------
    description : str
    name : str
        Of the folder for results.
    **more : str
        Further options, with what is said of them.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", type=Path, nargs="?", help="folder of the data sets; without it nothing is measured")
    parser.add_argument("-o", "--out", type=Path, default=Path("build") / name)
    parser.add_argument("--threads", type=int, default=1)
    for option, text in more.items():
        parser.add_argument(f"--{option}", default="", help=text)
    arguments = parser.parse_args()
    if arguments.data is None:
        print("Give the folder of the data sets; without it nothing is measured.")
        return None
    torch.set_num_threads(arguments.threads)
    print(machine())
    return arguments


def machine() -> str:
    """Say what all of it runs on."""
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, seed {SEED}"


def learn(trial: Trial, data: Path, out: Path) -> dict[str, Any]:
    """Train, judge and return the row; one that is there already is only read."""
    path = out / "rows" / f"{trial.name}.json"
    if path.is_file():
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return row
    folder = prepared(trial, data, out)
    model = out / "models" / trial.name
    spent = _Spent(out / "models" / f"{trial.name}.spent.json", trial.title)
    if not model.is_dir() or (model.parent / f".{model.name}.training").is_dir():
        config = TrainConfig(
            output=str(model),
            epochs=trial.epochs,
            epoch_steps=trial.steps // trial.epochs,
            patience=0,
            device="cpu",
            seed=SEED,
            val_share=0.0,  # the validation part is looked at once, when all is learnt
            **{part: str(folder / "train" / part) for part in PARTS},
            **trial.config,
        )
        train(config, on_event=spent)
    row = {"title": trial.title, "data": trial.data, "steps": trial.steps, **spent.told}
    row |= {"parameters": sum(value.numel() for value in load_model(str(model), device="cpu").module.parameters())}
    row["scores"] = judge(trial, model, data, folder)
    _write(path, row)
    return row


class _Spent:
    """Adds up what a training takes over all calls that it needs, and says how it goes on."""

    def __init__(self, path: Path, title: str) -> None:
        self.path, self.title = path, title
        self.told: dict[str, Any] = (
            json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"cpu": 0.0, "wall": 0.0, "losses": []}
        )
        self.began = time.process_time(), time.perf_counter()

    def __call__(self, event: Any) -> None:
        if isinstance(event, TrainingStarted):
            for text in (*event.report, *event.warnings) if not self.told["losses"] else ():
                print(f"  {text}", flush=True)
            self.told["images"] = event.train
        elif isinstance(event, Noted):
            print(f"  {self.title}: {event.message}", flush=True)
        elif isinstance(event, EpochEnded):
            now = time.process_time(), time.perf_counter()
            self.told["cpu"] += now[0] - self.began[0]
            self.told["wall"] += now[1] - self.began[1]
            self.began = now
            self.told["losses"].append(event.loss)
            _write(self.path, self.told)
            print(f"  {self.title}: epoch {event.epoch} of {event.epochs}, loss {event.loss:.3f}", flush=True)


def judge(trial: Trial, model: Path, data: Path, prepared: Path) -> dict[str, float]:
    """Score all validation images in full size: the mean over images, and Dice of all pixels together."""
    predictor = load_model(str(model), device="cpu")
    spec = predictor.spec
    rows: list[dict[str, float]] = []
    sums = np.zeros(3)
    for path in sorted((prepared / "val" / "images").iterdir()):
        image = read_volume(path)
        labels = segment(image, predictor, options=SegmentOptions(device="cpu")).labels_volume()
        truth = read_volume(data / trial.data / "val" / "labels" / path.name)
        if trial.half:
            doubled = np.asarray(labels.data).repeat(2, axis=0).repeat(2, axis=1)
            labels = Volume(doubled[tuple(slice(side) for side in truth.shape)], truth.axes)
        expected = np.asarray(truth.data)
        found = np.asarray(labels.data)
        here, there = (labels.with_data(found), truth.with_data(np.rint(expected).astype(np.int32)))
        kind: Any = "objects" if trial.instances else "classes"
        rows.append(compare(here, there, metrics=trial.metrics, kind=kind, classes=() if trial.instances else spec.classes)[0])
        sums += [((found > 0) & (expected > 0)).sum(), (found > 0).sum(), (expected > 0).sum()]
    names = dict.fromkeys(name for row in rows for name in row)
    means = {name: float(np.nanmean([row.get(name, np.nan) for row in rows])) for name in names}
    return {**means, "dice of all pixels": float(2 * sums[0] / (sums[1] + sums[2]))}


def prepared(trial: Trial, data: Path, out: Path) -> Path:
    """Return a folder with the images that take part, halved where that is asked for; made only once."""
    whole = data / trial.data
    if not trial.half and trial.pattern == "*":
        return whole
    kept = out / "data" / re.sub(r"[^a-z0-9_]+", "-", f"{trial.data}{'-half' if trial.half else ''}-{trial.pattern}".lower()).strip("-")
    if kept.is_dir():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with put_in_place(kept, overwrite=False) as temporary:
        for side in ("train", "val"):
            for part in PARTS:
                (temporary / side / part).mkdir(parents=True)
                for path in sorted((whole / side / part).glob(trial.pattern)):
                    target = temporary / side / part / path.name
                    if trial.half:
                        Image.fromarray(halved(np.asarray(read_volume(path).data), mean=part == "images")).save(target)
                    else:
                        target.symlink_to(path.resolve())
    return kept


def halved(image: NDArray[np.uint8], *, mean: bool) -> NDArray[np.uint8]:
    """Average (Y, X) or (Y, X, C) over 2 x 2 pixels; of labels, take what most of them say, and 1 where it is even."""
    pad = [(0, image.shape[axis] % 2 if axis < 2 else 0) for axis in range(image.ndim)]
    whole = np.pad(image, pad, mode="edge").astype(float)
    blocks = whole.reshape(whole.shape[0] // 2, 2, whole.shape[1] // 2, 2, *whole.shape[2:]).mean((1, 3))
    return (np.rint(blocks) if mean else blocks >= 0.5).astype(np.uint8)


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return rows as Markdown."""
    lines = [f"| | parameters | steps | CPU s | {' | '.join(columns)} |", f"| --- | ---: | ---: | ---: |{' ---: |' * len(columns)}"]
    for row in rows:
        values = " | ".join(f"{row['scores'].get(name, float('nan')):.3f}" for name in columns)
        lines.append(f"| {row['title']} | {row['parameters']:,} | {row['steps']} | {row['cpu']:.0f} | {values} |")
    return "\n".join(lines)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with put_in_place(path, overwrite=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
