"""``Sheet``: what is known of each object of one plane or volume, measured anew only where something changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.measure.blocks import Sums, gather
from napari_tileseg.measure.shapes import FLAT, SOLID, shape_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Box", "Sheet"]

Box = tuple[slice, ...]
"""One slice for each axis of space."""


class Sheet:
    """The objects of one plane or volume, a row each, in ascending order of their ids.

    Sizes, places and intensities are there for all objects; shapes take a millisecond each and are measured when they are asked
    for. ::

        sheet = Sheet.of(labels, channels, ...)      one pass over everything
        sheet = sheet.changed({7: box, 9: None})     a new sheet: 7 was measured in its box, 9 is gone

    A sheet is never changed but for the shapes that it takes in, so one thread may show it while another makes the next.

    Parameters
    ----------
    labels : array-like of int, shape (Y, X) or (Z, Y, X)
        Read where it is indexed.
    channels : mapping of str to array-like
        Images of the same shape.
    sums : Sums
        Of these labels.
    steps : sequence of float
        Length of a pixel along each axis.
    unit : str
        Symbol of their unit: ``"µm"``, ``"px"``.
    axes : str
        Letters of the axes, for the names of columns.
    """

    def __init__(
        self, labels: Any, channels: Mapping[str, Any], sums: Sums, *, steps: Sequence[float], unit: str = "px", axes: str = ""
    ) -> None:
        self._labels, self._channels, self._sums = labels, dict(channels), sums
        self._steps, self._unit = tuple(steps), unit
        self._axes = axes or "ZYX"[-len(self._steps) :]
        self._shapes: dict[int, dict[str, float]] = {}

    @classmethod
    def of(
        cls, labels: Any, channels: Mapping[str, Any], *, steps: Sequence[float], unit: str = "px", axes: str = "",
        cancel: Callable[[], bool] | None = None,
    ) -> Sheet:  # fmt: skip
        """Measure all objects; `cancel` is asked between slabs.

        Raises
        ------
        Cancelled
        """
        return cls(labels, channels, gather(labels, list(channels.values()), cancel=cancel), steps=steps, unit=unit, axes=axes)

    def changed(self, boxes: Mapping[int, Box | None]) -> Sheet:
        """Return the sheet after some objects changed.

        Parameters
        ----------
        boxes : mapping of int to Box or None
            Of each of these objects the box around it as it is now; None for one that is gone.
        """
        kept = ~np.isin(self._sums.labels, list(boxes))
        parts = [_rows(self._sums, kept)]
        for label, box in boxes.items():
            if box is not None:
                found = self._one(label, box)
                parts += [found] if found is not None else []
        names = list(Sums.__dataclass_fields__)
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        order = np.argsort(joined["labels"], kind="stable")
        sheet = Sheet(
            self._labels,
            self._channels,
            Sums(**{name: values[order] for name, values in joined.items()}),
            steps=self._steps,
            unit=self._unit,
            axes=self._axes,
        )
        sheet._shapes = {label: shape for label, shape in dict(self._shapes).items() if label not in boxes}
        return sheet

    def _one(self, label: int, box: Box) -> Sums | None:
        """Measure one object in its box."""
        block = np.asarray(self._labels[box])
        only = np.where(block == label, block, 0)
        sums = gather(only, [np.asarray(channel[box]) for channel in self._channels.values()])
        if not len(sums):
            return None
        start = np.array([part.start for part in box])
        places = sums.places + sums.pixels[:, None] * start
        return Sums(sums.labels, sums.pixels, places, sums.first + start, sums.last + start, sums.total, sums.highest)

    def __len__(self) -> int:
        return len(self._sums)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The ids, ascending."""
        return self._sums.labels

    @property
    def size_name(self) -> str:
        """Name of the column of sizes: ``"area [µm²]"``."""
        return f"area [{self._unit}²]" if len(self._steps) == 2 else f"volume [{self._unit}³]"

    @property
    def shape_names(self) -> tuple[str, ...]:
        """Names of the columns of shapes."""
        return tuple(self._named(name) for name in (FLAT if len(self._steps) == 2 else SOLID))

    @property
    def names(self) -> list[str]:
        """Names of all columns, in their order; units stand in them."""
        named = ["label", self.size_name, "pixels" if len(self._steps) == 2 else "voxels"]
        named += [f"centre {axis} [{self._unit}]" for axis in self._axes]
        named += self.shape_names
        for name in self._channels:
            named += [f"mean {name}".strip(), f"max {name}".strip()]
        return named + [f"{end} {axis} [px]" for axis in self._axes for end in ("first", "last")]

    def row(self, label: int) -> int | None:
        """Return the row of an object; None if there is no such object."""
        at = int(np.searchsorted(self._sums.labels, label))
        return at if at < len(self._sums) and self._sums.labels[at] == label else None

    def box(self, row: int) -> Box:
        """Return the box around an object."""
        return tuple(slice(int(a), int(b) + 1) for a, b in zip(self._sums.first[row], self._sums.last[row], strict=True))

    def column(self, name: str) -> NDArray[Any]:
        """Return a column; shapes that are not measured yet are NaN.

        Raises
        ------
        KeyError
            If there is none of that name.
        """
        sums, space = self._sums, len(self._steps)
        if name in self.shape_names:
            return np.array([self._shapes.get(label, {}).get(name, np.nan) for label in sums.labels.tolist()], np.float64)
        if name == "label":
            return sums.labels
        if name == self.size_name:
            return sums.pixels * float(np.prod(self._steps))
        if name in ("pixels", "voxels"):
            return sums.pixels
        for place, axis in enumerate(self._axes[:space]):
            if name == f"centre {axis} [{self._unit}]":
                centre: NDArray[np.float64] = sums.places[:, place] / np.maximum(sums.pixels, 1) * self._steps[place]
                return centre
            if name in (f"first {axis} [px]", f"last {axis} [px]"):
                return (sums.first if name.startswith("first") else sums.last)[:, place]
        for place, channel in enumerate(self._channels):
            if name == f"mean {channel}".strip():
                mean: NDArray[np.float64] = sums.total[:, place] / np.maximum(sums.pixels, 1)
                return mean
            if name == f"max {channel}".strip():
                return sums.highest[:, place]
        raise KeyError(name)

    def shaped(self, row: int) -> bool:
        """Whether an object's shape is measured."""
        return int(self._sums.labels[row]) in self._shapes

    def shape(self, row: int) -> dict[str, float]:
        """Measure the shape of an object, or return what is known of it.

        Returns
        -------
        dict of str to float
            A value for each of `shape_names`; NaN where an object is too large or too thin for one.
        """
        label = int(self._sums.labels[row])
        known = self._shapes.get(label)
        if known is None:
            found = shape_of(self._labels, label, self.box(row), self._steps)
            names = FLAT if len(self._steps) == 2 else SOLID
            known = self._shapes[label] = {self._named(name): found.get(name, np.nan) for name in names}
        return known

    def _named(self, name: str) -> str:
        return f"{name} [{self._unit}]" if name == "perimeter" else name


def _rows(sums: Sums, kept: NDArray[np.bool_]) -> Sums:
    return Sums(**{name: getattr(sums, name)[kept] for name in Sums.__dataclass_fields__})
