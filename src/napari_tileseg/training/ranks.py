"""``Ranks``: the processes that learn one network together, as ``torchrun`` starts them; or a single one, which waits for nobody."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from napari_tileseg.errors import OptionsError, RunError, TileSegError
from napari_tileseg.models.predictor import pick_device
from napari_tileseg.training.attempt import Attempt
from napari_tileseg.training.shared_normalization import share_normalization, watch_normalization

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch.distributed import ProcessGroup

__all__ = ["ALONE", "Ranks", "joined", "launched"]

T = TypeVar("T")

_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
"""As torch calls it from 2.13 on, and before."""

_PATIENCE = timedelta(days=1)
"""How long processes wait for one that validates or writes; ``torchrun`` ends all of them as soon as one is gone."""

_LOST = "Another process of this training has ended, so this one ends too. The same command goes on from the last checkpoint."


@dataclass(frozen=True)
class Ranks:
    """All processes do the same; what only one may do, the first does. Without arguments: the only one.

    Parameters
    ----------
    rank, size : int
        Which of how many.
    local_rank, local_size : int
        The same on this computer.
    talk : ProcessGroup, optional
        For plain values, on the CPU.
    attempt : Attempt
        At learning the part of a batch that is at hand.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    talk: ProcessGroup | None = None
    attempt: Attempt = field(default_factory=Attempt)

    @property
    def first(self) -> bool:
        """Whether this process writes and tells."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Return the plain value of every process, in their order."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.talk)
        return found

    def share(self, value: T) -> T:
        """Return the plain value of the first process."""
        if self.size == 1:
            return value
        box = [value if self.first else None]
        dist.broadcast_object_list(box, src=0, group=self.talk)
        found: Any = box[0]
        return found  # type: ignore[no-any-return]

    def any(self, wish: bool) -> bool:
        """Return whether any process wishes it."""
        if self.size == 1:
            return wish
        asked = torch.tensor([int(wish)])
        dist.all_reduce(asked, op=dist.ReduceOp.MAX, group=self.talk)
        return bool(asked.item())

    def once(self, work: Callable[[], T]) -> T:
        """Let the first process work; all return what it returns, or raise what it raises."""
        if self.size == 1:
            return work()
        value, error = None, None
        if self.first:
            try:
                value = work()
            except TileSegError as caught:
                error = caught
        told = self.share((value, None if error is None else (type(error), str(error))))
        if error is not None:
            raise error
        if told[1] is not None:
            kind, message = told[1]
            raise kind(message)
        result: Any = told[0]
        return result  # type: ignore[no-any-return]

    def part_of(self, items: Sequence[T]) -> Sequence[T]:
        """Return every n-th of some items, so that all processes together have each once."""
        return items[self.rank :: self.size]

    def crops(self, batch: int, accumulation: int) -> list[int]:
        """Return the numbers of the crops that this process learns of each batch, `accumulation` of which make one step.

        Raises
        ------
        OptionsError
            If a batch cannot be divided evenly.
        """
        if batch % self.size:
            raise OptionsError(
                f"A batch of {batch} crops cannot be divided evenly over {self.size} processes. Give --batch a multiple of {self.size}."
            )
        # In turn, so that halves of what each has are together the halves of the batch.
        return list(range(self.rank, batch * accumulation, self.size))

    def whole(self, part: Tensor) -> Tensor:
        """Return the parts (B, ...) of all processes in a row; gradients flow into the own part only.

        Raises
        ------
        Abandoned
            If one of them cannot go on.
        """
        if self.size == 1:
            return part
        own = part.detach().contiguous()
        found = own.new_empty((self.size * len(own), *own.shape[1:]))
        self.attempt.meet()  # what takes memory comes before
        _gather(found, own)
        first = self.rank * len(own)
        return torch.cat([found[:first], part, found[first + len(own) :]])

    def wrapped(self, network: nn.Module, image: Tensor | None = None) -> nn.Module:
        """Return the network so that backward passes average its gradients over all processes; its weights become the first one's.

        What comes back is of no use any more once an attempt was abandoned.

        Parameters
        ----------
        network : torch module
        image : Tensor, shape (B, C, *spatial), optional
            Something to try it with, where there may be weights that no score depends on.

        Raises
        ------
        Abandoned
            If one of the processes cannot go on.
        """
        if self.size == 1:
            return network
        # With idle weights each backward pass would look for them and talk about it unasked, and with buffers each forward pass; these
        # are alike, as normalisation measures over all processes.
        idle = [] if image is None else _idle_weights(network, image)
        left_out = [*idle, *(name for name, _ in network.named_buffers())]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(network, left_out)
        self.attempt.meet()
        made = DistributedDataParallel(network, device_ids=self._places(network))
        made.register_comm_hook(None, lambda state, bucket: self.attempt.average(bucket))
        return made

    def _places(self, network: nn.Module) -> list[int | None] | None:
        device = next(network.parameters()).device
        return [device.index] if device.type == "cuda" else None

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Return the mean over all processes of each number."""
        if self.size == 1 or not values:
            return values
        total = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(total, group=self.talk)
        return dict(zip(values, (total / self.size).tolist(), strict=True))

    def synchronised(self, network: nn.Module) -> nn.Module:
        """Let batch normalisation measure the whole batch."""
        if self.size == 1:
            return network
        if next(network.parameters()).device.type == "cuda":
            return watch_normalization(nn.SyncBatchNorm.convert_sync_batchnorm(network), self.attempt)
        return share_normalization(network, self.attempt)

    def device(self, choice: str) -> str:
        """Return the device of this process.

        Raises
        ------
        OptionsError
            If there is none for it.
        """
        return pick_device(choice) if self.size == 1 else _device(choice, self.local_rank, self.local_size)


