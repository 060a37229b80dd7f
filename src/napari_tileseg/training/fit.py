"""``fit``: the training loop, a generator of events that can be stopped and resumed at any step."""

from __future__ import annotations

import copy
import math
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from napari_tileseg.errors import ModelError, OptionsError, RunError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_tileseg.training.sampling import Batch

__all__ = ["CheckpointSaved", "Finished", "FitEvent", "FitOptions", "Step", "fit", "learning_rate"]


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

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise OptionsError(f"steps = {self.steps} is not accepted: give at least 1.")
        if self.precision not in ("bfloat16", "float32"):
            raise OptionsError(f'precision = "{self.precision}" is not accepted: use "bfloat16" or "float32".')


@dataclass(frozen=True)
class Step:
    """A batch was learnt. `loss` is the mean since the last event, `seconds` count from the start, former runs included."""

    step: int
    steps: int
    loss: float
    seconds: float


@dataclass(frozen=True)
class CheckpointSaved:
    """The state was written; a run that is stopped now can go on from here."""

    step: int
    path: Path


@dataclass(frozen=True)
class Finished:
    """Training is over. `state` holds the averaged weights, by key, on the CPU."""

    step: int
    seconds: float
    state: dict[str, Tensor]
    cancelled: bool


FitEvent = Step | CheckpointSaved | Finished


def learning_rate(progress: float, options: FitOptions) -> float:
    """Rate at `progress` in [0, 1]: a linear rise, then half a cosine down to 0."""
    if progress < options.warmup:
        return options.learning_rate * progress / options.warmup
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - options.warmup) / (1 - options.warmup))))


def fit(
    network: nn.Module,
    loss: nn.Module,
    batches: Callable[[int], Batch],
    options: FitOptions,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    cancel: Callable[[], bool] | None = None,
    report_every: int = 50,
) -> Iterator[FitEvent]:
    """Train a network; the caller drives the loop by asking for the next event.

    Parameters
    ----------
    network : torch module
        Trained in place; its averaged weights come with `Finished`.
    loss : torch module
        Called with raw scores and the batch.
    batches : callable
        Gives batch number n. The next one is made in a thread while this one is learnt.
    checkpoint : Path, optional
        File that is replaced every ``options.checkpoint_every`` steps and at the end.
    resume : bool
        Go on from `checkpoint` if it exists.
    cancel : callable, optional
        Asked after each step; the state is saved when it says True.

    Yields
    ------
    FitEvent
        `Step` every `report_every` steps, `CheckpointSaved`, and at last `Finished`.

    Raises
    ------
    RunError
        If the loss is no number any more.
    """
    threads = torch.get_num_threads()
    trainer = _Trainer(network, loss, options)
    try:
        yield from _loop(trainer, batches, checkpoint, resume=resume, cancel=cancel, report_every=report_every)
    finally:
        trainer.pool.shutdown()
        torch.set_num_threads(threads)


def _loop(
    trainer: _Trainer,
    batches: Callable[[int], Batch],
    checkpoint: Path | None,
    *,
    resume: bool,
    cancel: Callable[[], bool] | None,
    report_every: int,
) -> Iterator[FitEvent]:
    options = trainer.options
    if resume and checkpoint is not None and checkpoint.is_file():
        trainer.load(checkpoint)
    started = time.monotonic() - trainer.seconds
    losses: list[float] = []
    stopped = False
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as pool:
        pending: Future[Batch] = pool.submit(batches, trainer.step)
        while trainer.progress < 1 and not stopped:
            batch = pending.result()
            pending = pool.submit(batches, trainer.step + 1)
            losses.append(trainer.learn(batch))
            trainer.seconds = time.monotonic() - started
            if not math.isfinite(losses[-1]):
                raise RunError(
                    f"The loss became {losses[-1]} at step {trainer.step}. Lower the learning rate and resume from the last checkpoint."
                )
            if trainer.step % report_every == 0:
                yield Step(trainer.step, options.steps, sum(losses) / len(losses), trainer.seconds)
                losses = []
            if checkpoint is not None and trainer.step % options.checkpoint_every == 0:
                trainer.save(checkpoint)
                yield CheckpointSaved(trainer.step, checkpoint)
            stopped = cancel is not None and cancel()
        pending.cancel()
    if checkpoint is not None:
        trainer.save(checkpoint)
        yield CheckpointSaved(trainer.step, checkpoint)
    yield Finished(trainer.step, trainer.seconds, trainer.averaged_state(), stopped)


