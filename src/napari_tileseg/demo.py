"""``tileseg demo``: the bundled images through the bundled models, with scores against their references."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError, TileSegError
from napari_tileseg.io.samples import SAMPLES, Sample, sample

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_tileseg.engine.protocols import Predictor
    from napari_tileseg.segmentation import Segmentation
    from napari_tileseg.volume import Volume

__all__ = ["Outcome", "gallery_command", "may_show", "run_demo"]

_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")


@dataclass(frozen=True)
class Outcome:
    """What came of one sample.

    Parameters
    ----------
    key, title, model : str
        The sample and the model.
    found, expected : dict of str to int
        Objects, or voxels of each class, in the prediction and in the reference.
    scores : dict of str to float
        ``{"AP at IoU 0.5": ...}`` for objects, Dice for each class else; from 0 to 1.
    seconds : float
        Time of the segmentation, without loading the model.
    labels, overlay : str
        Paths of the files.
    error : str
        What went wrong; empty if nothing did.
    """

    key: str
    title: str
    model: str
    found: dict[str, int] = field(default_factory=dict)
    expected: dict[str, int] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    labels: str = ""
    overlay: str = ""
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return what to print about it."""
        if self.error:
            return [f"{self.title}: {self.error}"]
        scores = ", ".join(f"{name} {value:.3f}" for name, value in self.scores.items())
        kind = "" if len(self.found) == 1 else " voxels"
        found = ", ".join(f"{count} {name}{kind} (reference {self.expected[name]})" for name, count in self.found.items())
        return [
            f"{self.title}, with {self.model}, in {self.seconds:.1f} s",
            f"  found    {found}",
            f"  score    {scores}",
            f"  labels   {self.labels}",
            f"  overlay  {self.overlay}",
        ]


def run_demo(folder: Path, *, say: Callable[[str], object] | None = None) -> list[Outcome]:
    """Segment every sample; write labels and an overlay of each.

    Parameters
    ----------
    folder : Path
        Where the files go; it is made if need be. Files of an earlier demo are replaced.
    say : callable, optional
        Called with each line to print.

    Returns
    -------
    list of Outcome
        One for each sample; a sample that failed does not stop the others.

    Raises
    ------
    OutputError
        If the folder cannot be made.
    """
    say = say or (lambda line: None)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f'The folder "{folder}" could not be made: {error.strerror}. Choose another one with -o.') from error
    loaded: dict[str, Predictor] = {}
    outcomes = []
    began = time.monotonic()
    say("Three images that no bundled model was trained on. For research use; no medical device.")
    for item in SAMPLES:
        try:
            outcome = _run_sample(item, folder, loaded)
        except TileSegError as error:
            outcome = Outcome(item.key, item.title, item.model, error=str(error))
        outcomes.append(outcome)
        say("")
        for line in outcome.lines():
            say(line)
    say("")
    say(f"Done in {time.monotonic() - began:.0f} s. Everything is in {folder}")
    return outcomes


def _run_sample(item: Sample, folder: Path, loaded: dict[str, Predictor]) -> Outcome:
    from napari_tileseg.models.predictor import load_model
    from napari_tileseg.pipeline import save_segmentation, segment

    image, reference = sample(item.key)
    if item.model not in loaded:
        loaded[item.model] = load_model(item.model)
    result = segment(image, loaded[item.model])
    truth = np.asarray(reference.data)
    found, expected, scores = _judge(item, result, truth)
    suffix = ".nii.gz" if image.metadata.get("format") == "nifti" else ".ome.tif"
    labels = save_segmentation(result, folder / f"{item.name}_labels{suffix}", overwrite=True)
    overlay = _overlay(folder / f"{item.name}_overlay.png", image, result, truth, item, scores)
    return Outcome(item.key, item.title, item.model, found, expected, scores, result.seconds, str(labels), str(overlay))


def _judge(item: Sample, result: Segmentation, truth: Any) -> tuple[dict[str, int], dict[str, int], dict[str, float]]:
    """Count objects or voxels in result and reference, and compare them."""
    from napari_tileseg.training.metrics import average_precision, dice

    if not item.classes:
        found = {"objects": int(np.count_nonzero(np.unique(result.labels)))}
        expected = {"objects": int(np.count_nonzero(np.unique(truth)))}
        return found, expected, {"AP at IoU 0.5": float(average_precision(result.labels, truth, (0.5,))[0])}
    numbers = range(1, len(item.classes))
    names = item.classes[1:]
    found = {name: int(np.count_nonzero(result.labels == number)) for name, number in zip(names, numbers, strict=True)}
    expected = {name: int(np.count_nonzero(truth == number)) for name, number in zip(names, numbers, strict=True)}
    values = dice(result.labels, truth, list(numbers))
    return found, expected, {f"Dice {name}": float(value) for name, value in zip(names, values, strict=True)}


def _overlay(path: Path, image: Volume, result: Segmentation, truth: Any, item: Sample, scores: dict[str, float]) -> Path:
    from napari_tileseg.io.overlay import object_panels, plane_panels, write_overlay

    legend: tuple[tuple[str, str], ...] = ()
    if item.classes:
        colors = tuple(result.colors) or item.colors
        rows = plane_panels(image, result.labels, truth, colors, found="Prediction", expected="Reference")
        legend = tuple(zip(item.classes[1:], colors, strict=True))
    else:
        score = ", ".join(f"{name} {value:.2f}" for name, value in scores.items())
        found = int(np.count_nonzero(np.unique(result.labels)))
        expected = int(np.count_nonzero(np.unique(truth)))
        rows = object_panels(
            image, result.labels, truth, found=f"Prediction: {found} objects, {score}", expected=f"Reference: {expected} objects"
        )
    return write_overlay(path, rows, legend=legend, overwrite=True)


def may_show(wanted: bool | None) -> str:
    """Say why napari is not opened; an empty text means that it may be.

    Parameters
    ----------
    wanted : bool or None
        What the user asked for. None: open it where somebody is likely to look, that is not in a pipe and not in CI.
    """
    again = "Open napari, then File > Open Sample > TileSeg, to do this with one click."
    if wanted is False:
        return again
    if wanted is None and (os.environ.get("CI") or not sys.stdout.isatty()):
        return again
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "There is no screen here, so napari was not opened."
    if not any(importlib.util.find_spec(binding) for binding in _BINDINGS):
        return 'napari needs a Qt binding to open a window: pip install "napari-tileseg[all]".'
    return ""


def gallery_command(folder: Path) -> list[str]:
    """Return the command that shows a demo's results; the window is a process of its own, as the model's is."""
    return [sys.executable, "-m", "napari_tileseg.widgets.gallery", str(folder)]
