"""The steps of a normalisation that takes several: what each is measured by, and what it makes of the values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_tileseg.models.spec import NormalizationStep

    Numbers = tuple[tuple[float, ...], tuple[float, ...]]

__all__ = ["NOTHING", "StepMeter", "take_steps"]

NOTHING: Numbers = ((), ())
"""What was measured for a step whose numbers are given."""


class StepMeter:
    """Measures one step, block by block.

    Parameters
    ----------
    step : NormalizationStep
        One that is measured.
    channels : int
        Channels C of the blocks.
    dtype : dtype
        Of the blocks.
    """

    def __init__(self, step: NormalizationStep, channels: int, dtype: np.dtype[Any]) -> None:
        self._step = step
        groups = 1 if step.joint else channels
        self._moments = [_Moments() for _ in range(groups)] if step.kind == "mean_std" else []
        self._histograms = [Histogram(dtype, exact=True) for _ in range(groups)] if step.kind != "mean_std" else []

    def add(self, block: NDArray[Any]) -> None:
        """Add finite values, shape (C, ...)."""
        meters: Sequence[_Moments | Histogram] = self._moments or self._histograms
        for meter, part in zip(meters, [block] if len(meters) == 1 else block, strict=True):
            values = part[part != 0] if self._step.nonzero else part
            if values.size:
                meter.add(values)

    def finish(self) -> Numbers:
        """Return two numbers for each channel, or for all: what becomes 0 and what becomes 1 more, or the limits of clip."""
        step = self._step
        if step.kind == "mean_std":
            pairs = [(meter.mean, meter.deviation + step.eps) for meter in self._moments]
        elif step.kind == "clip":
            return self._limits(step.low, step.lower, -np.inf), self._limits(step.high, step.upper, np.inf)
        else:
            lower, upper = self._limits(None, step.lower, 0.0), self._limits(None, step.upper, 0.0)
            pairs = [(low, high - low + step.eps) for low, high in zip(lower, upper, strict=True)]
        return tuple(offset for offset, _ in pairs), tuple(scale or 1.0 for _, scale in pairs)

    def _limits(self, given: float | None, percent: float | None, neither: float) -> tuple[float, ...]:
        if percent is None:
            return (neither if given is None else given,) * len(self._histograms)
        return tuple(histogram.percentile(percent, self._step.method) if histogram.total else 0.0 for histogram in self._histograms)


class _Moments:
    """Mean and standard deviation by Chan's update: exact to rounding for any split into blocks."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._squares = 0.0

    def add(self, values: NDArray[Any]) -> None:
        numbers = values.astype(np.float64)
        count, mean = numbers.size, float(numbers.mean())
        delta, total = mean - self.mean, self.count + numbers.size
        self._squares += float(((numbers - mean) ** 2).sum()) + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count = total

    @property
    def deviation(self) -> float:
        return float(np.sqrt(self._squares / max(self.count, 1)))


def take_steps(values: NDArray[Any], steps: Sequence[NormalizationStep], numbers: Sequence[Numbers]) -> NDArray[np.float32]:
    """Put values through steps.

    Parameters
    ----------
    values : ndarray, shape (C, ...)
        Finite values of any dtype.
    steps : sequence of NormalizationStep
        In order.
    numbers : sequence of pairs
        What was measured for each of them.

    Returns
    -------
    ndarray of float32, shape (C, ...)
        Always a new array.
    """
    # Wide types lose digits in float32; they are narrowed when an offset is off.
    wide = values.dtype.kind != "b" and values.dtype.itemsize > 2 and values.dtype != np.float32
    result = values.astype(np.float64 if wide else np.float32)
    for step, measured in zip(steps, numbers, strict=True):
        taken = _taken(result, step, measured)
        result = np.where(result == 0, result, taken) if step.nonzero else taken
    return result.astype(np.float32, copy=False)


def _taken(values: NDArray[Any], step: NormalizationStep, measured: Numbers) -> NDArray[Any]:
    def number(given: tuple[float, ...]) -> NDArray[Any]:
        return np.asarray(given, values.dtype).reshape(-1, *(1,) * (values.ndim - 1))

    result: NDArray[Any]
    match step.kind:
        case "linear":
            result = (values - number(step.offset)) / number(step.scale)
        case "mean_std" | "percentiles":
            result = (values - number(measured[0])) / number(measured[1])
        case "clip" if step.measured:
            result = np.clip(values, number(measured[0]), number(measured[1]))
        case "clip":
            result = np.clip(values, step.low, step.high)
        case "binarize":
            result = (values > number(step.threshold)).astype(np.float32)
        case "sigmoid":
            with np.errstate(over="ignore"):
                result = 1 / (1 + np.exp(-values))
    return result
