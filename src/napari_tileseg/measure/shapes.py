"""Shapes of objects, from the boxes around them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.measure.blocks import Sums

__all__ = ["FLAT", "SOLID", "shape_of", "shapes"]

FLAT = ("perimeter", "eccentricity", "solidity")
"""What is measured of objects in a plane."""

SOLID = ("sphericity",)
"""... and of those in space: surface of the sphere of the same volume over the object's own."""

_REGION = 1 << 22
"""Pixels that are read together."""

_LARGEST = 1 << 24
"""Objects in larger boxes have no shape: it would take too long."""


def shapes(labels: Any, sums: Sums, spacing: Sequence[float]) -> dict[str, NDArray[np.float64]]:
    """Measure every object; NaN where it is too large or too thin for that.

    Parameters
    ----------
    labels : array-like of int, shape (Y, X) or (Z, Y, X)
    sums : Sums
        Of the same labels.
    spacing : sequence of float
        Along each axis.

    Returns
    -------
    dict of str to ndarray of float64, shape (N,)
        `FLAT` or `SOLID`; the perimeter in units of the spacing, which must be equal for it.
    """
    names: tuple[str, ...] = FLAT if len(labels.shape) == 2 else SOLID
    if len(names) > 1 and not np.allclose(spacing, spacing[0]):
        names = names[1:]
    found = {name: np.full(len(sums), np.nan) for name in names}
    for members, box in _groups(sums):
        region = np.asarray(labels[tuple(slice(*span) for span in box)])
        for member in members:
            inside = tuple(
                slice(low - start, high + 1 - start)
                for low, high, (start, _) in zip(sums.first[member], sums.last[member], box, strict=True)
            )
            values = _shape(region[inside] == sums.labels[member], names, spacing)
            for name in names:
                found[name][member] = values.get(name, np.nan)
    return found


def shape_of(labels: Any, label: int, box: tuple[slice, ...], spacing: Sequence[float]) -> dict[str, float]:
    """Measure one object.

    Parameters
    ----------
    labels : array-like of int, shape (Y, X) or (Z, Y, X)
        Read in the box only.
    label : int
    box : tuple of slice
        Around the object.
    spacing : sequence of float
        Along each axis.

    Returns
    -------
    dict of str to float
        As `shapes`; nothing where the object is too large.
    """
    if _size([(part.start, part.stop) for part in box]) > _LARGEST:
        return {}
    mask = np.asarray(labels[box]) == label
    flat = FLAT if np.allclose(spacing, spacing[0]) else FLAT[1:]
    return _shape(mask, flat if mask.ndim == 2 else SOLID, spacing) if mask.any() else {}


def _groups(sums: Sums) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    """Yield objects that lie near each other with the box around them, so that no pixel is read for each object anew."""
    if not len(sums):
        return
    side = 512 if sums.first.shape[1] == 2 else 128
    cells = sums.first // side
    order = np.lexsort(cells.T[::-1])
    members: list[int] = []
    box: list[tuple[int, int]] = []
    for place in order.tolist():
        own = list(zip(sums.first[place].tolist(), (sums.last[place] + 1).tolist(), strict=True))
        if _size(own) > _LARGEST:
            continue
        joined = [(min(a, c), max(b, d)) for (a, b), (c, d) in zip(box, own, strict=True)] if members else own
        if members and (_size(joined) > _REGION or (cells[place] != cells[members[0]]).any()):
            yield members, box
            members, joined = [], own
        members, box = [*members, place], joined
    if members:
        yield members, box


def _size(box: Sequence[tuple[int, int]]) -> int:
    return int(np.prod([stop - start for start, stop in box], dtype=np.int64))


def _shape(mask: NDArray[np.bool_], names: Sequence[str], spacing: Sequence[float]) -> dict[str, float]:
    if mask.ndim == 3:
        return {"sphericity": _sphericity(mask, spacing)}
    from skimage.measure import regionprops

    (region,) = regionprops(mask.astype(np.uint8), spacing=tuple(spacing))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # objects on one line have no hull
        return {name: float(region[name]) for name in names if name != "solidity" or min(mask.shape) > 1}


def _sphericity(mask: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    from skimage.measure import marching_cubes, mesh_surface_area

    vertices, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5, spacing=tuple(spacing))
    volume = float(np.count_nonzero(mask)) * float(np.prod(spacing))
    return float(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / mesh_surface_area(vertices, faces))
