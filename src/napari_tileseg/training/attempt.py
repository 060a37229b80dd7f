"""``Attempt``: at learning a part of a batch, by several processes that all leave it as soon as one of them cannot go on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

if TYPE_CHECKING:
    from torch import Tensor
    from torch._C._distributed_c10d import GradBucket
    from torch.distributed import ProcessGroup

__all__ = ["Abandoned", "Attempt"]


class Abandoned(RuntimeError):
    """Another process cannot go on with this attempt, so nobody does."""


class Attempt:
    """Keeps processes from waiting for one that has run out of memory.

    Wherever they are about to exchange something, they first tell each other that they are well. One that is not tells that once,
    wherever it was, and so meets the others where they wait for it; from then on nobody exchanges anything until all begin again.

    Parameters
    ----------
    talk : ProcessGroup, optional
        On the CPU; there is nobody else if None.
    """

    def __init__(self, talk: ProcessGroup | None = None) -> None:
        self._talk = talk
        self.abandoned = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Attempt:
        return self  # the copy of a network belongs to the same attempt

    def begin(self) -> None:
        """Forget the attempt before; all processes do so at the same time."""
        self.abandoned = False

    def meet(self) -> None:
        """Tell the others that this process is well, right before something is exchanged.

        Raises
        ------
        Abandoned
            If one of them is not, now or before.
        """
        if self._talk is not None and not self.abandoned:
            self._tell(well=True)
        if self.abandoned:
            raise Abandoned("Another process cannot go on.")

    def give_up(self) -> None:
        """Tell the others that this process cannot go on."""
        if self._talk is not None and not self.abandoned:
            self._tell(well=False)
        self.abandoned = True

    def _tell(self, *, well: bool) -> None:
        told = torch.tensor([int(not well)])
        dist.all_reduce(told, op=dist.ReduceOp.MAX, group=self._talk)
        self.abandoned = bool(told.item())

    def average(self, bucket: GradBucket) -> torch.futures.Future[Tensor]:
        """Average gradients over all processes, as DistributedDataParallel asks for it; leave them as they are where it is no use."""
        try:
            self.meet()
        except Abandoned:  # torch's code in C++, which asks, would not survive that
            own = bucket.buffer()
            done: torch.futures.Future[Tensor] = torch.futures.Future(devices=[own.device] if own.device.type == "cuda" else None)
            done.set_result(own)
            return done
        return allreduce_hook(None, bucket)  # type: ignore[arg-type]  # None is everybody
