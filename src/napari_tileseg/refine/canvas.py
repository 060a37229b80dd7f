"""``Canvas``: the labels that tools work on, read and written by the box, with their pixel size and an index of their objects."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.index import ObjectIndex, Position
from napari_tileseg.units import canonical_unit, unit_symbol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.delta import Edit

__all__ = ["Canvas", "Place"]


@dataclass(frozen=True)
class Place:
    """A volume, plane or slice of labels in which objects are looked at by themselves.

    Parameters
    ----------
    fixed : tuple of int or None
        For each axis of the labels its index, or None where the place extends.
    """

    fixed: tuple[int | None, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which the place extends."""
        return tuple(axis for axis, at in enumerate(self.fixed) if at is None)

    def full(self, box: Box) -> Box:
        """Return a box in this place as one of the whole labels."""
        parts = iter(box)
        return tuple(next(parts) if at is None else slice(at, at + 1) for at in self.fixed)

    def local(self, box: Box) -> Box:
        """Return the other way round."""
        return tuple(box[axis] for axis in self.axes)


class Canvas:
    """Labels to correct.

    Parameters
    ----------
    data : array-like of int
        NumPy, Zarr, or anything that is read and assigned by basic slicing. 0 is background. It is the caller's: tools change
        nothing, `apply` and `revert` do.
    spacing : sequence of float, optional
        Length of a pixel along each axis of `data`, or along those of `space` only; 1 by default.
    space : sequence of int, optional
        Axes over which objects extend: two or three. By default the last three; the last two of an array with two, and where
        a caller knows that each plane stands for itself it says so.
    unit : str
        Of `spacing`: ``"micrometer"``.
    classes : bool
        Whether a value is a class, which may have many parts, rather than an object.

    Raises
    ------
    InputError
        If the array is no array of labels.
    """

    def __init__(
        self,
        data: Any,
        *,
        spacing: Sequence[float] | None = None,
        space: Sequence[int] | None = None,
        unit: str = "",
        classes: bool = False,
    ) -> None:
        if not hasattr(data, "shape") or not hasattr(data, "dtype"):
            raise InputError("These labels have several resolutions, and only one can be edited. Edit a region of them at full resolution.")
        dtype, ndim = np.dtype(data.dtype), len(data.shape)
        if dtype.kind not in "iu":
            raise InputError(f"Labels to correct are whole numbers; these are {dtype}. Convert the layer to integers.")
        axes = tuple(sorted(axis % ndim for axis in space)) if space is not None else tuple(range(max(ndim - 3, 0), ndim))
        if len(axes) not in (2, 3) or len(set(axes)) != len(axes) or 0 in data.shape:
            raise InputError(f"Objects lie in planes or volumes; these labels have shape {tuple(data.shape)} and space along {axes}.")
        self.data, self.space, self.classes = data, axes, classes
        self.unit = canonical_unit(unit)
        self.spacing = self._spacing(spacing)
        self._index: ObjectIndex | None = None

    def _spacing(self, given: Sequence[float] | None) -> tuple[float, ...]:
        every = [1.0] * self.ndim
        values = [abs(float(value)) for value in given] if given is not None else every
        if len(values) == len(self.space) != self.ndim:
            for axis, value in zip(self.space, values, strict=True):
                every[axis] = value
            values = every
        if len(values) != self.ndim or not all(math.isfinite(value) and value > 0 for value in values):
            raise OptionsError(f"The pixel size {tuple(given or ())} is not accepted: give a length above 0 for each of {self.ndim} axes.")
        return tuple(values)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in self.data.shape)

    @property
    def ndim(self) -> int:
        return len(self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    @property
    def outer(self) -> tuple[int, ...]:
        """The axes over which no object extends: time."""
        return tuple(axis for axis in range(self.ndim) if axis not in self.space)

    @property
    def pixel_size(self) -> float:
        """Area or volume of one pixel, in the square or cube of `unit`."""
        return math.prod(self.spacing[axis] for axis in self.space)

    @property
    def size_unit(self) -> str:
        """What areas and volumes are told in: ``"µm²"``, ``"px"``."""
        symbol = unit_symbol(self.unit)
        return symbol if symbol == "px" else symbol + ("²" if len(self.space) == 2 else "³")

    @property
    def chunks(self) -> tuple[int, ...] | None:
        """Size of the chunks along each axis, if the array has any."""
        chunks = getattr(self.data, "chunks", None)
        if not chunks:
            return None
        return tuple(int(chunk) if not isinstance(chunk, tuple) else int(chunk[0]) for chunk in chunks)

    @property
    def index(self) -> ObjectIndex:
        """The objects; found by one pass over all labels when first asked for."""
        if self._index is None:
            self.look()
        assert self._index is not None  # set by `look`
        return self._index

    def look(self, *, cancel: Callable[[], bool] | None = None) -> None:
        """Find all objects, anew if they were found before: after the labels were changed by something else.

        Raises
        ------
        Cancelled
        """
        self._index = ObjectIndex(self.data, self.space, chunks=self.chunks, cancel=cancel)

    @property
    def looked(self) -> bool:
        """Whether the index is there already."""
        return self._index is not None

    def place(self, position: Position = ()) -> Place:
        """Return the volume (or plane) at a position along the outer axes.

        Raises
        ------
        InputError
            If there is no such position.
        """
        outer = self.outer
        if len(position) != len(outer) or any(not 0 <= at < self.shape[axis] for axis, at in zip(outer, position, strict=True)):
            raise InputError(f"There is nothing at position {position}; the labels have shape {self.shape}.")
        at = dict(zip(outer, position, strict=True))
        return Place(tuple(at.get(axis) for axis in range(self.ndim)))

    def position(self, point: Sequence[float]) -> Position:
        """Return where a point of the labels (one coordinate per axis, in pixels) is along the outer axes."""
        return tuple(round(float(point[axis])) for axis in self.outer)

    def pixel(self, point: Sequence[float]) -> tuple[int, ...]:
        """Return the pixel at a point.

        Raises
        ------
        InputError
            If it is outside.
        """
        pixel = tuple(round(float(at)) for at in point)
        if len(pixel) != self.ndim or any(not 0 <= at < size for at, size in zip(pixel, self.shape, strict=True)):
            raise InputError("That point is outside of the labels. Click inside.")
        return pixel

    def read(self, box: Box) -> NDArray[Any]:
        """Return a copy of the labels in a box of all axes."""
        return np.array(self.data[box])

    def ids_at(self, *points: Sequence[float]) -> list[int]:
        """Return the objects at points (in pixels), each once, in the order of the points; background is left out."""
        found: dict[int, None] = {}
        for point in points:
            pixel = self.pixel(point)
            value = int(np.asarray(self.data[tuple(slice(at, at + 1) for at in pixel)]).item())
            if value:
                found[value] = None
        return list(found)

    def apply(self, edit: Edit) -> None:
        """Do an edit.

        Raises
        ------
        InputError
            If the labels were changed since it was made, or cannot be changed.
        """
        self._writeable()
        edit.apply(self.data)
        self.noted(edit)

    def revert(self, edit: Edit) -> None:
        """Undo an edit.

        Raises
        ------
        InputError
            If the labels were changed since it was done, or cannot be changed.
        """
        self._writeable()
        edit.revert(self.data)
        self.noted(edit, undone=True)

    def noted(self, edit: Edit, *, undone: bool = False) -> None:
        """Take note of an edit that something else has done (or undone): napari's brush, its own undo."""
        if self._index is not None:
            for delta in reversed(edit.deltas) if undone else edit.deltas:
                self._index.update(delta, undone=undone)

    def _writeable(self) -> None:
        flags = getattr(self.data, "flags", None)
        if not hasattr(self.data, "__setitem__") or getattr(flags, "writeable", True) is False or getattr(self.data, "read_only", False):
            raise InputError("These labels can only be read. Duplicate the layer, or save the labels and open the copy.")
