"""The objects table: size and shape of every label, in the image's units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.units import unit_symbol

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
        ``index`` (the label), size, diameter, centre and shape; one row per label, without the background.
    """
    from skimage.measure import regionprops_table

    moved = np.moveaxis(labels, [axes.index(axis) for axis in spatial], range(-len(spatial), 0))
    others = [axis for axis in axes if axis not in spatial]
    steps = tuple(spacing[axis] for axis in spatial)
    names = _names(spatial, unit, isotropic=bool(np.allclose(steps, steps[0])))
    rows: list[dict[str, NDArray[Any]]] = []
    for position in np.ndindex(*moved.shape[: len(others)]):
        table = regionprops_table(np.ascontiguousarray(moved[position]), properties=_properties(names), spacing=steps)
        place = {axis: np.full(len(table["label"]), at) for axis, at in zip(others, position, strict=True)}
        rows.append(place | _renamed(table, names))
    return {key: np.concatenate([row[key] for row in rows]) for key in rows[0]} if rows else {}


def _names(spatial: str, unit: Mapping[str, str], *, isotropic: bool) -> dict[str, str]:
    known = {unit[axis] for axis in spatial}
    length = unit_symbol(next(iter(known))) if len(known) == 1 else "px"
    flat = len(spatial) == 2
    size = f"area [{length}²]" if flat else f"volume [{length}³]"
    names = {"label": "index", "area": size, "equivalent_diameter_area": f"diameter [{length}]"}
    names |= {f"centroid-{place}": f"centre {axis} [{length}]" for place, axis in enumerate(spatial)}
    if flat:
        names |= {"eccentricity": "eccentricity", "solidity": "solidity"}
        if isotropic:
            names["perimeter"] = f"perimeter [{length}]"
    return names


def _properties(names: Mapping[str, str]) -> tuple[str, ...]:
    """Return what to ask for: one property gives the columns ``centroid-0``, ``centroid-1``..."""
    return tuple(dict.fromkeys(name.split("-")[0] for name in names))


def _renamed(table: Mapping[str, NDArray[Any]], names: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    return {new: np.asarray(table[old]) for old, new in names.items()}
