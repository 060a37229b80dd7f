"""One call of the network, made safe: device, flips, exact arithmetic, checks of what comes back."""

from __future__ import annotations

import math
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from napari_tileseg.engine.backends import AUTOCAST, call, release
from napari_tileseg.engine.convolutions import quick
from napari_tileseg.engine.fallback import missing_operators
from napari_tileseg.engine.uncertainty import disagreement
from napari_tileseg.engine.views import views
from napari_tileseg.errors import DeviceMemoryError, PredictorError, TileSegError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_tileseg.engine.protocols import Predictor
    from napari_tileseg.engine.streams import Mark
    from napari_tileseg.engine.tiles import Tile

__all__ = ["Network", "exact_arithmetic", "largest", "out_of_memory"]

_MEMORY = re.compile(
    r"out of memory|can't allocate memory|not enough memory|alloc_failed|failed to allocate|bad_alloc"
    r"|invalid buffer size"  # Apple's
    r"|could not (create|execute) a primitive(?! descriptor)|could not create a memory",  # oneDNN's; a descriptor: it knows no such thing
    re.IGNORECASE,
)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch (any device) or Python says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Keep float32 what it is: no TF32, no bfloat16 inside products and convolutions; restored at the end."""
    backends: Any = torch.backends
    if hasattr(backends.cuda.matmul, "fp32_precision"):  # torch >= 2.9: reading the older switches can raise there
        owners = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul, backends.mkldnn.conv]
        name, exact = "fp32_precision", "ieee"  # type: str, Any
    else:
        owners, name, exact = [backends.cuda.matmul, backends.cudnn], "allow_tf32", False
    before = [getattr(owner, name) for owner in owners]
    for owner in owners:
        setattr(owner, name, exact)
    try:
        yield
    finally:
        for owner, value in zip(owners, before, strict=True):
            setattr(owner, name, value)


class Network:
    """A predictor whose every answer is checked.

    Parameters
    ----------
    predictor : Predictor
        The model.
    output : tuple of int
        Spatial size that it must return.
    tta : False, "flips", "rotations" or None
        Average over views of each tile, see `views`.
    check : callable
        Called before each forward pass; may raise.
    disagree : bool
        Add one channel to the scores: how far the passes disagree, see `disagreement`.
    """

    def __init__(
        self,
        predictor: Predictor,
        output: tuple[int, ...],
        *,
        tta: str | bool | None = False,
        check: Callable[[], None] = lambda: None,
        disagree: bool = False,
    ) -> None:
        self._predictor = predictor
        self._expected = (len(predictor.spec.score_names), *output)
        members = getattr(predictor, "members", (predictor,))  # of an ensemble: one by one, so that a run can stop between them
        self._passes = [(member, view) for member in members for view in views(tta, predictor.spec)]
        self._disagree = disagree
        self.check = check
        self.fast = False
        """Whether to compute in the faster way that `backend` names."""
        self.backend = AUTOCAST
        self.missing: set[str] = set()
        """Operations that the device has left to the processor."""

    @property
    def passes(self) -> int:
        """Calls of a network for each tile."""
        return len(self._passes)

    def __call__(self, batch: torch.Tensor, tiles: Sequence[Tile]) -> torch.Tensor:
        """Return raw scores.

        Parameters
        ----------
        batch : torch.Tensor of float32, shape (N, C, *window)
            On the CPU.
        tiles : sequence of Tile
            Where each of them lies, for messages.

        Returns
        -------
        torch.Tensor of a floating type, shape (N, K, *output)
            On the predictor's device; K + 1 channels with `disagree`. float32 in exact mode, unless the network itself returns a
            shorter type.

        Raises
        ------
        DeviceMemoryError
            If memory ran out; a smaller batch may help.
        PredictorError
            If the network raises, or returns another shape or NaN.
        """
        scores = self.raw(batch, tiles)
        self.judge(largest(scores), tiles)
        return scores

    def raw(self, batch: torch.Tensor, tiles: Sequence[Tile]) -> torch.Tensor:
        """Return scores that nobody has looked at; a device that works on its own may still be computing them.

        The same as a call otherwise. `judge` has to follow.
        """
        device = self._predictor.device
        with self._told(tiles, batch.shape[2:]), torch.inference_mode(), exact_arithmetic(), missing_operators(device, self.missing):
            return self._average(batch)

    def wait(self, mark: Mark, tiles: Sequence[Tile], window: Sequence[int]) -> None:
        """Wait for what a device computes; what it could not say before, it says now."""
        with self._told(tiles, window):
            mark.synchronize()

    @staticmethod
    def judge(highest: torch.Tensor, tiles: Sequence[Tile]) -> None:
        """Refuse scores that are no numbers.

        Parameters
        ----------
        highest : torch.Tensor of float32, shape (N,)
            Of `largest`.
        tiles : sequence of Tile
            Where each of them lies.

        Raises
        ------
        PredictorError
            With the first of the tiles that has such scores.
        """
        for value, tile in zip(highest.tolist(), tiles, strict=True):
            if math.isnan(value):
                raise PredictorError(
                    f"The network returned NaN on {_place([tile])}. Its weights, or the normalisation, do not fit the image."
                )

    def release(self) -> None:
        """Let recordings of the network go, with the memory that they hold."""
        release(self._predictor)

    @contextmanager
    def _told(self, tiles: Sequence[Tile], window: Sequence[int]) -> Iterator[None]:
        """Say what failed in the words of this program."""
        try:
            yield
        except TileSegError:
            raise
        except Exception as error:
            if out_of_memory(error):
                raise DeviceMemoryError(
                    f"{self._predictor.device} has no memory left for one tile of {_size(window)}. "
                    "Choose a smaller window, or the CPU as the device."
                ) from None  # the traceback would keep the tensors of the failed call alive
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise PredictorError(f"The network failed on {_place(tiles)}: {reason}") from error

    def _average(self, batch: torch.Tensor) -> torch.Tensor:
        batch = batch.to(self._predictor.device, non_blocking=True)
        total: torch.Tensor | None = None
        kept: list[torch.Tensor] = []
        for member, view in self._passes:
            self.check()
            scores = view.back(self._forward(member, view.of(batch)))
            if len(self._passes) == 1:
                return scores
            total = scores.to(torch.float32, copy=True) if total is None else total.add_(scores)
            if self._disagree:
                kept.append(scores.to(torch.float32, copy=True))  # the next pass may use the same memory
        assert total is not None  # there is always the tile as it is
        total.div_(len(self._passes))
        if not self._disagree:
            return total
        apart = [disagreement(passes, self._predictor.spec) for passes in zip(*kept, strict=True)]
        return torch.cat([total, torch.stack(apart)[:, None]], 1)

    def _forward(self, member: Predictor, batch: torch.Tensor) -> torch.Tensor:
        if self.fast:
            scores = call(member, batch, self.backend)
        else:
            with quick(batch):
                scores = member(batch)
        labels = self._predictor.spec.output == "labels"
        if not isinstance(scores, torch.Tensor) or not (scores.is_floating_point() or labels):
            raise TypeError(f"it returned {_kind(scores)} instead of a tensor of {'labels' if labels else 'floating-point scores'}")
        if tuple(scores.shape) != (len(batch), *self._expected):
            raise ValueError(f"it returned scores of shape {tuple(scores.shape)} instead of {(len(batch), *self._expected)}")
        return scores.to(batch.device)


def largest(scores: torch.Tensor) -> torch.Tensor:
    """Return the largest score of each tile, shape (N,), as float32; a single NaN among them makes it NaN, infinity does not."""
    if scores.dtype == torch.float32:
        return scores.amax(tuple(range(1, scores.ndim)))
    return torch.stack([of_tile.max() for of_tile in scores]).to(torch.float32)  # of shorter types twice as fast


def _kind(value: object) -> str:
    return f"a tensor of {str(value.dtype).removeprefix('torch.')}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)


def _place(tiles: Sequence[Tile]) -> str:
    first = ", ".join(f"{start}:{stop}" for start, stop in tiles[0].bounds)
    return f"the tile [{first}]" + (f" or the {len(tiles) - 1} after it" if len(tiles) > 1 else "")
