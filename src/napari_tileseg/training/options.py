"""``FitOptions``: how a network is trained, and the rate of each of its steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["FitOptions", "learning_rate"]


@dataclass(frozen=True)
class FitOptions:
    """How to train.

    Parameters
    ----------
    steps : int
        Batches to learn from.
    learning_rate : float
        Highest rate; it rises over `warmup` of the steps and falls as a cosine to 0.
    decay : float
        Weight decay of AdamW; biases and normalisation are spared.
    clip : float
        Largest norm of the gradient.
    average : float
        Decay of the exponential moving average of the weights; that average is the result.
    time_limit : float, optional
        Seconds; where it ends before the steps do, the rate falls by the clock, so that the result is an annealed one all the same.
    checkpoint_every : int
        Steps between two checkpoints.
    precision : {"bfloat16", "float32"}
        Of the forward pass.
    seed : int
        Of the initial weights; the sampler has its own.
    workers : int
        Parts of a batch that are learnt at the same time, each by one thread. On a busy CPU this is faster than threads inside each
        operation, which wait for each other hundreds of times in a step. Normalisation then sees one part at a time.
    optimizer : {"adamw", "sgd"}
        SGD has Nesterov's momentum.
    momentum : float
        Of SGD.
    schedule : {"cosine", "polynomial", "one_cycle", "constant"}
        Of the rate, after the warm-up; one_cycle has its own rise, over three tenths of the steps.
    accumulation : int
        Parts of a batch that are learnt one after the other, before one step.
    epoch_steps : int, optional
        Steps after which an `Epoch` is told, and a checkpoint written.
    """

    steps: int
    learning_rate: float = 2e-3
    decay: float = 0.02
    warmup: float = 0.05
    clip: float = 3.0
    average: float = 0.998
    time_limit: float | None = None
    checkpoint_every: int = 500
    precision: str = "bfloat16"
    seed: int = 0
    workers: int = 1
    optimizer: str = "adamw"
    momentum: float = 0.99
    schedule: str = "cosine"
    accumulation: int = 1
    epoch_steps: int | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionsError(f"steps = {self.steps} is not accepted: give at least 1.")
        if self.precision not in ("bfloat16", "float32"):
            raise OptionsError(f'precision = "{self.precision}" is not accepted: use "bfloat16" or "float32".')
        if self.optimizer not in ("adamw", "sgd"):
            raise OptionsError(f'optimizer = "{self.optimizer}" is not accepted: use "adamw" or "sgd".')
        if self.schedule not in _SCHEDULES:
            raise OptionsError(f'schedule = "{self.schedule}" is not accepted: use one of {", ".join(_SCHEDULES)}.')


def learning_rate(progress: float, options: FitOptions) -> float:
    """Rate at `progress` in [0, 1]: a linear rise, then down to 0 as the schedule says."""
    return options.learning_rate * _SCHEDULES[options.schedule](min(1.0, progress), options.warmup)


def _warmed(progress: float, warmup: float, after: Callable[[float], float]) -> float:
    return progress / warmup if progress < warmup else after((progress - warmup) / (1 - warmup))


def _one_cycle(progress: float, warmup: float) -> float:
    # Smith and Topin, arXiv:1708.07120, with cosines for lines, as is usual.
    if progress < 0.3:
        return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * progress / 0.3))
    return 0.5 * (1 + math.cos(math.pi * (progress - 0.3) / 0.7))


_SCHEDULES: dict[str, Callable[[float, float], float]] = {
    "cosine": lambda progress, warmup: _warmed(progress, warmup, lambda rest: 0.5 * (1 + math.cos(math.pi * rest))),
    "polynomial": lambda progress, warmup: _warmed(progress, warmup, lambda rest: (1 - rest) ** 0.9),
    "one_cycle": _one_cycle,
    "constant": lambda progress, warmup: _warmed(progress, warmup, lambda rest: 1.0),
}
