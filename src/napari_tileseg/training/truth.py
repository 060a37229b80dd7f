"""``whole_numbers`` and ``check_place``: whether what somebody has drawn can be learnt from, and fits the image it is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.units import micrometers, unit_symbol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.volume import Volume

__all__ = ["check_place", "lengths", "whole_numbers"]


def whole_numbers(labels: NDArray[Any]) -> NDArray[Any] | None:
    """Return labels as whole numbers; None where they have fractions. NIfTI labels are often stored as floating point numbers."""
    if labels.dtype.kind == "b":
        return labels.astype(np.uint8)
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all() or (labels != np.rint(labels)).any():
            return None
        return labels.astype(np.int64)
    return labels if labels.dtype.kind in "iu" else None


def check_place(image: Volume, labels: Volume) -> None:
    """Compare size, pixel size and direction; channels aside, and unknown pixel sizes fit any.

    Raises
    ------
    InputError
        If they differ, pixel sizes by more than a hundredth, directions by more than about six degrees.
    """
    here, there = (tuple(size for axis, size in volume.sizes.items() if axis != "C") for volume in (image, labels))
    if here != there:
        turned = "; their axes are in another order" if sorted(here) == sorted(there) else ""
        raise InputError(f"the labels have the shape {there}, the image {here}{turned}")
    if _differs(image, labels):
        raise InputError(f"the pixel size of the labels is {_text(labels)}, that of the image {_text(image)}")
    if _turned(image, labels):
        raise InputError("the axes of the labels lead elsewhere in the world than those of the image; resample the labels to the image")


def lengths(volume: Volume) -> dict[str, float]:
    """Return the micrometres of a step along each axis of space; empty where they are unknown."""
    units = {axis: micrometers(volume.unit[axis]) for axis in volume.spatial_axes}
    if any(unit is None for unit in units.values()):
        return {}
    return {axis: volume.spacing[axis] * float(unit or 0) for axis, unit in units.items()}


def _differs(image: Volume, labels: Volume) -> bool:
    axes = image.spatial_axes
    if any(image.unit[axis] != labels.unit[axis] for axis in axes):
        here, there = lengths(image), lengths(labels)
        return bool(here and there) and not np.allclose(list(here.values()), list(there.values()), rtol=0.01)
    return not np.allclose([image.spacing[axis] for axis in axes], [labels.spacing[axis] for axis in axes], rtol=0.01)


def _turned(image: Volume, labels: Volume) -> bool:
    """Whether both say where they lie, and their axes lead to different sides, as in files of which one was mirrored."""
    if not lengths(image) or not lengths(labels):
        return False
    here, there = (
        _directions(volume.affine[np.ix_(places, places)])
        for volume in (image, labels)
        for places in [[volume.axes.index(axis) for axis in image.spatial_axes]]
    )
    return not np.allclose(here, there, atol=0.1)


def _directions(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = matrix / np.maximum(np.linalg.norm(matrix, axis=0), 1e-12)
    return result


def _text(volume: Volume) -> str:
    unit = unit_symbol(volume.unit[volume.spatial_axes[0]])
    return " x ".join(f"{volume.spacing[axis]:.4g}" for axis in volume.spatial_axes) + f" {unit}"
