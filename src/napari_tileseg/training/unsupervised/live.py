"""``train_live`` and ``preview_live``: a training without labels for somebody who looks on, with the events and turns of any training."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.io import read_volume
from napari_tileseg.io.output import put_in_place
from napari_tileseg.training.colours import colours_last
from napari_tileseg.training.events import Noted, SamplesMade, StepEnded, TrainingEnded, TrainingStarted
from napari_tileseg.training.unsupervised.events import Finished, Learned, Samples, Started
from napari_tileseg.training.unsupervised.images import channels_of, fitting_images, read_images, read_masks
from napari_tileseg.training.unsupervised.train import stages_of, train_unsupervised, unfinished_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.events import TrainEvent
    from napari_tileseg.training.unsupervised.config import UnsupervisedConfig
    from napari_tileseg.training.unsupervised.events import UnsupervisedEvent
    from napari_tileseg.volume import Volume

__all__ = ["preview_live", "train_live"]

_TURN = 0.05
"""Seconds between two looks whether a pause is over."""


def train_live(
    config: UnsupervisedConfig,
    data: Sequence[tuple[Any, Any]] | None = None,
    *,
    on_event: Callable[[TrainEvent], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    paused: Callable[[], bool] | None = None,
    resume: bool = True,
    overwrite: bool = False,
    views: Path | None = None,
) -> ModelSpec:
    """Train without labels as `train_unsupervised` does, telling what `train` tells; stopped, it keeps what was learnt until then.

    Parameters
    ----------
    config : UnsupervisedConfig
    data : sequence of (path, path)
        Images, and their masks or nothing, instead of the config's folders.
    on_event, cancel, paused, resume, overwrite
        As of `train`.
    views : Path, optional
        Folder for what the model makes meanwhile.

    Returns
    -------
    ModelSpec

    Raises
    ------
    InputError, OptionsError, OutputError, RunError
        As of `train_unsupervised`.
    """
    waiting, stopping = paused or (lambda: False), cancel or (lambda: False)

    def stop() -> bool:
        while waiting() and not stopping():
            time.sleep(_TURN)
        return stopping()

    volumes, masks = _opened(data)
    told = _Told(config, on_event or (lambda event: None), views)
    return train_unsupervised(
        config, volumes=volumes, masks=masks, resume=resume, overwrite=overwrite, keep=True, on_event=told, cancel=stop
    )


def preview_live(
    config: UnsupervisedConfig, data: Sequence[tuple[Any, Any]] | None = None, *, cancel: Callable[[], bool] = lambda: False
) -> TrainingStarted:
    """Return what `train_live` would begin with; no pixel is read and nothing is written.

    Parameters
    ----------
    config, data, cancel
        As of `train_live`.

    Raises
    ------
    InputError, OptionsError, OutputError
        As of `train_unsupervised`.
    """
    place = config.place
    if place.exists() and not unfinished_file(place).is_file():
        raise OutputError(f'There is a model "{place.name}" already. Choose another name.')
    volumes, masks = _opened(data)
    left_out: tuple[tuple[str, str], ...] = ()
    if volumes is None:
        paths, volumes, left_out = read_images(config)
        masks = read_masks(config, paths) if config.labels else None
    fitting, small = fitting_images(volumes, config)
    names = channels_of(volumes)
    used = [volumes[index] for index in fitting]
    held = 0 if masks is not None else min(max(1, round(config.held_out * len(used))), len(used) - 1)
    lines = (_counted(len(used), held, paired=masks is not None), _sizes(used, names))
    return TrainingStarted(len(used) - held, held, lines, _complaints(left_out + small), _settings(config), 0)


class _Told:
    """Passes the events of a training without labels on, in the words of all trainings."""

    def __init__(self, config: UnsupervisedConfig, tell: Callable[[TrainEvent], None], views: Path | None) -> None:
        self._config, self._tell, self._views = config, tell, views
        self._stages = stages_of(config)
        self._began = time.monotonic()

    def __call__(self, event: UnsupervisedEvent) -> None:
        match event:
            case Started(images, held_out, left_out):
                held = len(held_out) if len(held_out) < images else 0  # of a single image some rows are held out
                lines = (_counted(images, held, paired=bool(self._config.labels)),)
                self._tell(TrainingStarted(images - held, held, lines, _complaints(left_out), _settings(self._config), 0))
                for sentence in _complaints(left_out):
                    self._tell(Noted(sentence))
            case Learned():
                self._tell(self._step(event))
            case Samples(stage, step, images, pairs) if self._views is not None:
                path = self._views / "samples.npy"
                with put_in_place(path, overwrite=True) as temporary:
                    np.save(temporary, np.clip((images + 1) / 2, 0, 1))
                self._tell(SamplesMade(stage, self._before(stage) + step, os.path.abspath(path), pairs))
            case Finished(_, path, seconds, stopped):
                self._tell(TrainingEnded(str(path), 0, None, "stopped" if stopped else "done", seconds))

    def _before(self, stage: str) -> int:
        """Return the steps of the stages before one."""
        names = [name for name, _ in self._stages]
        return sum(steps for _, steps in self._stages[: names.index(stage)])

    def _step(self, event: Learned) -> StepEnded:
        done, steps = self._before(event.stage) + event.step, sum(count for _, count in self._stages)
        rest = event.steps - event.step
        left = event.seconds_left * (steps - done) / rest if rest else None  # of the next stage nothing is known yet
        left = 0.0 if done == steps else left
        loss = event.losses.get("loss", event.losses.get("generator", 0.0))
        seconds = time.monotonic() - self._began
        return StepEnded(done, steps, loss, self._config.rate, seconds, left, event.stage, dict(event.losses))


def _opened(data: Sequence[tuple[Any, Any]] | None) -> tuple[list[Volume] | None, list[Volume] | None]:
    """Open images that were given as files, and their masks where all have some."""
    if not data:
        return None, None
    volumes = [replace(colours_last(read_volume(image)), name=Path(image).name.removesuffix(".ome.tif"), levels=()) for image, _ in data]
    masks = [read_volume(mask) for _, mask in data if mask]
    return volumes, masks if len(masks) == len(volumes) else None


def _counted(images: int, held: int, *, paired: bool) -> str:
    if paired:
        return f"{images} image{'s' * (images != 1)} with masks to learn from."
    if images == 1:
        return "1 image to learn from; its lowest rows are held out to set the threshold."
    if not held:
        return f"{images} images to learn from."
    return f"{images - held} image{'s' * (images - held != 1)} to learn from, {held} held out to set the threshold."


def _sizes(volumes: Sequence[Volume], channels: Sequence[str]) -> str:
    """Say how large images are, and what their channels are."""
    grey = sum(volume.sizes.get("C", 1) < len(channels) for volume in volumes)
    mixed = f"; {grey} of the images {'is' if grey == 1 else 'are'} grey, which counts as colour" if grey else ""
    sizes = [(volume.sizes.get("Y", 1), volume.sizes.get("X", 1)) for volume in volumes]
    low, high = min(sizes), max(sizes)
    of = f"{low[0]} x {low[1]}" if low == high else f"{low[0]} x {low[1]} to {high[0]} x {high[1]}"
    return f"{of} pixels, {'one channel' if len(channels) == 1 else f'{len(channels)} channels'}{mixed}."


def _complaints(left_out: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(f"{name} is left out: {reason}" for name, reason in left_out)


def _settings(config: UnsupervisedConfig) -> dict[str, Any]:
    """Return what follows from the config, for fields that were left empty too."""
    settings = config.model_dump(mode="json", exclude={"output", "images", "labels", "kind"})
    encoder = {"encoder_steps": config.encoder_steps or config.steps} if config.adversarial else {}
    return settings | encoder | {"learning_rate": config.rate}
