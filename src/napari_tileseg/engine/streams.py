"""``Streams``: copies to and from a device beside the network, behind one small interface with a plain form for processors.

What a GPU is told goes into queues, its streams, and is done later: the program goes on at once. ::

    host        fill 2 | fill 3      | fill 4      |         waits for no batch but the one before the last
    copies      up 2   |   up 3      |    up 4     |         beside the network
    network     batch 1      | batch 2      | batch 3        one after the other, in order
    results           down, row by row, in a thread and a stream of their own

`Direct` does everything at once, as processors do, without a copy that a view can serve.
"""

from __future__ import annotations

import math
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

__all__ = ["Cuda", "Direct", "Mark", "Streams", "streams_of"]


class Mark(Protocol):
    """A place in the queue of the network."""

    def synchronize(self) -> Any:
        """Wait until the device has come this far."""
        ...


class Streams(Protocol):
    """How one run speaks with a device."""

    @property
    def depth(self) -> int:
        """Batches that may be under way at once."""
        ...

    @property
    def beside(self) -> bool:
        """Whether results are taken from the device by a thread of their own."""
        ...

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Return memory of the host that is copied from and to without a detour."""
        ...

    def upload(self, slot: int, batch: torch.Tensor) -> torch.Tensor:
        """Bring a batch to the device; the network, if told now, waits for it.

        Parameters
        ----------
        slot : int
            Below `depth`. What an earlier upload of the slot has returned is overwritten: its batch must be done.
        batch : torch.Tensor
            Of `buffer`; must not be changed before a later mark has been reached.
        """
        ...

    def download(self, values: torch.Tensor, into: torch.Tensor) -> None:
        """Copy into a `buffer` what the device will have computed; it is there when a later mark has been reached."""
        ...

    def mark(self) -> Mark:
        """Return the end of all that the device has been told so far."""
        ...

    def taking(self, mark: Mark, values: torch.Tensor) -> AbstractContextManager[None]:
        """Let the thread that calls this work with finished values after a mark, beside the network."""
        ...


class _Reached:
    """The mark of those who never wait."""

    def synchronize(self) -> None:
        return


class Direct:
    """Everything at once: for processors, and for devices that share the computer's memory.

    Parameters
    ----------
    device : str
        As torch names it.
    """

    depth = 1
    beside = False

    def __init__(self, device: str = "cpu") -> None:
        self._device = device

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    def upload(self, slot: int, batch: torch.Tensor) -> torch.Tensor:
        return batch.to(self._device)

    def download(self, values: torch.Tensor, into: torch.Tensor) -> None:
        into.copy_(values)

    def mark(self) -> Mark:
        return _Reached()

    def taking(self, mark: Mark, values: torch.Tensor) -> AbstractContextManager[None]:
        return nullcontext()


class Cuda:
    """Pinned memory, one stream for copies to the device, one for the network (the current one), one for results.

    Parameters
    ----------
    device : str
        As torch names it, ``"cuda:0"``.
    """

    depth = 2
    beside = True

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._copies: Any = torch.cuda.Stream(self._device)
        self._results: Any = torch.cuda.Stream(self._device)
        self._slots: dict[int, torch.Tensor] = {}

    def buffer(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def upload(self, slot: int, batch: torch.Tensor) -> torch.Tensor:
        current = torch.cuda.current_stream(self._device)
        count = batch.numel()
        if slot not in self._slots or self._slots[slot].numel() < count:
            self._slots[slot] = torch.empty(count, dtype=batch.dtype, device=self._device)
            self._copies.wait_stream(current)  # who had this memory before may still be using it
        target = self._slots[slot][: math.prod(batch.shape)].view(batch.shape)
        with torch.cuda.stream(self._copies):
            target.copy_(batch, non_blocking=True)
        self._slots[slot].record_stream(self._copies)
        current.wait_stream(self._copies)
        return target

    def download(self, values: torch.Tensor, into: torch.Tensor) -> None:
        into.copy_(values, non_blocking=True)

    def mark(self) -> Mark:
        event: Any = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        found: Mark = event
        return found

    @contextmanager
    def taking(self, mark: Mark, values: torch.Tensor) -> Iterator[None]:
        self._results.wait_event(mark)
        if values.is_cuda:
            values.record_stream(self._results)
        with torch.cuda.stream(self._results):
            yield


def streams_of(device: str) -> Streams:
    """Return how to speak with a device."""
    return Cuda(device) if device.startswith("cuda") else Direct(device)
