"""``learn``: the loop that all stages share, and the file from which it goes on."""

from __future__ import annotations

import contextlib
import math
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from napari_tileseg.errors import Cancelled, OutputError, RunError
from napari_tileseg.io.output import put_in_place
from napari_tileseg.training.unsupervised.events import CheckpointSaved, Learned, Samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from napari_tileseg.training.unsupervised.config import UnsupervisedConfig
    from napari_tileseg.training.unsupervised.events import UnsupervisedEvent

__all__ = ["Checkpoint", "Stage", "learn"]

_SHOWN = 8


class Stage(Protocol):
    """What learns for some steps; `paired` says whether its pictures are pairs of what it is given and what comes back."""

    name: str
    paired: bool

    def learn(self, batch: Tensor) -> dict[str, float]:
        """Take one step; return losses by name."""
        ...

    def samples(self, batch: Tensor) -> Tensor:
        """Return pictures to look at."""
        ...

    def state(self) -> dict[str, Any]:
        """Return what is needed to go on, the network's weights aside."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Undo `state`."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A file beside the model that holds the state of its training.

    Parameters
    ----------
    path : Path
    identity : str
        What decides the result: a file of another training is refused.
    """

    path: Path
    identity: str

    def save(self, network: nn.Module, stage: Stage, number: int, step: int) -> None:
        """Replace the file.

        Raises
        ------
        OutputError
            If the system refuses; what was there stays.
        """
        state = {"identity": self.identity, "stage": number, "step": step, "network": network.state_dict(), "of_stage": stage.state()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with put_in_place(self.path, overwrite=True) as temporary:
            torch.save(state, temporary)

    def load(self, device: str) -> dict[str, Any] | None:
        """Return the state; None where there is no file.

        Raises
        ------
        OutputError
            If it cannot be read, or belongs to a training on other images or with other options.
        """
        if not self.path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.path, map_location=device, weights_only=True)
            known = state["identity"]
        except Exception as error:
            raise OutputError(f'"{self.path}" cannot be resumed from ({type(error).__name__}). Delete it to start anew.') from error
        if known != self.identity:
            raise OutputError(
                f'"{self.path}" belongs to a training on other images or with other options. Delete it to start anew, or give these.'
            )
        return state

    def remove(self) -> None:
        """Delete the file."""
        self.path.unlink(missing_ok=True)


def learn(
    network: nn.Module,
    stage: Stage,
    batches: Callable[[int], Tensor],
    config: UnsupervisedConfig,
    *,
    steps: int,
    number: int = 0,
    first: int = 0,
    checkpoint: Checkpoint | None = None,
    cancel: Callable[[], bool] = lambda: False,
) -> Iterator[UnsupervisedEvent]:
    """Train one stage; the caller drives the loop by asking for the next event.

    Parameters
    ----------
    network : torch module
        Holds all weights.
    stage : Stage
        Trains some of them.
    batches : callable
        Gives batch number n. The next one is made in a thread while this one is learnt.
    steps : int
        Of this stage.
    number, first : int
        Place of the stage, and the step at which it begins.
    cancel : callable
        Asked after each step.

    Yields
    ------
    UnsupervisedEvent

    Raises
    ------
    RunError
        If a loss is no number any more; the last checkpoint stays.
    Cancelled
        If somebody asked for it; the state is saved.
    """
    device = next(network.parameters()).device
    began = time.monotonic()
    sums: dict[str, float] = {}
    seen = 0
    with _threads(config), ThreadPoolExecutor(max_workers=1, thread_name_prefix="tiles") as pool:
        pending = pool.submit(batches, first)
        for step in range(first, steps):
            batch = pending.result().to(device)
            if step + 1 < steps:
                pending = pool.submit(batches, step + 1)
            with _drawing(config.seed, number, step, device):
                losses = stage.learn(batch)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            seen += 1
            done = step + 1
            if not all(math.isfinite(value) for value in losses.values()):
                kept = f' What was learnt before is kept in "{checkpoint.path}".' if checkpoint and checkpoint.path.exists() else ""
                raise RunError(f"The loss is no number any more at step {done} of the {stage.name}. Lower the learning rate.{kept}")
            if done % config.report_every == 0 or done == steps:
                left = (time.monotonic() - began) / (done - first) * (steps - done)
                yield Learned(stage.name, done, steps, {name: value / seen for name, value in sums.items()}, left)
                with _drawing(config.seed, number, steps, device):  # the same noise each time, so that one sees it change
                    yield Samples(stage.name, done, stage.samples(batch[:_SHOWN]).float().cpu().numpy(), stage.paired)
                sums, seen = {}, 0
            stopped = cancel()
            if checkpoint is not None and (stopped or done % config.checkpoint_every == 0 or done == steps):
                checkpoint.save(network, stage, number, done)
                yield CheckpointSaved(stage.name, done, checkpoint.path)
            if stopped:
                where = " Start it again to go on." if checkpoint is not None else ""
                raise Cancelled(f"The training was stopped after {done} of {steps} steps of the {stage.name}.{where}")


@contextlib.contextmanager
def _threads(config: UnsupervisedConfig) -> Iterator[None]:
    """Use one thread for all networks but DCGAN: they are so small that threads wait for each other longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(before if config.network == "dcgan" else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _drawing(seed: int, stage: int, step: int, device: torch.device) -> Iterator[None]:
    """Make what is drawn depend on the step alone, so that a training that goes on draws what it would have drawn."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(int(np.random.SeedSequence([seed, stage, step]).generate_state(1)[0]))
        yield
