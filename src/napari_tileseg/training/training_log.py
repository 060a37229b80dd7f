"""``TrainingLog``: what a training tells, written for TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.io.overlay import displayed, outlines, rgb
from napari_tileseg.training.event_file import EVENT_FILES, EventFile
from napari_tileseg.training.events import EpochEnded, StepEnded
from napari_tileseg.training.prepare import IGNORED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.training.events import TrainEvent
    from napari_tileseg.volume import Volume

__all__ = ["TrainingLog", "picture_of", "samples_of"]

_PALETTE = ("#ffd60a", "#30d5c8", "#ff6b6b", "#a78bfa", "#7bd88f", "#f59e0b")
"""Colours of classes that have none of their own, and of objects in turn."""

_SIDE = 512
"""Longest side of a picture in pixels."""

_PICTURES = 50
"""About how many epochs of a training are shown."""


class TrainingLog:
    """Numbers in one folder, pictures in another: TensorBoard reads one file of a folder after the other.

    Parameters
    ----------
    folder : Path
    epochs, epoch_steps : int
        Of the training.
    """

    def __init__(self, folder: Path, epochs: int, epoch_steps: int) -> None:
        self._folder = folder
        self._epoch_steps = epoch_steps
        self._every = -(-epochs // _PICTURES)
        self._files: dict[str, EventFile] = {}

    def tell(self, event: TrainEvent) -> None:
        """Write the numbers of an event."""
        match event:
            case StepEnded():
                values = {"steps/loss": event.loss, "steps/rate": event.rate, **_named("steps/", event.losses)}
                self._file("numbers", event.step).numbers(event.step, values)
            case EpochEnded():
                step = event.epoch * self._epoch_steps
                values = {"epochs/loss": event.loss, "epochs/rate": event.rate, **_named("epochs/", event.losses)}
                if event.score is not None:
                    values["epochs/score"] = event.score
                self._file("numbers", step).numbers(step, values | _named("validation/", event.scores))

    def wants(self, epoch: int) -> bool:
        """Return whether an epoch, counted from 1, should be shown."""
        return (epoch - 1) % self._every == 0

    def show(self, epoch: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Write a picture (Y, X, 3)."""
        step = epoch * self._epoch_steps
        self._file("pictures", step).picture(step, name, pixels)

    def numbers(self) -> dict[str, bytes]:
        """Return the files of numbers, by name; there is no picture of anybody's image in them."""
        return {path.name: path.read_bytes() for path in sorted((self._folder / "numbers").glob(EVENT_FILES))}

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files = {}

    def _file(self, name: str, step: int) -> EventFile:
        if name not in self._files:
            self._files[name] = EventFile(self._folder / name, step)
        return self._files[name]


def _named(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {group + name.replace(" ", "_"): value for name, value in values.items()}


def picture_of(image: Volume, truth: NDArray[Any], found: NDArray[Any], colors: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Return an image, the image with its labels and the image with what was found, side by side (Y, X, 3).

    Parameters
    ----------
    image : Volume
    truth, found : ndarray of int
        On the image's grid, without its channels. Of a volume or a film, the plane with the most labels is shown.
    colors : sequence of str
        ``#rrggbb`` of classes from 1 on; some that differ if empty.
    """
    pixels = np.asarray(image.data)
    if "C" in image.axes:
        pixels = np.moveaxis(pixels, image.axes.index("C"), -1)
        pixels = pixels if pixels.shape[-1] == 3 and pixels.dtype == np.uint8 else pixels.mean(-1)
    truth = np.where(truth == IGNORED, 0, truth)
    while truth.ndim > 2:
        place = int((truth > 0).sum(axis=tuple(range(1, truth.ndim))).argmax())
        pixels, truth, found = pixels[place], truth[place], found[place]
    step = max(1, -(-max(truth.shape) // _SIDE))
    pixels, truth, found = pixels[::step, ::step], truth[::step, ::step], found[::step, ::step]
    shown = displayed(pixels)
    return np.concatenate([shown, _outlined(shown, truth, colors), _outlined(shown, found, colors)], axis=1)


def _outlined(shown: NDArray[np.uint8], labels: NDArray[Any], colors: Sequence[str]) -> NDArray[np.uint8]:
    palette = np.array([rgb(color) for color in colors or _PALETTE], np.uint8)
    drawn, lines = shown.copy(), outlines(labels, width=1)
    drawn[lines] = palette[(labels[lines] - 1).astype(np.int64) % len(palette)]
    return drawn


def samples_of(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return pictures (N, C, Y, X) on [-1, 1] as one (Y, X, 3), side by side; other than three channels become grey."""
    bytes_ = ((np.clip(images, -1, 1) + 1) * 127.5).round().astype(np.uint8)
    if bytes_.shape[1] != 3:
        bytes_ = np.repeat(bytes_.mean(axis=1, keepdims=True).astype(np.uint8), 3, axis=1)
    row: NDArray[np.uint8] = np.concatenate(list(np.moveaxis(bytes_, 1, -1)), axis=1)
    return row
