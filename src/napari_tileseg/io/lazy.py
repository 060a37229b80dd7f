"""``LazyArray``: an array that reads a box of its file whenever it is indexed."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Box = tuple[slice, ...]
    ReadBox = Callable[[Box], NDArray[Any]]

__all__ = ["LazyArray", "box_of", "index_ranges", "native"]


class LazyArray:
    """An array-like over a function that reads boxes.

    Parameters
    ----------
    shape : tuple of int
        Shape of the whole array.
    dtype : dtype
        Type of the values; the machine's own byte order is used whatever the file has.
    read : callable
        Takes one ``slice(start, stop)`` per axis (never empty, step 1) and returns that part.
    close : callable, optional
        Called once when the array is no longer used.
    depth : int
        How many entries along the first axis lie together in the file, so that it takes as long to read one of them as all.

    Notes
    -----
    Indexing takes integers, slices of any step and ``...``; it always returns a NumPy array (or scalar).
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: Any, read: ReadBox, *, close: Callable[[], object] | None = None, depth: int = 1
    ) -> None:
        self.shape: tuple[int, ...] = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self._along = depth
        self._read = read
        if close is not None:
            weakref.finalize(self, close)

    @property
    def depth(self) -> int:
        return self._along

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return int(self.size * self.dtype.itemsize)

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyArray(shape={self.shape}, dtype={self.dtype})"

    def __getitem__(self, key: Any, /) -> Any:
        ranges, dropped = index_ranges(key, self.shape)
        drop = tuple(0 if single else slice(None) for single in dropped)
        if any(len(span) == 0 for span in ranges):
            return np.empty([len(span) for span in ranges], self.dtype)[drop]
        box = tuple(slice(min(span[0], span[-1]), max(span[0], span[-1]) + 1) for span in ranges)
        part = native(self._read(box))
        steps = tuple(slice(None, None, span.step) for span in ranges)
        return part[steps][drop]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("An array that is read from elsewhere cannot be had without a copy.")
        array = np.asarray(self[...])
        return array if dtype is None else array.astype(dtype, copy=False)


def native(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in the machine's byte order."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def box_of(key: Any, shape: tuple[int, ...]) -> tuple[tuple[tuple[int, int], ...], tuple[bool, ...], tuple[int, ...]]:
    """Read an index of integers, slices and ``...``.

    Returns
    -------
    box : tuple of (start, stop)
        One pair for each axis.
    dropped : tuple of bool
        Which axes were indexed by one number.
    steps : tuple of int
        Of the slices; 1 for numbers.
    """
    ranges, dropped = index_ranges(key, shape)
    return tuple((span.start, span.stop) if len(span) else (0, 0) for span in ranges), dropped, tuple(span.step for span in ranges)


def index_ranges(key: Any, shape: tuple[int, ...]) -> tuple[list[range], tuple[bool, ...]]:
    """Read an index as one range for each axis, and say which axes were indexed by one number.

    Raises
    ------
    IndexError
        If it lies outside, or is none of integers, slices and ``...``.
    """
    keys = _expand(key, len(shape))
    return [_range(part, size) for part, size in zip(keys, shape, strict=True)], tuple(isinstance(part, int | np.integer) for part in keys)


def _expand(key: Any, ndim: int) -> tuple[Any, ...]:
    keys = key if isinstance(key, tuple) else (key,)
    dots = [index for index, part in enumerate(keys) if part is Ellipsis]
    if len(dots) > 1:
        raise IndexError("An index may hold one ellipsis only.")
    if dots:
        missing = ndim - len(keys) + 1
        keys = keys[: dots[0]] + (slice(None),) * missing + keys[dots[0] + 1 :]
    keys = keys + (slice(None),) * (ndim - len(keys))
    if len(keys) != ndim:
        raise IndexError(f"{len(keys)} indices were given for {ndim} axes.")
    return keys


def _range(part: Any, size: int) -> range:
    if isinstance(part, slice):
        return range(*part.indices(size))
    if isinstance(part, int | np.integer) and not isinstance(part, bool | np.bool_):
        index = int(part) + size if part < 0 else int(part)
        if not 0 <= index < size:
            raise IndexError(f"Index {int(part)} is out of range for an axis of length {size}.")
        return range(index, index + 1)
    raise IndexError(f"Index {part!r} is not supported; use integers, slices and '...'.")
