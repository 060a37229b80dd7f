"""``listing``: the series of a folder in words, for somebody who has to choose one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.dicom_series import series_in

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.io.dicom_series import Series

__all__ = ["choices", "listing"]


def listing(path: Path) -> list[str]:
    """Say of each series its number and description, modality, size and spacing.

    Parameters
    ----------
    path : Path
        A folder, or a file of it.

    Returns
    -------
    list of str
        ``"2: early, CT, 4 slices of 512 x 512, 0.75 x 0.75 x 2.5 mm"``; by the numbers that ``--series`` takes.

    Raises
    ------
    InputError
        As `series_in`.
    """
    return [_told(series) for series in series_in(path)]


def choices(path: Path) -> list[int]:
    """Return the numbers of the series that are images, and not segmentations of these.

    Raises
    ------
    InputError
        As `series_in`.
    """
    return [number for number, series in enumerate(series_in(path)) if not series.is_labels]


def _told(series: Series) -> str:
    first, count = series.first, len(series.frames)
    title, _, _ = series.title.rpartition(", ")
    if series.is_labels:
        return ", ".join(part for part in (title, "a segmentation") if part)
    size = f"{first.shape[1]} x {first.shape[0]}"
    many = f"{count} {'slice' if first.of == 1 else 'frame'}{'s' * (count != 1)} of {size}"
    parts = [title, first.modality if title != first.modality else "", many, _spacing(series)]
    return ", ".join(part for part in parts if part)


def _spacing(series: Series) -> str:
    """Return the steps along x, y and z, as far as the files tell them."""
    try:
        grid = series.grid("", partial=True)
    except InputError:
        steps = list(series.first.spacing[::-1])
    else:
        known = [series.first.spacing] * 2 + [grid.placed and (len(series.frames) > 1 or series.first.thick)]
        steps = [float(np.linalg.norm(grid.matrix[:3, axis])) for axis in range(3) if known[axis]]
    return " x ".join(f"{step:.4g}" for step in steps) + " mm" if steps else ""
