"""``Trainer``: network, optimiser and average; how a batch is learnt, and how all that is saved."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from napari_tileseg.engine.predict import out_of_memory
from napari_tileseg.errors import DeviceMemoryError, ModelError, RunError
from napari_tileseg.io.output import refused
from napari_tileseg.moving import move
from napari_tileseg.training.attempt import Abandoned
from napari_tileseg.training.freezing import set_learning
from napari_tileseg.training.objective import brought
from napari_tileseg.training.options import learning_rate
from napari_tileseg.training.ranks import ALONE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_tileseg.training.adversary import Adversary
    from napari_tileseg.training.options import FitOptions
    from napari_tileseg.training.ranks import Ranks
    from napari_tileseg.training.sampling import Batch

__all__ = ["Trainer", "layout"]


def _mover(decay: float) -> Callable[[Any, Any, Any], None]:
    # Short at first, so that the random initial weights do not linger in the average.
    def move(averages: list[Tensor], current: list[Tensor], count: Tensor | int) -> None:
        seen = int(count)
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, current, 1 - min(decay, (1 + seen) / (10 + seen)))
        else:
            torch._foreach_copy_(averages, current)

    return move


def layout(device: str, ndim: int) -> torch.memory_format:
    """Return how pixels and weights of so many axes lie in memory while a kind of device learns.

    Elsewhere with all channels of a place side by side, which is faster; there Apple's GPUs find wrong gradients of batch normalisation.
    """
    if device == "mps":
        return torch.contiguous_format
    return torch.channels_last if ndim == 4 else torch.channels_last_3d


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


class Trainer:
    """Network, optimiser and average, and how they are saved.

    Parameters
    ----------
    network, loss : torch module
    options : FitOptions
    notes : dict
        What the caller saves with it.
    ranks : Ranks
        The processes that learn together, each a part of every batch.
    adversary : Adversary, optional
        That the network has to deceive after the warm-up, besides what the loss asks for.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: nn.Module,
        options: FitOptions,
        notes: dict[str, Any],
        ranks: Ranks = ALONE,
        adversary: Adversary | None = None,
    ) -> None:
        self.adversary = adversary
        self.losses: dict[str, float] = {}
        self._sums: dict[str, float] = {}
        self.options = options
        self.ranks = ranks
        self.notes = notes
        self.parts = options.workers if options.workers > 1 else options.accumulation
        self._total = 0.0
        self._count = 0
        self.loss = loss
        self.step = 0
        self.seconds = 0.0
        network = ranks.synchronised(network)
        parameters = [p for p in network.parameters() if p.requires_grad]
        self.device = parameters[0].device
        self.format = layout(self.device.type, max(p.ndim for p in parameters))
        self.network = set_learning(network.to(memory_format=self.format))  # type: ignore[call-overload]  # torch's stubs lack it
        self._wrapped: nn.Module | None = None if ranks.size > 1 else self.network
        if not ranks.first:
            torch.manual_seed(torch.initial_seed() + ranks.rank)  # dropout differs between parts of a batch
        self.replicas = [self.network, *(_share(self.network) for _ in range(options.workers - 1))]
        self.pool = ThreadPoolExecutor(max_workers=options.workers, initializer=torch.set_num_threads, initargs=(1,))
        self.average = AveragedModel(network, multi_avg_fn=_mover(options.average), use_buffers=True)
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._measured = [kept for part in network.modules() if isinstance(part, _NormBase) for kept in part.buffers()]
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
        if self.adversary is not None:
            self.losses = self.ranks.mean(self.losses)
            value = self.losses["segmentation"] + self.adversary.weight * self.losses["adversarial"]
        if not math.isfinite(value):
            seen = dict.fromkeys(name for names in self.ranks.gather(batch.names) for name in names)
            names, those = (f" in a batch of {', '.join(seen)}", ", or look for what is wrong with these images") if seen else ("", "")
            raise RunError(f"The loss became {value} at step {self.step + 1}{names}. Begin anew with a lower learning rate{those}.")
        nn.utils.clip_grad_norm_([p for p in self.network.parameters() if p.grad is not None], self.options.clip)
        self.optimizer.step()
        if self.adversary is not None:
            self.adversary.step()
        self.average.update_parameters(self.network)
        self.step += 1
        self._total, self._count = self._total + value, self._count + 1
        for name, part in self.losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + part
        return value

    def epoch_loss(self) -> tuple[float, dict[str, float]]:
        """Return the mean loss since this was asked last, and those of its parts by name, where it has several."""
        count = max(1, self._count)
        mean, parts = self._total / count, {name: total / count for name, total in self._sums.items()}
        self._total, self._count, self._sums = 0.0, 0, {}
        return mean, parts

    def _gradients(self, batch: Batch) -> float:
        """Compute the loss and the gradients of a batch, in as many parts as every device has memory for."""
        attempt = self.ranks.attempt
        while True:
            self._forget()
            attempt.begin()
            measured = [kept.clone() for kept in self._measured]
            try:
                value = self._in_parts(_split(batch, self.parts))
                attempt.meet()  # nobody takes a step that others do not take
                return value
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not (isinstance(error, Abandoned) or out_of_memory(error)):
                    raise
                attempt.give_up()
                if self.parts >= len(batch.image) or len(self.replicas) > 1:
                    shape = " x ".join(map(str, batch.image.shape[2:]))
                    where = self.device if self.ranks.size == 1 else self.device.type  # the same sentence in all processes
                    raise DeviceMemoryError(
                        f"There is no memory on {where} for a single crop of {shape}. Choose a smaller window, or a smaller network."
                    ) from error
            # Outside of the handler, which holds what the failed attempt has taken.
            self.parts = min(len(batch.image), 2 * self.parts)
            self._begin_again()
            for kept, before in zip(self._measured, measured, strict=True):
                kept.copy_(before)

    def _forget(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if self.adversary is not None:
            self.adversary.forget()
            self.losses = {"segmentation": 0.0, "adversarial": 0.0, "discriminator": 0.0}

    def _begin_again(self) -> None:
        """Give back what an attempt has taken; wrapped networks may be in the middle of a backward pass, so they go too."""
        self._forget()
        self._wrapped = None
        if self.adversary is not None:
            self.adversary.begin_again()
        gc.collect()  # else they would still listen for gradients
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def _in_parts(self, parts: list[Batch]) -> float:
        count = sum(len(part.image) for part in parts)
        shares = [len(part.image) / count for part in parts]
        if len(self.replicas) == 1 or len(parts) == 1:
            last = len(parts) - 1
            if self._wrapped is None:
                with self._autocast():  # tried with one crop, in no more memory than it is learnt in
                    self._wrapped = self.ranks.wrapped(self.network, parts[0].image[:1].to(self.device))
            network = self._wrapped
            return sum(
                self._backward(network, part, share, more=number < last)
                for number, (part, share) in enumerate(zip(parts, shares, strict=True))
            )
        value = sum(self.pool.map(self._backward, self.replicas, parts, shares))
        self._gather(len(parts))
        return value

    def _backward(self, replica: nn.Module, batch: Batch, share: float, *, more: bool = False) -> float:
        """Add the gradients of a part of a batch; `more` of them come before other processes are asked for theirs."""
        image = batch.image.to(self.device).contiguous(memory_format=self.format)
        with replica.no_sync() if more and isinstance(replica, DistributedDataParallel) else contextlib.nullcontext():
            with self._autocast():
                scores = replica(image)
            # Few losses are means over crops, so each process computes that of the whole batch. Its own crops have gradients; their
            # sum over the processes is what one process would have found, and torch takes the mean of it.
            value: Tensor = self.loss(self._whole(scores), self._gathered(batch)) * share
            total = value * self.ranks.size
            if self.adversary is not None:
                total = total + self._deceive(image, scores, batch, share)
            total.backward()
        told = float(value.detach())
        if self.adversary is not None:
            self.losses["segmentation"] += told
            labels, maps = (brought(tensor, self.device) for tensor in (batch.labels, batch.maps))
            self.losses["discriminator"] += self.adversary.learn(image, scores, labels, share, maps=maps, more=more)
        return told

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16")

    def _deceive(self, image: Tensor, scores: Tensor, batch: Batch, share: float) -> Tensor:
        assert self.adversary is not None
        if self.progress < self.options.warmup:
            return scores.new_zeros(())
        labels, maps = (brought(tensor, self.device) for tensor in (batch.labels, batch.maps))
        term = self.adversary.term(image, scores, labels, maps) * share
        self.losses["adversarial"] += float(term.detach())
        return self.adversary.weight * term

    def _whole(self, scores: Tensor) -> Tensor:
        return scores if self.ranks.size == 1 else self.ranks.whole(scores if scores.dtype == torch.float64 else scores.float())

    def _gathered(self, batch: Batch) -> Batch:
        if self.ranks.size == 1:
            return batch
        labels, maps, zoom = (self.ranks.whole(tensor.to(self.device)) for tensor in (batch.labels, batch.maps, batch.zoom))
        return replace(batch, labels=labels, maps=maps, zoom=zoom)

    def _gather(self, count: int) -> None:
        for parameter, *others in zip(*(replica.parameters() for replica in self.replicas[:count]), strict=True):
            for other in others:
                if parameter.grad is not None and other.grad is not None:
                    parameter.grad += other.grad
                other.grad = None

    def averaged_state(self) -> dict[str, Tensor]:
        state = {key: value.detach().cpu().contiguous().clone() for key, value in self.average.module.state_dict().items()}
        return self.ranks.share(state)  # what normalisation has measured may differ

    def save(self, path: Path) -> None:
        """Replace the file; the first process does it for all."""
        random = self.ranks.gather(torch.get_rng_state())
        if not self.ranks.first:
            return
        state: dict[str, Any] = {
            "step": self.step,
            "seconds": self.seconds,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": random[0],
            "others": random[1:],
            "threads": torch.get_num_threads(),
            "notes": self.notes,
            "epoch": {"total": self._total, "count": self._count, "sums": self._sums},
            **({} if self.adversary is None else {"adversary": self.adversary.state()}),
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
            move(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise refused(path, error) from error

    def load(self, path: Path) -> None:
        """Go on from the file, which only the first process needs to see."""
        try:
            state = self.ranks.once(lambda: _read(path))
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.adversary is not None:
                self.adversary.load(state["adversary"])
        except ModelError:
            raise
        except Exception as error:
            raise _unusable(path, error) from error
        self.step, self.seconds = int(state["step"]), float(state["seconds"])
        self.notes.update(state.get("notes", {}))
        if "epoch" in state:
            self._total, self._count, self._sums = (state["epoch"][name] for name in ("total", "count", "sums"))
        if "random" in state:
            known = [state["random"], *state.get("others", [])]
            if self.ranks.rank < len(known):
                torch.set_rng_state(known[self.ranks.rank])  # what dropout draws
            torch.set_num_threads(state["threads"])  # another number adds up in another order


def _read(path: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise _unusable(path, error) from error
    return state


def _unusable(path: Path, error: Exception) -> ModelError:
    return ModelError(f"{path} cannot be resumed from ({type(error).__name__}). Delete it to start anew, or give the right folder.")
