"""Grids in the body: matrices over (x, y, z), as medical files keep them, and affines in the order of a volume's axes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.order import ordered, reindexed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.volume import Volume

__all__ = ["as_stored", "axes_affine", "check_grid", "decode_note", "xyz_affine", "xyz_unit"]

_SMALLEST, _LARGEST = 1e-12, 1e12
"""Steps between pixels that some unit of length can mean: an atom in metres, a continent in micrometres."""


def axes_affine(axes: str, matrix: NDArray[np.float64], *, time: tuple[float, float] = (1.0, 0.0)) -> NDArray[np.float64]:
    """Return the affine of a volume from a matrix over (x, y, z).

    Parameters
    ----------
    axes : str
        Letters of the volume.
    matrix : ndarray, shape (4, 4)
        Maps (x, y, z, 1) indices to LPS coordinates.
    time : (float, float)
        Step and start along T.

    Returns
    -------
    ndarray, shape (len(axes) + 1, len(axes) + 1)
    """
    affine = np.eye(len(axes) + 1)
    rows = [index for index, axis in enumerate(axes) if axis in "XYZ"]
    places = ["XYZ".index(axes[index]) for index in rows]
    affine[np.ix_(rows, rows)] = matrix[np.ix_(places, places)]
    affine[rows, -1] = matrix[places, 3]
    if "T" in axes:
        index = axes.index("T")
        affine[index, index], affine[index, -1] = time
    return affine


def xyz_affine(volume: Volume) -> NDArray[np.float64]:
    """Return the matrix, (4, 4), that maps (x, y, z, 1) indices to the volume's coordinates (x, y, z); the opposite of `axes_affine`."""
    space = [axis for axis in "XYZ" if axis in volume.axes]
    rows = [volume.axes.index(axis) for axis in space]
    places = ["XYZ".index(axis) for axis in space]
    world = np.eye(4)
    world[np.ix_(places, places)] = volume.affine[np.ix_(rows, rows)]
    world[places, 3] = volume.affine[rows, -1]
    return world


def as_stored(labels: Volume) -> Volume:
    """Undo the order in which the axes of a turned grid are shown (`layer_data` notes it)."""
    shown = list(labels.metadata.get("order") or ())
    if len(shown) != 3 or labels.spatial_axes != "ZYX":
        return labels
    first = labels.axes.index("Z")
    back = [first + shown.index(axis) for axis in range(3)]
    return reindexed(labels, (*range(first), *back, *range(first + 3, labels.ndim)))


def xyz_unit(volume: Volume) -> str:
    """Return the unit that all axes of space have, ``"pixel"`` if they have several."""
    units = {volume.unit[axis] for axis in volume.spatial_axes}
    return units.pop() if len(units) == 1 else "pixel"


def check_grid(path: Path, matrix: NDArray[np.float64], axes: str = "XYZ") -> None:
    """Refuse a grid on which nothing can lie.

    Parameters
    ----------
    path : Path
        For the message.
    matrix : ndarray, shape (n + 1, n + 1)
        Maps indices to coordinates.
    axes : str
        Letters of the first columns of the matrix.

    Raises
    ------
    InputError
        One sentence: which step is zero, no number or absurd, or that two axes have one direction.
    """
    count = len(axes)
    cure = "Correct it in the program that made the file."
    linear = matrix[:-1, :count]
    if not np.isfinite(matrix[:-1]).all():
        raise InputError(f'"{path.name}" gives a place that is no number. {cure}')
    steps = np.linalg.norm(linear, axis=0)
    for axis, step in zip(axes, steps, strict=True):
        if not _SMALLEST < step < _LARGEST:
            raise InputError(f'"{path.name}" gives a pixel size of {step:g} along {axis}. {cure}')
    if np.linalg.matrix_rank(linear / steps, tol=1e-6) < count:
        raise InputError(f'"{path.name}" gives two axes the same direction. {cure}')


def decode_note(volume: Volume, note: Mapping[str, Any]) -> Volume:
    """Take back what `io.ome.annotation` has noted in a file beside the format's own fields.

    The place in the file counts: the noted axes, units and affine are taken only where they still fit it, because another
    program may have changed the file and kept the note.

    Parameters
    ----------
    volume : Volume
        As the format's own fields tell.
    note : mapping of str to str
        JSON texts.
    """
    try:
        known = {key: json.loads(value) for key, value in note.items()}
    except (TypeError, ValueError):
        return volume
    kept: dict[str, Any] = {key: known[key] for key in ("provenance", "classes", "colors") if key in known}
    volume = replace(volume, metadata={**volume.metadata, "labels": True, **kept})
    try:
        axes, shape, affine = str(known["axes"]), [int(size) for size in known["shape"]], np.array(known["affine"], dtype=np.float64)
        units = tuple(str(unit) for unit in known["units"])
    except (KeyError, TypeError, ValueError):
        return volume
    squeezed = _without(volume, axes)
    if squeezed is None:
        return volume
    turned = ordered(squeezed, axes)
    long = [(axis, size) for axis, size in zip(axes, shape, strict=False) if size > 1]
    if len(axes) != len(shape) or long != [(axis, size) for axis, size in turned.sizes.items() if size > 1]:
        return volume
    data = turned.data if tuple(shape) == turned.shape else np.asarray(turned.data[...]).reshape(shape)
    told = replace(turned, data=data, axes=axes, affine=affine, units=units, levels=())
    return told if _same_place(turned, told) else volume


def _without(volume: Volume, axes: str) -> Volume | None:
    """Return the volume without the axes of length 1 that are not among `axes`; None if a longer one is not."""
    for axis in volume.axes:
        if axis in axes:
            continue
        if volume.sizes[axis] > 1:
            return None
        key = tuple(0 if letter == axis else slice(None) for letter in volume.axes)
        letters, affine, units = volume.drop(axis)
        volume = replace(volume, data=volume.data[key], axes=letters, affine=affine, units=units, levels=())
    return volume


def _same_place(found: Volume, told: Volume) -> bool:
    """Say whether two grids agree in the axes that are longer than 1, up to a unit."""
    letters = [axis for axis in "XYZ" if axis in found.axes and found.sizes[axis] > 1]
    places = ["XYZ".index(axis) for axis in letters]
    first, second = (xyz_affine(volume)[np.ix_(places, [*places, 3])] for volume in (found, told))
    if not letters:
        return True
    factor = np.linalg.norm(first[:, :-1]) / np.linalg.norm(second[:, :-1])
    return bool(np.allclose(first, second * factor, rtol=1e-5, atol=1e-5 * np.linalg.norm(first[:, :-1])))
