"""``Tally``: the mean and the percentiles of a map that is never held as a whole, the same in whichever pieces and order it comes."""

from __future__ import annotations

import base64
import zlib
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.histogram import Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Tally", "summary"]

_MANTISSA = 24
"""Bits of a float32 that are its digits."""

_LOWEST = -150
"""Below every exponent of a float32."""


class Tally:
    """Sums numbers up exactly, so that a run that was interrupted gives the mean of one that was not, to the last bit.

    A sum of floating point numbers depends on their order. The digits of all numbers of one exponent are whole numbers, whose sum does not.
    Percentiles are those of a histogram with 8192 bins for each factor of two, 0.05 % wide at most. Numbers that are not finite are
    left out.
    """

    def __init__(self) -> None:
        self._digits: dict[int, int] = {}
        self._histogram = Histogram(np.dtype(np.float32))

    @property
    def count(self) -> int:
        """How many numbers were added."""
        return self._histogram.total

    def add(self, values: NDArray[np.float32]) -> None:
        """Add numbers of any shape."""
        flat = values[np.isfinite(values)]
        if not flat.size:
            return
        self._histogram.add(flat)
        parts, exponents = np.frexp(flat)
        # Whole numbers below 2**24, of which a double holds the sum of 2**29 without an error: more than a slab has.
        sums = np.bincount(exponents - _LOWEST, weights=np.ldexp(parts, _MANTISSA).astype(np.float64))
        for place in np.flatnonzero(sums).tolist():
            exponent = place + _LOWEST
            self._digits[exponent] = self._digits.get(exponent, 0) + int(sums[place])

    @property
    def mean(self) -> float:
        """The mean of all numbers; there must be one."""
        total = sum((Fraction(digits) * Fraction(2) ** (exponent - _MANTISSA) for exponent, digits in self._digits.items()), Fraction(0))
        return float(total / self.count)

    def percentile(self, percent: float) -> float:
        """Return numpy's percentile of all numbers, of which there must be one, to 0.05 %."""
        return self._histogram.percentile(percent)

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that JSON can hold."""
        bins = np.flatnonzero(self._histogram.counts)
        packed = zlib.compress(np.stack([bins, self._histogram.counts[bins]]).astype("<i8").tobytes(), 1)
        digits = [[exponent, str(digits)] for exponent, digits in sorted(self._digits.items())]
        return {"digits": digits, "bins": base64.b64encode(packed).decode("ascii")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Tally:
        """Return what `to_dict` (and JSON) made `data` of.

        Raises
        ------
        LookupError, TypeError, ValueError
            If it is damaged.
        """
        made = cls()
        made._digits = {int(exponent): int(digits) for exponent, digits in data["digits"]}
        try:
            bins, counts = np.frombuffer(zlib.decompress(base64.b64decode(data["bins"])), "<i8").reshape(2, -1)
        except zlib.error as error:
            raise ValueError("the bins are damaged") from error
        made._histogram.counts[bins] = counts
        made._histogram.total = int(counts.sum())
        return made


def summary(tally: Tally | None) -> dict[str, float]:
    """Return what an image is sorted by: ``"mean"`` and ``"percentile_99"``; nothing where nothing was added."""
    return {"mean": tally.mean, "percentile_99": tally.percentile(99)} if tally is not None and tally.count else {}
