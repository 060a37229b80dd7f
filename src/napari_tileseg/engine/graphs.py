"""``Graphs``: a network recorded once and told to a GPU as one piece, where telling it layer by layer takes longer."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Graphs", "can_record"]

_MOST = 2
"""Sizes of batches that are recorded: whole ones, and what is left at the end of a row. Each holds memory of its own."""

_WARM = 3
"""Calls before a recording: libraries choose how to compute, and allocate, in their first ones."""

_never_waits: WeakSet[Any] = WeakSet()
"""What has been seen to compute without waiting for the GPU, as a recording must."""


def can_record(device: str) -> bool:
    """Say whether a device can be told many things at once."""
    return device.startswith("cuda")


@dataclass(eq=False)
class _Recording:
    """What was recorded, and where it reads and writes.

    Parameters
    ----------
    graph : torch.cuda.CUDAGraph
        Does it again.
    pixels, scores : torch.Tensor
        Its own; overwritten by the next time.
    """

    graph: Any
    pixels: torch.Tensor
    scores: torch.Tensor


class Graphs:
    """A network as CUDA graphs, one for each size of batch.

    Small tiles are computed faster than Python can say what to do with them: the device waits. A graph holds the work of all
    layers, with the memory they need, and one call starts it.

    Parameters
    ----------
    forward : callable
        What to record: takes a batch and returns its scores, always by the same layers. What it would decide by looking at
        values cannot be recorded, and fails.
    """

    def __init__(self, forward: Callable[[torch.Tensor], Any]) -> None:
        self._forward = forward
        self._recordings: dict[tuple[int, ...], _Recording] = {}

    def __call__(self, batch: torch.Tensor) -> Any:
        """Return what the network returns for a batch, shape (N, C, *window), on the device."""
        size = tuple(batch.shape)
        if size not in self._recordings:
            if len(self._recordings) >= _MOST:
                return self._forward(batch)
            with torch.cuda.device(batch.device):  # torch waits for the current device, and would begin to use the first one for that
                self._recordings[size] = self._record(batch)
        recording = self._recordings[size]
        recording.pixels.copy_(batch)
        recording.graph.replay()
        return recording.scores.clone()  # the next batch is computed in the same place

    def _record(self, batch: torch.Tensor) -> _Recording:
        """Let the network run beside everything else, then record it."""
        pixels = batch.clone()
        beside: Any = torch.cuda.Stream(batch.device)
        beside.wait_stream(torch.cuda.current_stream(batch.device))
        with torch.cuda.stream(beside):
            for _ in range(_WARM):
                self._forward(pixels)
            if self._forward not in _never_waits:  # once, before results are fetched, which waits too
                with _refused_to_wait():
                    self._forward(pixels)
                _never_waits.add(self._forward)
        torch.cuda.current_stream(batch.device).wait_stream(beside)
        graph: Any = torch.cuda.CUDAGraph()
        # Other threads may allocate meanwhile: results are fetched beside the network.
        with _kept_stream(batch.device), torch.cuda.graph(graph, stream=beside, capture_error_mode="thread_local"):
            scores = self._forward(pixels)
        if not isinstance(scores, torch.Tensor):
            raise TypeError(f"a network that returns {type(scores).__name__} cannot be recorded")
        return _Recording(graph, pixels, scores)


@contextmanager
def _refused_to_wait() -> Iterator[None]:
    """Let what waits for the GPU fail: in a recording it would fail as well, but leave torch's allocator recording for ever.

    For all threads of the process.
    """
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is a prototype, which nobody here needs to know
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@contextmanager
def _kept_stream(device: torch.device) -> Iterator[None]:
    """Go back to the stream of before where a recording fails: torch then leaves its own the current one."""
    before = torch.cuda.current_stream(device)
    try:
        yield
    except BaseException:
        torch.cuda.set_stream(before)
        raise
