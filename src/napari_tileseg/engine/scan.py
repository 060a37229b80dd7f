"""``Turn``: the engine scans along another axis than the first one, through views at its border.

The loop only ever goes down the first axis, and what it holds is as large as a window is deep and as the other axes are long.
So a long image is scanned along its longest axis: source, sink, options and scores are seen turned, the network is not. ::

    image (Z, Y, X)                         what the loop sees: (X, Z, Y)
                    Turn(2, 3).source  -->  pixels
    labels          <--  Turn(2, 3).sink    finished slabs
    network(Z, Y, X)  <-->  Turn(2, 3).predictor  <-->  tiles and scores
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from napari_tileseg.engine.memory import estimate
from napari_tileseg.engine.recipe import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from napari_tileseg.engine.decoders import ObjectDecoder
    from napari_tileseg.engine.protocols import Predictor, Sink, Source
    from napari_tileseg.engine.tiles import TilePlan
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["BUDGET", "Turn", "plan_scan"]

BUDGET = 1 << 29
"""Bytes that the engine may hold before it looks for a better axis; the same on every computer, so that labels are too."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Turn:
    """One order of the axes of space: the axis of the scan first, the others as they are.

    Parameters
    ----------
    axis : int
        Along which the scan goes, counted among the axes of space.
    ndim : int
        Number of axes of space.
    """

    axis: int
    ndim: int

    @property
    def order(self) -> tuple[int, ...]:
        """For each axis that the loop sees the axis of the image."""
        return (self.axis, *(axis for axis in range(self.ndim) if axis != self.axis))

    @property
    def inverse(self) -> tuple[int, ...]:
        """For each axis of the image the axis that the loop sees."""
        return tuple(self.order.index(axis) for axis in range(self.ndim))

    def forth(self, values: Sequence[_T]) -> tuple[_T, ...]:
        """Put what belongs to the image's axes into the order of the loop."""
        return tuple(values[axis] for axis in self.order)

    def back(self, values: Sequence[_T]) -> tuple[_T, ...]:
        """Undo `forth`."""
        return tuple(values[axis] for axis in self.inverse)

    def source(self, source: Source) -> Source:
        """Return a view of the image."""
        return _TurnedSource(source, self) if self.axis else source

    def sink(self, sink: Sink) -> Sink:
        """Return what takes the loop's slabs and puts them into a sink of the image."""
        return _TurnedSink(sink, self) if self.axis else sink

    def predictor(self, predictor: Predictor) -> Predictor:
        """Return the model as the loop sees it; the network itself gets its own orientation."""
        return _TurnedPredictor(predictor, self) if self.axis else predictor

    def options(self, options: SegmentOptions) -> SegmentOptions:
        """Return options whose window is in the order of the loop."""
        if not self.axis or options.window is None or len(options.window) != self.ndim:
            return options
        return options.model_copy(update={"window": self.forth(options.window)})

    def spec(self, spec: ModelSpec) -> ModelSpec:
        """Return a card whose sizes are in the order of the loop."""
        if not self.axis:
            return spec
        sizes = {name: getattr(spec, name) for name in ("window", "spacing", "zoom", "output_offset")}
        turned: dict[str, Any] = {name: self.forth(value) for name, value in sizes.items() if value is not None}
        turned["multiple_of"] = self.forth(spec.multiples)
        return spec.model_copy(update={**turned, "axes": "C" + "".join(self.forth(spec.spatial_axes))})

    def decoder(self, decoder: ObjectDecoder) -> ObjectDecoder:
        """Return a decoder of the loop's scores that itself sees them in the image's orientation."""
        return _TurnedDecoder(decoder, self) if self.axis else decoder


def plan_scan(shape: tuple[int, ...], spec: ModelSpec, options: SegmentOptions, *, restored: bool = False) -> tuple[Turn, TilePlan]:
    """Choose the axis of the scan, and lay the tiles in its order.

    The first axis, unless what the engine holds would exceed the memory limit (512 MB if none is set) and the longest axis needs
    less. Nothing but sizes counts.

    Parameters
    ----------
    shape : tuple of int
        Axes of space on the model's grid.
    spec : ModelSpec
        The model.
    options : SegmentOptions
        Window, overlap and memory limit.
    restored : bool
        Whether scores are brought to the image's grid, for which whole rows of them are needed.
    """

    def planned(axis: int) -> tuple[int, Turn, TilePlan]:
        turn = Turn(axis, len(shape))
        plan = resolve(turn.spec(spec), turn.options(options)).plan(turn.forth(shape))
        needs = estimate(plan, spec, scores=restored or options.scores or bool(options.uncertainty))
        return needs.device_bytes + needs.host_bytes, turn, plan

    first = planned(0)
    longest = shape.index(max(shape))
    if first[0] > min(BUDGET, options.memory_limit or BUDGET) and longest:
        other = planned(longest)
        if other[0] < first[0]:
            return other[1:]
    return first[1:]


