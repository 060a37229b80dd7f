"""``Volume``: an array, the names of its axes, and where it lies in the world."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_tileseg.errors import AxesError, InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["AXIS_NAMES", "SPATIAL_AXES", "ArrayLike", "Volume", "check_ndim", "parse_axes"]

AXIS_NAMES = {"T": "time", "C": "channel", "Z": "depth", "Y": "height", "X": "width"}
"""The letters an axis may have, and what each means."""

SPATIAL_AXES = "ZYX"
"""The letters of space, slowest first."""


class ArrayLike(Protocol):
    """What the program needs of an array: NumPy, Dask, Zarr and tifffile's stores all have it."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> Any: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def parse_axes(axes: str, ndim: int) -> str:
    """Check a string of axis letters against a number of dimensions.

    Parameters
    ----------
    axes : str
        One letter per dimension, for example ``"TCZYX"``; spaces, commas and case are ignored.
    ndim : int
        Number of dimensions of the array.

    Returns
    -------
    str
        The letters in upper case, without separators.

    Raises
    ------
    AxesError
        If a letter is unknown or used twice, if their number is not `ndim`, if that is not 2 to 5, or if Y and X are missing.
    """
    check_ndim(ndim)
    letters = axes.replace(" ", "").replace(",", "").upper()
    unknown = [letter for letter in letters if letter not in AXIS_NAMES]
    if unknown:
        first = letters.index(unknown[0])
        raise AxesError(
            f'Axis "{unknown[0]}" is unknown. Use T (time), C (channel), Z, Y and X (space), one letter per dimension.',
            axis=first,
        )
    if len(letters) != ndim:
        raise AxesError(f'The image has {ndim} dimensions, the axes "{letters}" name {len(letters)}. Give one letter per dimension.')
    doubled = [letter for letter in letters if letters.count(letter) > 1]
    if doubled:
        raise AxesError(f'Axis {doubled[0]} is named twice in "{letters}". Each letter may stand once.', axis=letters.rindex(doubled[0]))
    if "Y" not in letters or "X" not in letters:
        raise AxesError(f'The axes "{letters}" lack Y or X. An image needs both.')
    return letters


def check_ndim(ndim: int) -> None:
    """Refuse arrays that are no image for any model: less than a plane, or more than one axis of each kind.

    Raises
    ------
    AxesError
    """
    if not 2 <= ndim <= len(AXIS_NAMES):
        many = f"{ndim} dimension{'s' * (ndim != 1)}"
        raise AxesError(f"The image has {many}; 2 to 5 are accepted (of T, C, Z, Y, X). Choose another image.")


