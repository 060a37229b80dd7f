"""The objects table of a layer: size and shape of every label, in the image's units, as every other table of the program has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.measure.table import measure
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["objects_table"]


def objects_table(
    labels: NDArray[Any], axes: str, spatial: str, spacing: Mapping[str, float], unit: Mapping[str, str]
) -> dict[str, NDArray[Any]]:
    """Measure every label.

    Parameters
    ----------
    labels : ndarray of int
        Ids that are unique over the whole array; 0 is background.
    axes : str
        Its letters.
    spatial : str
        The letters of space that objects extend over, ``"YX"`` or ``"ZYX"``; along the others every position is measured by
        itself.
    spacing, unit : mapping
        Of each axis.

    Returns
    -------
    dict of str to ndarray
        ``index`` (the label), place along the axes that are no space, size, diameter, centre and shape; one row per label,
        without the background.
    """
    scale, units = tuple(spacing[axis] for axis in axes), tuple(unit[axis] for axis in axes)
    table = measure(Volume.from_scale(labels, axes, scale, units=units), spatial=spatial)
    kept = {name: values for name, values in table.items() if not name.startswith(("first ", "last "))}
    return {"index": kept.pop("label"), **kept}
