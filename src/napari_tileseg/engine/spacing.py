"""Pixel size: how the image's compares with the one a model was trained at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.units import micrometers, unit_symbol

if TYPE_CHECKING:
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["spacing_note", "spacing_ratios"]

_TOLERANCE = 1.5
"""Networks bear about this much difference in scale; their training covers more than it in 2D."""


def spacing_ratios(volume: Volume, spec: ModelSpec) -> dict[str, float] | None:
    """Return the image's pixel size as a multiple of the model's, by axis; None where either is unknown."""
    if spec.spacing is None:
        return None
    trained = micrometers(spec.spacing_unit)
    ratios = {}
    for axis, size in zip(spec.spatial_axes, spec.spacing, strict=True):
        length = micrometers(volume.unit[axis])
        if length is None or trained is None:
            return None
        ratios[axis] = volume.spacing[axis] * length / (size * trained)
    return ratios


def spacing_note(volume: Volume, spec: ModelSpec) -> str | None:
    """Say in a sentence or two what to expect of the image's pixel size; None if it suits the model."""
    if spec.spacing is None:
        return None
    symbol = unit_symbol(spec.spacing_unit)
    trained = " x ".join(f"{size:g}" for size in spec.spacing) + f" {symbol}"
    ratios = spacing_ratios(volume, spec)
    if ratios is None:
        return f"The pixel size is unknown; {spec.label} expects {trained}. The image is taken as it is."
    if all(1 / _TOLERANCE <= ratio <= _TOLERANCE for ratio in ratios.values()):
        return None
    given = " x ".join(f"{volume.spacing[axis]:g}" for axis in spec.spatial_axes) + f" {unit_symbol(volume.unit[spec.spatial_axes[0]])}"
    return f"The pixel size is {given}; {spec.label} was trained at {trained}. Expect poor labels, or resample the image first."
