"""``Histogram``: percentiles of an image of any size, in memory that does not depend on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["KEPT", "Histogram"]

_KEY_BITS = 20
"""Bits of a float32 that a histogram of floats keeps: sign, exponent and 11 of the mantissa (0.05 % of the value)."""

KEPT = 1 << 24
"""Most values that are kept as they are where percentiles are to be exact."""


class Histogram:
    """Counts of values in a fixed number of bins, independent of the order in which blocks arrive.

    Integers of at most 16 bits have one bin each, so their percentiles are exact. Other values are binned by
    the leading bits of their float32 form, whose order is that of the numbers.

    Parameters
    ----------
    dtype : dtype
        Of the values.
    exact : bool
        Keep other values themselves until they are more than `KEPT`, so that the percentiles of smaller images are exact.
    """

    def __init__(self, dtype: np.dtype[Any], *, exact: bool = False) -> None:
        self.exact = dtype.kind in "bui" and dtype.itemsize <= 2
        self.low = -(1 << (8 * dtype.itemsize - 1)) if dtype.kind == "i" else 0
        bits = 8 * dtype.itemsize if self.exact else _KEY_BITS
        self.counts = np.zeros(1 << bits, np.int64)
        self.total = 0
        self._kept: list[NDArray[Any]] | None = [] if exact and not self.exact else None

    def add(self, values: NDArray[Any]) -> None:
        """Add finite values of any shape."""
        flat = values.reshape(-1)
        self.total += flat.size
        if self._kept is not None:
            self._kept.append(flat.copy())
            if self.total <= KEPT:
                return
            waiting, self._kept = self._kept, None
            for block in waiting:
                self._count(block)
            return
        self._count(flat)

    def _count(self, flat: NDArray[Any]) -> None:
        keys = flat.astype(np.int64) - self.low if self.exact else _float_keys(flat)
        self.counts += np.bincount(keys, minlength=len(self.counts))

    def percentile(self, percent: float, method: Literal["linear", "inverted_cdf"] = "linear") -> float:
        """Return numpy's percentile of everything added so far."""
        if self._kept is not None:
            return float(np.percentile(np.concatenate(self._kept), percent, method=method))
        cumulated = np.cumsum(self.counts)
        if method == "inverted_cdf":
            rank = max(np.ceil(cumulated[-1] * percent / 100) - 1, 0)
            return self._value(int(np.searchsorted(cumulated, rank, side="right")))
        position = (cumulated[-1] - 1) * percent / 100
        below, above = (
            self._value(int(np.searchsorted(cumulated, rank, side="right"))) for rank in (np.floor(position), np.ceil(position))
        )
        return below + (above - below) * float(position - np.floor(position))

    def _value(self, index: int) -> float:
        return float(index + self.low) if self.exact else _key_value(index)


def _float_keys(values: NDArray[Any]) -> NDArray[np.int64]:
    """Map numbers to bins whose order is the numbers' order (sign-magnitude turned into an unsigned integer)."""
    with np.errstate(over="ignore"):
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> np.uint32(32 - _KEY_BITS)).astype(np.int64)


def _key_value(index: int) -> float:
    """Return the number of a bin that lies closest to zero: exact for numbers with a short mantissa."""
    dropped = 32 - _KEY_BITS
    key = index << dropped
    negative = not key >> 31
    bits = ~(key | ((1 << dropped) - 1)) & 0xFFFFFFFF if negative else key & 0x7FFFFFFF
    return float(np.array([bits], np.uint32).view(np.float32)[0])
