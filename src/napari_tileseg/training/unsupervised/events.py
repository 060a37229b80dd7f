"""What a training without labels tells while it goes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["CheckpointSaved", "Finished", "Learned", "Samples", "Started", "UnsupervisedEvent"]


@dataclass(frozen=True)
class Started:
    """Images are read; training begins or goes on.

    Parameters
    ----------
    images : int
        Those that are used.
    held_out : tuple of str
        Those that only set the threshold; of a single image, its lowest rows.
    left_out : tuple of (str, str)
        Those that cannot be used, and why.
    stages : tuple of (str, int)
        Names and steps of what follows.
    """

    images: int
    held_out: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    stages: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Learned:
    """Some batches were learnt; `losses` are means since the last event, by name."""

    stage: str
    step: int
    steps: int
    losses: dict[str, float]
    seconds_left: float


@dataclass(frozen=True)
class Samples:
    """What the model makes now: pictures (N, C, Y, X) on [-1, 1]; in `pairs` of what it was given and what came back, or made up."""

    stage: str
    step: int
    images: NDArray[np.float32]
    pairs: bool = True


@dataclass(frozen=True)
class CheckpointSaved:
    """The state was written; the same call goes on from here."""

    stage: str
    step: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """The model is in its place; `stopped` before it had learnt all it should, and the same call goes on."""

    spec: ModelSpec
    path: Path
    seconds: float
    stopped: bool = False


UnsupervisedEvent = Started | Learned | Samples | CheckpointSaved | Finished
