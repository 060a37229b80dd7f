"""Normalisation: one streamed pass measures the image, then every tile is scaled by the same numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.histogram import Histogram
from napari_tileseg.engine.steps import NOTHING, StepMeter, take_steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.models.spec import Normalization

__all__ = ["Accumulator", "Statistics", "measure", "measure_channels", "measure_passes", "normalize"]


@dataclass(frozen=True)
class Statistics:
    """What normalisation needs to know of an image; small enough for a journal and a provenance.

    ``normalised = (x - offset) / scale``, per channel (one number for all channels if the normalisation is joint),
    then ``1 - normalised`` if `inverted`.

    Parameters
    ----------
    offset, scale : tuple of float
        In the image's intensities; `scale` is 1 where the image is constant.
    inverted : bool
        The image shows dark objects on bright ground and is turned around.
    nonfinite : int
        Number of values that are NaN or infinite; they count as 0.
    constant : bool
        All finite values are equal.
    steps : tuple of pairs of tuples of float
        For each step of a normalisation ``"steps"`` the two numbers per channel that were measured for it; empty where none were.
    box : tuple of pairs of int
        Start and stop of what is not 0, where the model crops to it: along the planes of one time point (one, where the model sees
        volumes), then along the axes of space. Empty otherwise.
    """

    offset: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    inverted: bool = False
    nonfinite: int = 0
    constant: bool = False
    steps: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    box: tuple[tuple[int, int], ...] = ()

    def of(self, channel: int) -> Statistics:
        """Return those of one channel."""
        return Statistics(self.offset[channel : channel + 1], self.scale[channel : channel + 1])

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able copy."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Statistics:
        """Undo `to_dict`."""
        return cls(**{key: _frozen(value) for key, value in values.items()})


def _frozen(value: Any) -> Any:
    """Return lists, as JSON has them, as tuples."""
    return tuple(_frozen(part) for part in value) if isinstance(value, list | tuple) else value


class Accumulator:
    """Measures an image block by block, in memory that does not depend on its size.

    Parameters
    ----------
    normalization : Normalization
        The model's rule; only what it needs is measured.
    channels : int
        Number of channels C of the blocks.
    dtype : dtype
        Of the image as stored; decides how finely values are counted.
    """

    def __init__(self, normalization: Normalization, channels: int, dtype: np.dtype[Any]) -> None:
        self._rule = normalization
        self._groups = 1 if normalization.joint else channels
        self._dtype = np.dtype(dtype).newbyteorder("=")
        self._count = np.zeros(self._groups)
        self._mean = np.zeros(self._groups)
        self._squares = np.zeros(self._groups)
        self._low = np.full(self._groups, np.inf)
        self._high = np.full(self._groups, -np.inf)
        self._nonfinite = 0
        self._histograms = [Histogram(self._dtype) for _ in range(self._groups)] if normalization.kind == "percentile" else []
        # The brightness of a colour pixel is a mean of channels, hence no integer.
        brightness = self._dtype if channels == 1 else np.dtype(np.float32)
        self._brightness = Histogram(brightness) if normalization.invert == "auto" else None
        # Steps that are measured on the image take this pass, and the first one that is measured on what unmeasured ones make.
        steps = normalization.steps
        self._first = next((index for index, step in enumerate(steps) if step.measured and not step.original), len(steps))
        depends = any(step.measured for step in steps[: self._first])
        taken = [index for index, step in enumerate(steps) if step.measured and (step.original or (index == self._first and not depends))]
        self._meters = {index: StepMeter(steps[index], channels, self._type_before(index)) for index in taken}

    def _type_before(self, index: int) -> np.dtype[Any]:
        return self._dtype if index == 0 or self._rule.steps[index].original else np.dtype(np.float32)

    def add(self, block: NDArray[Any]) -> None:
        """Add a block of intensities, shape (C, ...)."""
        values, bad = _finite(block)
        self._nonfinite += bad
        for group, part in enumerate([values] if self._groups == 1 else values):
            self._add_moments(group, part)
            if self._histograms:
                self._histograms[group].add(part)
        if self._brightness is not None:
            self._brightness.add(values[0] if len(values) == 1 else values.mean(axis=0, dtype=np.float32))
        for index, meter in self._meters.items():
            before = () if self._rule.steps[index].original else self._rule.steps[:index]
            meter.add(take_steps(values, before, [NOTHING] * len(before)) if before else values)

    def _add_moments(self, group: int, part: NDArray[Any]) -> None:
        # Chan's update of mean and squared deviations: exact to rounding for any split into blocks.
        numbers = part.astype(np.float64)
        count, mean = numbers.size, float(numbers.mean())
        delta = mean - self._mean[group]
        total = self._count[group] + count
        self._squares[group] += float(((numbers - mean) ** 2).sum()) + delta**2 * self._count[group] * count / total
        self._mean[group] += delta * count / total
        self._count[group] = total
        self._low[group] = min(self._low[group], float(numbers.min()))
        self._high[group] = max(self._high[group], float(numbers.max()))

    def finish(self) -> Statistics:
        """Return the statistics of everything added so far; of steps, what one pass can tell."""
        offset, scale = self._affine()
        flat = scale <= 0
        scale = np.where(flat, 1.0, scale)
        inverted = False
        if self._brightness is not None:
            inverted = bool((self._brightness.percentile(50) - offset.mean()) / scale.mean() > 0.5)
        return Statistics(
            offset=tuple(float(value) for value in offset),
            scale=tuple(float(value) for value in scale),
            inverted=inverted,
            nonfinite=self._nonfinite,
            constant=bool((self._count > 0).all() and (self._low == self._high).all()),
            steps=tuple(self._meters[index].finish() if index in self._meters else NOTHING for index in range(len(self._rule.steps))),
        )

    def _affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rule = self._rule
        if rule.kind == "percentile":
            lower = np.array([histogram.percentile(rule.lower) for histogram in self._histograms])
            upper = np.array([histogram.percentile(rule.upper) for histogram in self._histograms])
            # Sparse images (a few bright spots) have equal percentiles: their whole range is used instead.
            equal = upper <= lower
            return np.where(equal, self._low, lower), np.where(equal, self._high - self._low, upper - lower)
        if rule.kind == "zscore":
            return self._mean, np.sqrt(self._squares / np.maximum(self._count, 1))
        if rule.kind == "minmax":
            seen = self._count > 0
            return np.where(seen, self._low, 0.0), np.where(seen, self._high - self._low, 1.0)
        if rule.kind == "range":
            return np.full(self._groups, rule.low), np.full(self._groups, rule.high - rule.low)
        return np.zeros(self._groups), np.ones(self._groups)


def measure(blocks: Sequence[NDArray[Any]], normalization: Normalization, channels: int, dtype: np.dtype[Any]) -> Statistics:
    """Measure an image given as blocks of shape (C, ...)."""
    return measure_passes(lambda: blocks, normalization, channels, dtype)


def measure_passes(
    blocks: Callable[[], Iterable[NDArray[Any]]], normalization: Normalization, channels: int, dtype: np.dtype[Any]
) -> Statistics:
    """Measure an image in one pass; steps that depend on measurements of earlier steps take one more each.

    Parameters
    ----------
    blocks : callable
        Begins a pass: gives the image in blocks of shape (C, ...), the same values each time.
    normalization : Normalization
        The model's rule.
    channels : int
        Number of channels C of the blocks.
    dtype : dtype
        Of the image as stored.
    """
    accumulator = Accumulator(normalization, channels, dtype)
    for block in blocks():
        accumulator.add(block)
    statistics = accumulator.finish()
    if normalization.kind != "steps":
        return statistics
    found = list(statistics.steps)
    for index, step in enumerate(normalization.steps):
        if not step.measured or found[index] != NOTHING:
            continue
        meter = StepMeter(step, channels, np.dtype(np.float32))
        for block in blocks():
            meter.add(take_steps(_finite(block)[0], normalization.steps[:index], found[:index]))
        found[index] = meter.finish()
    return replace(statistics, steps=tuple(found))


def measure_channels(
    blocks: Iterable[tuple[NDArray[Any], NDArray[np.bool_] | None]], normalization: Normalization, dtype: np.dtype[Any]
) -> Statistics:
    """Measure an image each of whose channels has a rule of its own, in one pass.

    Parameters
    ----------
    blocks : iterable of (ndarray, ndarray or None)
        Intensities, shape (C, ...), and where masked channels count, shape (...); None: everywhere.
    normalization : Normalization
        Of kind ``"channels"``.
    dtype : dtype
        Of the image as stored.
    """
    accumulators = [Accumulator(rule, 1, dtype) for rule in normalization.channels]
    for block, inside in blocks:
        for accumulator, rule, values in zip(accumulators, normalization.channels, block, strict=True):
            counted = values[inside] if rule.masked and inside is not None else values
            if counted.size:
                accumulator.add(counted[None])
    found = [accumulator.finish() for accumulator in accumulators]
    return Statistics(
        offset=tuple(statistics.offset[0] for statistics in found),
        scale=tuple(statistics.scale[0] for statistics in found),
        nonfinite=sum(statistics.nonfinite for statistics in found),
        constant=all(statistics.constant for statistics in found),
    )


def normalize(block: NDArray[Any], statistics: Statistics, normalization: Normalization) -> NDArray[np.float32]:
    """Scale intensities as the network expects them.

    Parameters
    ----------
    block : ndarray, shape (C, ...)
        Intensities of any dtype.
    statistics : Statistics
        Of the whole image.
    normalization : Normalization
        The model's rule.

    Returns
    -------
    ndarray of float32, shape (C, ...)
        ``(x - offset) / scale``, inverted if the statistics say so, then clipped. Always a new array.
    """
    values, _ = _finite(block)
    if normalization.kind == "channels":
        rules = enumerate(normalization.channels)
        return np.concatenate([normalize(values[index : index + 1], statistics.of(index), rule) for index, rule in rules])
    if normalization.kind == "steps":
        return take_steps(values, normalization.steps, statistics.steps)
    per_channel = (-1, *(1,) * (values.ndim - 1))
    offset = np.asarray(statistics.offset, np.float64).reshape(per_channel)
    scale = np.asarray(statistics.scale, np.float64).reshape(per_channel)
    result: NDArray[np.float32]
    if values.dtype.itemsize <= 2:
        result = np.subtract(values, offset.astype(np.float32), dtype=np.float32)
    else:
        # Wide types lose digits in float32 before the offset is taken off.
        result = np.subtract(values, offset, dtype=np.float64).astype(np.float32)
    result *= (1 / scale).astype(np.float32)
    if statistics.inverted:
        np.subtract(1, result, out=result)
    if normalization.clip is not None:
        np.clip(result, *normalization.clip, out=result)
    return result


def _finite(block: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return the block in native byte order with NaN and infinities set to 0, and how many there were."""
    block = np.asarray(block)
    if not block.dtype.isnative:
        block = block.astype(block.dtype.newbyteorder("="))
    if block.dtype.kind != "f":
        return block, 0
    finite = np.isfinite(block)
    bad = int(block.size - np.count_nonzero(finite))
    return (np.where(finite, block, 0), bad) if bad else (block, 0)
