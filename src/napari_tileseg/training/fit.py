"""``fit``: the training loop, a generator of events that can be stopped and resumed at any step."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_tileseg.engine.allocator import kept_memory
from napari_tileseg.engine.predict import out_of_memory
from napari_tileseg.errors import DeviceMemoryError
from napari_tileseg.training.freezing import set_learning
from napari_tileseg.training.options import FitOptions, learning_rate
from napari_tileseg.training.ranks import ALONE
from napari_tileseg.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from napari_tileseg.training.adversary import Adversary
    from napari_tileseg.training.ranks import Ranks
    from napari_tileseg.training.sampling import Batch

__all__ = ["BatchSplit", "CheckpointSaved", "Epoch", "Finished", "FitEvent", "FitOptions", "Step", "fit", "learning_rate"]


@dataclass(frozen=True)
class Step:
    """A batch was learnt. `loss` is the mean since the last event, `seconds` count from the start, former runs included."""

    step: int
    steps: int
    loss: float
    seconds: float
    parts: dict[str, float] = field(default_factory=dict)
    """Of the loss of this step, by name, where it has several."""


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
    parts: dict[str, float] = field(default_factory=dict)


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
    ranks: Ranks = ALONE,
    adversary: Adversary | None = None,
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
    ranks : Ranks
        The processes that learn together. `batches` gives the part of this one; only the first writes the checkpoint.
    adversary : Adversary, optional
        Whose judgement is added to the loss.

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
    trainer = Trainer(network, loss, options, {} if notes is None else notes, ranks, adversary)
    try:
        with kept_memory():
            yield from _loop(trainer, batches, checkpoint, resume=resume, cancel=cancel, report_every=report_every)
    finally:
        trainer.pool.shutdown()
        torch.set_num_threads(threads)


def _loop(
    trainer: Trainer,
    batches: Callable[[int], Batch],
    checkpoint: Path | None,
    *,
    resume: bool,
    cancel: Callable[[], bool] | None,
    report_every: int,
) -> Iterator[FitEvent]:
    options = trainer.options
    if checkpoint is not None and trainer.ranks.share(resume and checkpoint.is_file()):
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
                yield Step(trainer.step, options.steps, sum(losses) / len(losses), trainer.seconds, dict(trainer.losses))
                losses = []
            due = trainer.step % options.checkpoint_every == 0
            if options.epoch_steps is not None and trainer.step % options.epoch_steps == 0:
                due = True
                mean, each = trainer.epoch_loss()
                yield Epoch(trainer.step, mean, trainer.seconds, trainer.averaged_state(), each)
                set_learning(trainer.network)
                trainer.seconds = time.monotonic() - started
            if checkpoint is not None and due:
                trainer.save(checkpoint)
                yield CheckpointSaved(trainer.step, checkpoint)
            stopped = trainer.ranks.any(cancel is not None and cancel())
        pending.cancel()
    if checkpoint is not None:
        trainer.save(checkpoint)
        yield CheckpointSaved(trainer.step, checkpoint)
    yield Finished(trainer.step, trainer.seconds, trainer.averaged_state(), stopped)


def _made(pending: Future[Batch]) -> Batch:
    try:
        return pending.result()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise DeviceMemoryError("There is no memory to cut the crops of a batch. Choose a smaller batch, or a smaller window.") from error