@dataclass(frozen=True)
class _TurnedSource:
    inner: Source
    turn: Turn

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.inner.shape[0], *self.turn.forth(self.inner.shape[1:]))

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        return self.inner.read(self.turn.back(region)).transpose(0, *(1 + axis for axis in self.turn.order))


@dataclass(frozen=True)
class _TurnedSink:
    inner: Sink
    turn: Turn

    def write(self, region: tuple[slice, ...], labels: NDArray[Any]) -> None:
        self.inner.write(self.turn.back(region), self._turned(labels))

    def write_scores(self, region: tuple[slice, ...], scores: NDArray[np.float32]) -> None:
        self.inner.write_scores(self.turn.back(region), self._turned(scores))

    def write_uncertainty(self, region: tuple[slice, ...], values: NDArray[np.float32]) -> None:
        self.inner.write_uncertainty(self.turn.back(region), self._turned(values))

    def _turned(self, values: NDArray[Any]) -> NDArray[Any]:
        leading = values.ndim - self.turn.ndim
        return values.transpose(*range(leading), *(leading + axis for axis in self.turn.inverse))


class _TurnedPredictor:
    def __init__(self, inner: Predictor, turn: Turn) -> None:
        self.inner, self._turn = inner, turn
        self.spec = turn.spec(inner.spec)
        if members := getattr(inner, "members", ()):  # of an ensemble: they are called one by one
            self.members = tuple(_TurnedPredictor(member, turn) for member in members)

    @property
    def device(self) -> str:
        return self.inner.device

    def __call__(self, batch: torch.Tensor, /) -> Any:
        return self.through(self.inner, batch)

    def through(self, network: Callable[[torch.Tensor], Any], batch: torch.Tensor) -> Any:
        """Call something else on tiles as `inner` would see them, and turn what it returns back."""
        # The network gets memory in its usual order: kernels are chosen, and round, by that.
        scores = network(batch.permute(0, 1, *(2 + axis for axis in self._turn.inverse)).contiguous())
        if not hasattr(scores, "permute") or scores.ndim != batch.ndim:
            return scores  # the loop says what is wrong with it
        return scores.permute(0, 1, *(2 + axis for axis in self._turn.order))


class _TurnedDecoder:
    def __init__(self, inner: ObjectDecoder, turn: Turn) -> None:
        self._inner = inner
        self._forth, self._back = turn.order, turn.inverse
        self.placed = getattr(inner, "placed", False)
        if hasattr(inner, "rim"):
            self.rim = self._turned_rim

    def _turned_rim(self, parameters: Mapping[str, float], axis: int, ndim: int, size: int) -> tuple[int, int]:
        rim: tuple[int, int] = self._inner.rim(parameters, self._forth[axis], ndim, size)  # type: ignore[attr-defined]
        return rim

    def foreground(self, scores: NDArray[np.float32], parameters: Mapping[str, float], threshold: float = 0.5) -> NDArray[np.bool_]:
        return self._inner.foreground(self._seen(scores), parameters, threshold).transpose(self._forth)

    def decode(
        self, scores: NDArray[np.float32], parameters: Mapping[str, float], *, threshold: float = 0.5, min_size: float = 0
    ) -> NDArray[Any]:
        turned = {f"{name}_{place}": f"{name}_{axis}" for name in ("origin", "size") for place, axis in enumerate(self._forth)}
        parameters = {turned.get(name, name): value for name, value in parameters.items()}
        return self._inner.decode(self._seen(scores), parameters, threshold=threshold, min_size=min_size).transpose(self._forth)

    def margin(self, parameters: Mapping[str, float]) -> int:
        return self._inner.margin(parameters)

    def _seen(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return scores.transpose(0, *(1 + axis for axis in self._back))
