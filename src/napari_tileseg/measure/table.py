"""The table of all labels of an image: size, place, shape and intensities, in the image's units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.measure.blocks import Sums, gather
from napari_tileseg.measure.shapes import shapes
from napari_tileseg.units import unit_symbol
from napari_tileseg.volume import SPATIAL_AXES, Volume

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Table", "measure"]

Table = dict[str, "NDArray[Any]"]
"""Columns by their names, all of one length; units stand in the names: ``"area [µm²]"``."""

_SHAPED = 20_000
"""Shapes of more objects than that are left out unless asked for: they take a millisecond each."""


def measure(
    labels: Volume,
    image: Volume | None = None,
    *,
    spatial: str = "",
    names: Sequence[str] = (),
    shape: bool | None = None,
) -> Table:
    """Measure every label.

    Parameters
    ----------
    labels : Volume of int
        0 is background. With an axis C: one mask for each class.
    image : Volume, optional
        On the same grid; gives mean and maximum of each of its channels.
    spatial : str, optional
        Letters along which objects extend, ``"YX"`` or ``"ZYX"``; all axes of space by default. Along the others every position
        is measured by itself.
    names : sequence of str
        Class of each label; of masks, by their place along C. A sequence of one name: all labels are of it.
    shape : bool, optional
        Whether to measure shapes; by default of up to 20 000 objects.

    Returns
    -------
    Table
        ``label``, ``class`` if there are `names`, a column for each axis that is no space, size, pixels, diameter, centre
        (from the middle of the first pixel), box (indices of the first and the last pixel), shape, intensities. One row per
        label and position, without the background.
    """
    space = "".join(axis for axis in labels.axes if axis in (spatial or SPATIAL_AXES))
    outer = [axis for axis in labels.axes if axis not in space]
    unit, steps = _grid(labels, space)
    channels = _channels(image)
    rows: list[Table] = []
    for position in np.ndindex(*(labels.sizes[axis] for axis in outer)):
        at = dict(zip(outer, position, strict=True))
        plane = _View(labels.data, labels.axes, at)
        pictures = [] if image is None else [_View(image.data, image.axes, {**at, **where}) for _, where in channels]
        sums = gather(plane, pictures)
        wanted = len(sums) <= _SHAPED if shape is None else shape
        form = shapes(plane, sums, steps) if wanted else {}
        rows.append(_rows(sums, form, space, unit, steps, at, _of(names, sums, at) if names else None, [name for name, _ in channels]))
    return _joined(rows)


def _of(names: Sequence[str], sums: Sums, at: Mapping[str, int]) -> list[str]:
    """Return the class of each label."""
    known = dict(enumerate(names))
    if "C" in at:
        return [known.get(at["C"], "")] * len(sums)
    if len(known) == 1:
        return list(known.values()) * len(sums)
    return [known.get(int(label), "") for label in sums.labels]


def _grid(labels: Volume, space: str) -> tuple[str, list[float]]:
    """Return the symbol of the unit and the steps in it; pixels where the unit is unknown, or not the same for all axes."""
    symbols = {unit_symbol(labels.unit[axis]) for axis in space}
    if len(symbols) > 1 or symbols == {"px"}:
        return "px", [1.0] * len(space)
    return symbols.pop(), [labels.spacing[axis] for axis in space]


def _rows(
    sums: Sums,
    form: Table,
    space: str,
    unit: str,
    steps: Sequence[float],
    at: Mapping[str, int],
    classes: list[str] | None,
    channels: list[str],
) -> Table:
    size = sums.pixels * float(np.prod(steps))
    flat = len(space) == 2
    columns: Table = {"label": sums.labels}
    if classes is not None:
        columns["class"] = np.array(classes, dtype=object)
    columns |= {axis: np.full(len(sums), place) for axis, place in at.items() if axis != "C"}
    columns[f"area [{unit}²]" if flat else f"volume [{unit}³]"] = size
    columns["pixels" if flat else "voxels"] = sums.pixels
    columns[f"diameter [{unit}]"] = 2 * np.sqrt(size / np.pi) if flat else np.cbrt(6 * size / np.pi)
    for place, axis in enumerate(space):
        columns[f"centre {axis} [{unit}]"] = sums.places[:, place] / np.maximum(sums.pixels, 1) * steps[place]
    for place, axis in enumerate(space):
        columns |= {f"first {axis} [px]": sums.first[:, place], f"last {axis} [px]": sums.last[:, place]}
    columns |= {f"{name} [{unit}]" if name == "perimeter" else name: values for name, values in form.items()}
    for place, name in enumerate(channels):
        columns[f"mean {name}".strip()] = sums.total[:, place] / np.maximum(sums.pixels, 1)
        columns[f"max {name}".strip()] = sums.highest[:, place]
    return columns


def _joined(rows: list[Table]) -> Table:
    """Put the tables of all positions below each other; a shape that was not measured somewhere is NaN there."""
    names = list(dict.fromkeys(name for table in rows for name in table))
    return {name: np.concatenate([table.get(name, np.full(len(table["label"]), np.nan)) for table in rows]) for name in names}


def _channels(image: Volume | None) -> list[tuple[str, dict[str, int]]]:
    """Return name and place of each channel."""
    if image is None:
        return []
    if "C" not in image.axes:
        return [("", {})]
    return [(image.channel_names[place] if image.channel_names else f"channel {place}", {"C": place}) for place in range(image.sizes["C"])]


class _View:
    """The part of an array at fixed positions along some axes, read where it is indexed; axes keep their order."""

    def __init__(self, data: Any, axes: str, at: Mapping[str, int]) -> None:
        self._data = data
        self._key: list[Any] = [at.get(axis, slice(None)) for axis in axes]
        self._free = [place for place, axis in enumerate(axes) if axis not in at]
        self.shape = tuple(int(data.shape[place]) for place in self._free)
        self.depth = int(getattr(data, "depth", 1)) if self._free and self._free[0] == 0 else 1

    def __getitem__(self, key: Any) -> Any:
        whole = list(self._key)
        for place, part in zip(self._free, key if isinstance(key, tuple) else (key,), strict=False):
            whole[place] = part
        return np.asarray(self._data[tuple(whole)])