ALONE = Ranks()
"""The only process."""


def launched() -> int:
    """Return how many processes ``torchrun`` has started, this one among them; 1 where nobody started it so."""
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return int(os.environ["WORLD_SIZE"]) if dist.is_available() and all(os.environ.get(name) for name in names) else 1


@contextlib.contextmanager
def joined(choice: str) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` has started with this one, until the block ends.

    Parameters
    ----------
    choice : str
        The device, as in a config.

    Yields
    ------
    Ranks
        `ALONE` where there are no others.

    Raises
    ------
    OptionsError
        If there are more processes than devices.
    RunError
        If another process is gone. An error that another process has told already has ``told`` set.
    """
    if launched() == 1:
        yield ALONE
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    device = _device(choice, local_rank, local_size)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    store, _, _ = next(rendezvous("env://", rank, size))
    backend = "nccl" if device.startswith("cuda") else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    try:
        talk = dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield Ranks(rank, size, local_rank, local_size, talk, Attempt(talk))
        dist.barrier(talk)  # nobody leaves while another still waits for its answer
    except TileSegError as error:
        error.told = not _is_news(store, error)
        raise
    except RuntimeError as error:
        if not _means_lost(error):
            raise
        lost = RunError(_LOST)
        lost.told = not _is_news(store, lost)
        raise lost from error
    finally:
        dist.destroy_process_group()


def _device(choice: str, local_rank: int, local_size: int) -> str:
    count = torch.cuda.device_count()
    if choice == "cpu" or (choice == "auto" and not count):
        return "cpu"
    if choice not in ("auto", "cuda"):
        raise OptionsError(f'Several processes cannot share the device "{choice}". Use auto, cuda or cpu; each takes a GPU of its own.')
    pick_device(choice)
    if local_size > count:
        raise OptionsError(
            f"{local_size} processes were started here, but there are {count} GPUs. Start one for each GPU, or use --device cpu."
        )
    return f"cuda:{local_rank}"


def _idle_weights(network: nn.Module, image: Tensor) -> list[str]:
    cuda = [image.device] if image.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):  # dropout draws nothing that others miss
        tried = copy.deepcopy(network)
        tried(image).sum().backward()
    return [name for name, parameter in tried.named_parameters() if parameter.requires_grad and parameter.grad is None]


def _is_news(store: Any, error: TileSegError) -> bool:
    """Return whether no other process has told this sentence."""
    try:
        return bool(store.add(f"told {hashlib.sha256(str(error).encode()).hexdigest()}", 1) == 1)
    except RuntimeError:  # the process that keeps the store is gone
        return True


def _means_lost(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower() or "nccl" in str(error).lower()