@dataclass(frozen=True, eq=False)
class Volume:
    """An image with named axes and a place in the world; the data is read only where it is indexed.

    Parameters
    ----------
    data : array-like
        NumPy, Dask or Zarr array, or anything with ``shape``, ``dtype`` and basic slicing.
    axes : str
        One letter of ``TCZYX`` per dimension, slowest axis first.
    affine : ndarray, shape (ndim + 1, ndim + 1), optional
        Maps indices to world coordinates, both in the order of `axes`. Identity by default.
        World directions of medical images are LPS (left, posterior, superior grow).
    units : tuple of str, optional
        Unit of the world coordinate of each axis; ``"pixel"`` where none is known.
    name : str
        What to call the image in names and messages.
    channel_names : tuple of str
        Names along C, if known.
    metadata : mapping
        What the reader knows besides (for example ``{"format": "nifti"}``); never needed to interpret the array.
    levels : tuple of Volume
        The same image at coarser resolutions, the finest first, if the file has them; their own `levels` are empty.

    Raises
    ------
    AxesError
        If `axes` do not fit the array.
    InputError
        If the array is empty or `affine` has the wrong shape.
    """

    data: ArrayLike
    axes: str
    affine: NDArray[np.float64] = None  # type: ignore[assignment]  # set in __post_init__
    units: tuple[str, ...] = ()
    name: str = "image"
    channel_names: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    levels: tuple[Volume, ...] = ()

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.data.shape)
        object.__setattr__(self, "axes", parse_axes(self.axes, len(shape)))
        if 0 in shape:
            raise InputError(f"The image is empty: its shape is {shape}. Choose an image with at least one pixel.")
        ndim = len(shape)
        affine = np.eye(ndim + 1) if self.affine is None else np.asarray(self.affine, dtype=np.float64)
        if affine.shape != (ndim + 1, ndim + 1):
            raise InputError(f"The affine of a {ndim}-dimensional image must be {ndim + 1} x {ndim + 1}, not {affine.shape}.")
        object.__setattr__(self, "affine", affine)
        units = self.units or ("pixel",) * ndim
        if len(units) != ndim:
            raise InputError(f"{len(units)} units were given for {ndim} axes. Give one for each.")
        object.__setattr__(self, "units", tuple(str(unit) for unit in units))

    @classmethod
    def from_scale(
        cls,
        data: ArrayLike,
        axes: str,
        scale: tuple[float, ...],
        *,
        translate: tuple[float, ...] | None = None,
        units: tuple[str, ...] = (),
        name: str = "image",
        channel_names: tuple[str, ...] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Volume:
        """Make a volume whose axes are not turned against the world.

        Parameters
        ----------
        scale : tuple of float
            World length of one step along each axis.
        translate : tuple of float, optional
            World position of the first pixel's centre.
        """
        affine = np.diag([*scale, 1.0])
        if translate is not None:
            affine[:-1, -1] = translate
        return cls(data, axes, affine, units, name, channel_names, metadata or {})

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.data.shape)

    @property
    def ndim(self) -> int:
        return len(self.axes)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each axis by its letter."""
        return dict(zip(self.axes, self.shape, strict=True))

    @property
    def spatial_axes(self) -> str:
        """The letters of space that the image has, in its own order."""
        return "".join(axis for axis in self.axes if axis in SPATIAL_AXES)

    @property
    def spacing(self) -> dict[str, float]:
        """World length of one step along each axis, by its letter (the columns' norms of `affine`)."""
        norms = np.linalg.norm(self.affine[:-1, :-1], axis=0)
        return {axis: float(norm) for axis, norm in zip(self.axes, norms, strict=True)}

    @property
    def unit(self) -> dict[str, str]:
        """Unit of each axis, by its letter."""
        return dict(zip(self.axes, self.units, strict=True))

    def drop(self, axis: str) -> tuple[str, NDArray[np.float64], tuple[str, ...]]:
        """Return axes, affine and units without one axis, for a result that has none (labels have no C)."""
        if axis not in self.axes:
            return self.axes, self.affine, self.units
        index = self.axes.index(axis)
        affine = np.delete(np.delete(self.affine, index, axis=0), index, axis=1)
        return self.axes.replace(axis, ""), affine, self.units[:index] + self.units[index + 1 :]

    def with_data(self, data: ArrayLike) -> Volume:
        """Return the same grid over other data of the same shape."""
        if tuple(data.shape) != self.shape:
            raise InputError(f"The new data has shape {tuple(data.shape)}, the volume {self.shape}.")
        return replace(self, data=data, levels=())

    def with_levels(self, arrays: Sequence[ArrayLike]) -> Volume:
        """Return the same image with coarser resolutions of it: arrays that cover the same box, the finest first."""

        def level(data: ArrayLike) -> Volume:
            factors = np.array([fine / coarse for fine, coarse in zip(self.shape, data.shape, strict=True)])
            place = np.diag([*factors, 1.0])
            place[:-1, -1] = (factors - 1) / 2  # the centre of the first, larger pixel
            return replace(self, data=data, affine=self.affine @ place, levels=())

        return replace(self, levels=tuple(level(data) for data in arrays))

    def with_axes(self, axes: str) -> Volume:
        """Return the same array, and its coarser levels, with other names for its axes."""
        return replace(self, axes=axes, levels=tuple(level.with_axes(axes) for level in self.levels))