def _mover(decay: float) -> Callable[[Any, Any, Any], None]:
    # Short at first, so that the random initial weights do not linger in the average.
    def move(averages: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        seen = int(count)
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - min(decay, (1 + seen) / (10 + seen)))
        else:
            torch._foreach_copy_(averages, current)

    return move


def _share(network: nn.Module) -> nn.Module:
    """Copy a network so that the weights stay common, but gradients and statistics are its own."""
    replica = copy.deepcopy(network)
    for own, common in zip(replica.parameters(), network.parameters(), strict=True):
        own.data = common.data
    return replica


def _split(batch: Batch, count: int) -> list[Batch]:
    size = -(-len(batch.image) // count)
    bounds = range(0, len(batch.image), size)
    return [replace(batch, **{field.name: getattr(batch, field.name)[low : low + size] for field in fields(batch)}) for low in bounds]


class _Trainer:
    """Network, optimiser and average, and how they are saved."""

    def __init__(self, network: nn.Module, loss: nn.Module, options: FitOptions) -> None:
        self.options = options
        self.loss = loss
        self.step = 0
        self.seconds = 0.0
        parameters = [p for p in network.parameters() if p.requires_grad]
        self.device = parameters[0].device
        self.format = torch.channels_last if max(p.ndim for p in parameters) == 4 else torch.channels_last_3d
        self.network = network.to(memory_format=self.format).train()  # type: ignore[call-overload]  # torch's stubs lack it
        self.replicas = [self.network, *(_share(self.network) for _ in range(options.workers - 1))]
        self.pool = ThreadPoolExecutor(max_workers=options.workers, initializer=torch.set_num_threads, initargs=(1,))
        self.average = AveragedModel(network, multi_avg_fn=_mover(options.average), use_buffers=True)
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=options.learning_rate)

    @property
    def progress(self) -> float:
        """Share of the training that is done, by steps or by the clock, whichever is further."""
        clock = self.seconds / self.options.time_limit if self.options.time_limit else 0.0
        return max(self.step / self.options.steps, clock)

    def learn(self, batch: Batch) -> float:
        rate = learning_rate(self.progress, self.options)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        parts = _split(batch, len(self.replicas))
        shares = [len(part.image) / len(batch.image) for part in parts]
        if len(parts) == 1:
            value = self._backward(self.network, batch, 1.0)
        else:
            value = sum(self.pool.map(self._backward, self.replicas, parts, shares))
            self._gather(len(parts))
        nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        return value

    def _backward(self, replica: nn.Module, batch: Batch, share: float) -> float:
        image = batch.image.to(self.device).contiguous(memory_format=self.format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            scores = replica(image)
        value: Tensor = self.loss(scores, batch) * share
        value.backward()
        return float(value.detach())

    def _gather(self, count: int) -> None:
        for parameter, *others in zip(*(replica.parameters() for replica in self.replicas[:count]), strict=True):
            for other in others:
                if parameter.grad is not None and other.grad is not None:
                    parameter.grad += other.grad
                other.grad = None

    def averaged_state(self) -> dict[str, Tensor]:
        return {key: value.detach().cpu().contiguous().clone() for key, value in self.average.module.state_dict().items()}

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:
            raise ModelError(
                f"{path} cannot be resumed from ({type(error).__name__}). Delete it to start anew, or give the right folder."
            ) from error
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
