"""``fit``: the training loop, a generator of events that can be stopped and resumed at any step."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from napari_tileseg.errors import DeviceMemoryError, ModelError, OptionsError, RunError
from napari_tileseg.io.output import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_tileseg.training.sampling import Batch

__all__ = ["BatchSplit", "CheckpointSaved", "Epoch", "Finished", "FitEvent", "FitOptions", "Step", "fit", "learning_rate"]


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
class Epoch:
    """An epoch is over, its mean loss is `loss`; the checkpoint is written when the next event is asked for. `state` as of `Finished`."""

    step: int
    loss: float
    seconds: float
    state: dict[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class BatchSplit:
    """The device had no memory for a batch; from now on it is learnt in parts of `size` crops, whose gradients make one step."""

    step: int
    size: int


@dataclass(frozen=True)
class Finished:
    """Training is over. `state` holds the averaged weights, by key, on the CPU."""

    step: int
    seconds: float
    state: dict[str, Tensor]
    cancelled: bool


FitEvent = Step | CheckpointSaved | Epoch | BatchSplit | Finished


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
    notes: dict[str, Any] | None = None,
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
    notes : dict, optional
        Plain values of the caller's that are saved with each checkpoint, and come back when it is resumed from.

    Yields
    ------
    FitEvent
        `Step` every `report_every` steps, `Epoch`, `BatchSplit`, `CheckpointSaved`, and at last `Finished`.

    Raises
    ------
    RunError
        If the loss is no number any more; nothing is learnt of that batch.
    DeviceMemoryError
        If there is no memory for a single crop.
    OutputError
        If the checkpoint cannot be written; the one before is still there.
    """
    threads = torch.get_num_threads()
    trainer = _Trainer(network, loss, options, {} if notes is None else notes)
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
            batch = _made(pending)
            pending = pool.submit(batches, trainer.step + 1)
            parts = trainer.parts
            losses.append(trainer.learn(batch))
            trainer.seconds = time.monotonic() - started
            if trainer.parts != parts:
                yield BatchSplit(trainer.step, -(-len(batch.image) // trainer.parts))
            if trainer.step % report_every == 0:
                yield Step(trainer.step, options.steps, sum(losses) / len(losses), trainer.seconds)
                losses = []
            due = trainer.step % options.checkpoint_every == 0
            if options.epoch_steps is not None and trainer.step % options.epoch_steps == 0:
                due = True
                yield Epoch(trainer.step, trainer.epoch_loss(), trainer.seconds, trainer.averaged_state())
                trainer.network.train()
                trainer.seconds = time.monotonic() - started
            if checkpoint is not None and due:
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


_NO_MEMORY = ("DefaultCPUAllocator", "could not create a primitive", "could not execute a primitive", "could not create a memory")
"""What torch's allocator on the CPU, and oneDNN below it, say when memory runs out; they have no class of their own for that."""


def _means_no_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _made(pending: Future[Batch]) -> Batch:
    try:
        return pending.result()
    except (MemoryError, RuntimeError) as error:
        if not _means_no_memory(error):
            raise
        raise DeviceMemoryError("There is no memory to cut the crops of a batch. Choose a smaller batch, or a smaller window.") from error


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

    def __init__(self, network: nn.Module, loss: nn.Module, options: FitOptions, notes: dict[str, Any]) -> None:
        self.options = options
        self.notes = notes
        self.parts = options.workers if options.workers > 1 else options.accumulation
        self._total = 0.0
        self._count = 0
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
        self.optimizer: torch.optim.Optimizer
        if options.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum, nesterov=options.momentum > 0)
        else:
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
        value = self._gradients(batch)
        if not math.isfinite(value):
            names = f" in a batch of {', '.join(dict.fromkeys(batch.names))}" if batch.names else ""
            raise RunError(
                f"The loss became {value} at step {self.step + 1}{names}. Lower the learning rate and begin anew, or check them."
            )
        nn.utils.clip_grad_norm_([p for p in self.network.parameters() if p.grad is not None], self.options.clip)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        self.step += 1
        self._total, self._count = self._total + value, self._count + 1
        return value

    def epoch_loss(self) -> float:
        """Return the mean loss since this was asked last."""
        mean = self._total / max(1, self._count)
        self._total, self._count = 0.0, 0
        return mean

    def _gradients(self, batch: Batch) -> float:
        """Compute the loss and the gradients of a batch, in as many parts as the device has memory for."""
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                return self._in_parts(_split(batch, self.parts))
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not _means_no_memory(error):
                    raise
                if self.parts >= len(batch.image) or len(self.replicas) > 1:
                    shape = " x ".join(map(str, batch.image.shape[2:]))
                    raise DeviceMemoryError(
                        f"There is no memory on {self.device} for a single crop of {shape}. Choose a smaller window, or a smaller network."
                    ) from error
            # Outside of the handler, which holds what the failed attempt has taken.
            self.parts = min(len(batch.image), 2 * self.parts)
            self.optimizer.zero_grad(set_to_none=True)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _in_parts(self, parts: list[Batch]) -> float:
        count = sum(len(part.image) for part in parts)
        shares = [len(part.image) / count for part in parts]
        if len(self.replicas) == 1 or len(parts) == 1:
            return sum(self._backward(self.network, part, share) for part, share in zip(parts, shares, strict=True))
        value = sum(self.pool.map(self._backward, self.replicas, parts, shares))
        self._gather(len(parts))
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
            "random": torch.get_rng_state(),
            "threads": torch.get_num_threads(),
            "notes": self.notes,
        }
        content = io.BytesIO()
        torch.save(state, content)  # straight to a full disk it would raise what says nothing of disks
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise refused(path, error) from error

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
        self.notes.update(state.get("notes", {}))
        if "random" in state:
            torch.set_rng_state(state["random"].cpu())  # what dropout draws
            torch.set_num_threads(state["threads"])  # another number adds up in another order
