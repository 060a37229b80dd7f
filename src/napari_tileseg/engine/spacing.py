"""Pixel size: how the image's compares with the one a model was trained at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.units import micrometers, unit_symbol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["is_skewed", "spacing_note", "spacing_ratios"]

_IMPLAUSIBLE = 4.0
"""Larger ratios are more often a wrong unit than a true one."""


def spacing_ratios(volume: Volume, spec: ModelSpec) -> dict[str, float] | None:
    """Return the image's pixel size as a multiple of the model's, by axis; None where either is unknown.

    Where the model says how much larger it sees an image, that counts.
    """
    if spec.zoom is not None:
        return dict(zip(spec.spatial_axes, spec.zoom, strict=True))
    if spec.spacing is None:
        return None
    trained = micrometers(spec.spacing_unit)
    ratios = {}
    for axis, size in zip(spec.spatial_axes, spec.spacing, strict=True):
        length = micrometers(volume.unit[axis])
        if length is None or trained is None:
            return None
        # Without a factor where there is none: a size is rounded from this, and must not fall to the other side.
        ratios[axis] = volume.spacing[axis] / size if length == trained else volume.spacing[axis] * length / (size * trained)
    return ratios


def spacing_note(volume: Volume, spec: ModelSpec, *, rescale: bool = True) -> str | None:
    """Say what the user should know of the image's pixel size before a run; None if there is nothing to say.

    Parameters
    ----------
    rescale : bool
        Whether the image is going to be resampled to the model's pixel size.
    """
    if spec.spacing is None or spec.zoom is not None:
        return None
    trained = _text(spec.spacing, spec.spacing_unit)
    ratios = spacing_ratios(volume, spec)
    if ratios is None:
        return f"The pixel size is unknown; {spec.label} expects {trained}. The image is taken as it is."
    given = _text([volume.spacing[axis] for axis in spec.spatial_axes], volume.unit[spec.spatial_axes[0]])
    if any(not 1 / _IMPLAUSIBLE <= ratio <= _IMPLAUSIBLE for ratio in ratios.values()):
        return f"The pixel size is {given}, but {spec.label} expects {trained}. Is the unit right?"
    if not rescale and any(not 2 / 3 <= ratio <= 1.5 for ratio in ratios.values()):
        return f"The pixel size is {given}, but {spec.label} expects {trained}, and the image is not resampled. Expect poor labels."
    return None


def is_skewed(volume: Volume, spec: ModelSpec, spatial: str) -> bool:
    """Tell whether MONAI takes the corners of a volume for skewed, and so lays its new grid over the middle of the old one.

    It looks for the corner that all others lie behind, to a hundred-millionth of a pixel. Volumes that are turned against the world
    by some other angle than a quarter turn have none, because their files hold rounded numbers.
    """
    if len(spatial) != 3 or spec.spacing is None:
        return False
    axes = spatial[::-1]  # X, Y, Z
    places = [volume.axes.index(axis) for axis in axes]
    old = volume.affine[np.ix_(places, places)] * [-1.0 if axis in spec.from_end else 1.0 for axis in axes]
    if abs(np.linalg.det(old)) < 1e-12:
        return False
    shear = np.linalg.cholesky(old.T @ old).T
    new = old @ np.linalg.inv(shear) * (np.sign(np.diag(shear)) * spec.spacing[::-1])
    way = np.linalg.solve(new, old)
    np.fill_diagonal(way, 0)
    reach = [volume.sizes[axis] - 1 for axis in axes]
    return bool((np.minimum(way, 0) @ reach < -1e-8).any())


def _text(sizes: Sequence[float], unit: str) -> str:
    return " x ".join(f"{size:.3g}" for size in sizes) + f" {unit_symbol(unit)}"
