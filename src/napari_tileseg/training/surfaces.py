"""Distances between the surfaces of two masks, in the unit of the pixel size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import ndimage

from napari_tileseg.training.metrics import check_shapes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["SurfaceDistances", "average_distance", "hausdorff", "surface_distances"]


class SurfaceDistances(NamedTuple):
    """Distance of each pixel of one surface to the nearest one of the other surface.

    Parameters
    ----------
    to_reference : ndarray of float64, shape (pixels on the prediction's surface,)
    to_prediction : ndarray of float64, shape (pixels on the reference's surface,)
    """

    to_reference: NDArray[np.float64]
    to_prediction: NDArray[np.float64]

    @property
    def both(self) -> NDArray[np.float64]:
        return np.concatenate([self.to_reference, self.to_prediction])


def surface_distances(prediction: NDArray[Any], reference: NDArray[Any], spacing: Sequence[float] | None = None) -> SurfaceDistances | None:
    """Measure from surface to surface.

    A pixel is on the surface when one of its direct neighbours is not in the mask; the image's border counts as outside.

    Parameters
    ----------
    prediction, reference : ndarray of bool, same shape
    spacing : sequence of float, optional
        Pixel size along each axis; 1 by default.

    Returns
    -------
    SurfaceDistances or None
        None where one of the masks is empty: there is nothing to measure to.
    """
    check_shapes(prediction, reference)
    here, there = np.asarray(prediction, bool), np.asarray(reference, bool)
    if not here.any() or not there.any():
        return None
    box = ndimage.find_objects((here | there).astype(np.uint8))[0]
    here, there = (np.pad(mask[box], 1) for mask in (here, there))  # outside of the box nothing is nearer
    first, second = _surface(here), _surface(there)
    steps = None if spacing is None else tuple(float(step) for step in spacing)
    return SurfaceDistances(
        ndimage.distance_transform_edt(~second, sampling=steps)[first],
        ndimage.distance_transform_edt(~first, sampling=steps)[second],
    )


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    inner: NDArray[np.bool_] = mask & ~ndimage.binary_erosion(mask)
    return inner


def hausdorff(distances: SurfaceDistances | None, percentile: float = 95.0) -> float:
    """Return the Hausdorff distance, or a percentile of both directions' distances together (as medpy's ``hd95`` does).

    MONAI takes the larger of the two directions' percentiles instead; at 100 both are the same.
    """
    return float("nan") if distances is None else float(np.percentile(distances.both, percentile))


def average_distance(distances: SurfaceDistances | None) -> float:
    """Return the average symmetric surface distance: the mean of the two directions' means (as medpy's ``assd`` does)."""
    return float("nan") if distances is None else float((distances.to_reference.mean() + distances.to_prediction.mean()) / 2)
