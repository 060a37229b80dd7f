"""What each of two processes does in `test_ranks_memory`: several short trainings of a network that runs out of memory.

The first argument is a folder; what each process has learnt and told is written there.
"""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_tileseg.errors import DeviceMemoryError
from napari_tileseg.training.adversary import Adversary
from napari_tileseg.training.fit import BatchSplit, FitOptions, Step, fit
from napari_tileseg.training.losses import CrossEntropyDice
from napari_tileseg.training.ranks import Ranks, joined
from napari_tileseg.training.sampling import Batch

CROPS = 8
STEPS = 5
OPTIONS = FitOptions(steps=STEPS, learning_rate=0.05, precision="float32", average=0.5, optimizer="sgd", warmup=0.0)

# Where memory runs out, at which step, and above how many crops of a whole batch.
SCENES: dict[str, tuple[str, int, int]] = {
    "never": ("nowhere", 0, 0),
    "at once": ("forward", 1, 4),
    "on the way back": ("backward", 1, 4),
    "later": ("backward", 3, 2),
    "for any crop": ("backward", 2, 0),
}


class _Heavy(torch.autograd.Function):
    """Nothing at all, but its backward pass may run out of memory."""

    @staticmethod
    def forward(context: Any, value: Tensor, limit: float) -> Tensor:
        context.limit = limit
        return value.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        refuse(gradient, context.limit)
        return gradient, None


class Heavy(nn.Module):
    """Runs out of memory above a number of crops, in either pass."""

    def __init__(self) -> None:
        super().__init__()
        self.where, self.limit = "nowhere", float("inf")

    def forward(self, value: Tensor) -> Tensor:
        if not self.training:
            return value
        if self.where == "forward":
            refuse(value, self.limit)
        found: Tensor = _Heavy.apply(value, self.limit if self.where == "backward" else float("inf"))
        return found


def refuse(value: Tensor, limit: float) -> None:
    if len(value) > limit:
        raise torch.OutOfMemoryError("a test")


def network(seed: int = 0) -> nn.Sequential:
    """Return one that waits for other processes before and after the place where memory runs out."""
    torch.manual_seed(seed)
    first, second = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
    return nn.Sequential(first, nn.BatchNorm2d(6), nn.ReLU(), Heavy(), second, nn.BatchNorm2d(6), nn.Conv2d(6, 2, 1))


def batch(number: int) -> Batch:
    """Squares, brighter than their ground."""
    generator = torch.Generator().manual_seed(number)
    labels = torch.zeros(CROPS, 16, 16, dtype=torch.long)
    for image in labels:
        top, left = torch.randint(0, 10, (2,), generator=generator).tolist()
        image[top : top + 6, left : left + 6] = 1
    image = labels[:, None].float() + 0.2 * torch.randn(CROPS, 1, 16, 16, generator=generator)
    return Batch(image, labels, torch.zeros(CROPS, 0, 16, 16), torch.ones(CROPS))


def part(number: int, ranks: Ranks) -> Batch:
    """Return what a process learns of a batch."""
    whole = batch(number)
    return replace(whole, **{field.name: getattr(whole, field.name)[ranks.rank :: ranks.size] for field in fields(whole)})


def learn(scene: str, ranks: Ranks, victims: set[int]) -> dict[str, Any]:
    """Return what a process has learnt; memory runs out in the processes named."""
    where, step, limit = SCENES[scene]
    made = network()
    heavy = next(layer for layer in made if isinstance(layer, Heavy))
    batches = partial(part, ranks=ranks)
    adversary = Adversary(0.05, "bce", channels=1, classes=2, size=(16, 16), ranks=ranks)
    told: list[Any] = []
    if ranks.rank in victims and step == 1:
        heavy.where, heavy.limit = where, limit / ranks.size
    try:
        for event in fit(made, CrossEntropyDice(), batches, OPTIONS, report_every=1, ranks=ranks, adversary=adversary):
            told.append(event)
            if isinstance(event, Step) and event.step == step - 1 and ranks.rank in victims:
                heavy.where, heavy.limit = where, limit / ranks.size
    except DeviceMemoryError as error:
        return {"error": str(error), "losses": [event.loss for event in told if isinstance(event, Step)]}
    return {
        "state": told[-1].state,
        "losses": [event.loss for event in told if isinstance(event, Step)],
        "splits": [(event.step, event.size * ranks.size) for event in told if isinstance(event, BatchSplit)],
    }


def drop(ranks: Ranks, seed: int) -> dict[str, Any]:
    """Return the weights of a network whose dropout draws at random, and what this process draws next."""
    network(seed)  # as `train` does it: the seed counts for what comes after the first weights too
    made = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(6, 2, 1))
    *_, finished = fit(made, CrossEntropyDice(), partial(part, ranks=ranks), OPTIONS, ranks=ranks)
    return {"state": finished.state, "next": torch.rand(1).item()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined("cpu") as ranks:
        found: dict[str, Any] = {scene: learn(scene, ranks, {1}) for scene in SCENES}
        found["dropout"] = [drop(ranks, seed) for seed in (0, 0, 1)]
        torch.save(found, Path(sys.argv[1]) / f"{ranks.rank}.pt")
