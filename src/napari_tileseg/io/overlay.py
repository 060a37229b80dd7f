"""Labels drawn over their image, as a PNG for people to look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_tileseg.io.output import put_in_place

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.volume import Volume

__all__ = ["Panel", "displayed", "object_panels", "outlines", "plane_panels", "rgb", "write_overlay"]

_INK = (255, 214, 10)
_GROUND = (24, 24, 27)
_TEXT = (235, 235, 240)
_MARGIN = 12
_CAPTION = 26
_SIDE = 560
"""About how many pixels the longer side of a panel gets."""


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of an overlay.

    Parameters
    ----------
    caption : str
        The line above it.
    image : ndarray of uint8, shape (Y, X, 3)
        What is shown.
    labels : ndarray of int, shape (Y, X), optional
        What is outlined.
    colors : tuple of str
        ``#rrggbb`` for each label from 1 on; one colour for all if empty.
    """

    caption: str
    image: NDArray[np.uint8]
    labels: NDArray[Any] | None = None
    colors: tuple[str, ...] = ()


def object_panels(image: Volume, labels: NDArray[Any], reference: NDArray[Any], *, found: str, expected: str) -> list[list[Panel]]:
    """Return one row: the image, the objects found, the objects of the reference."""
    shown = displayed(np.asarray(image.data))
    return [[Panel("Image", shown), Panel(found, shown, labels), Panel(expected, shown, reference)]]


def plane_panels(
    image: Volume, labels: NDArray[Any], reference: NDArray[Any], colors: tuple[str, ...], *, found: str, expected: str
) -> list[list[Panel]]:
    """Return two rows, reference and prediction, of the three planes through the middle of the labelled part.

    Planes are shown as radiologists look at them: superior and anterior up, the patient's left on the right.
    The grid must not be turned against the axes of the body; it may be mirrored.
    """
    voxels = displayed(np.asarray(image.data))
    spacing = [image.spacing[axis] for axis in image.axes]
    mirrored = np.diag(image.affine)[:3] < 0
    middle = [round(float(places.mean())) for places in np.nonzero(reference)] if reference.any() else [size // 2 for size in image.shape]
    rows = []
    for caption, mask in ((expected, reference), (found, labels)):
        row = []
        for axis, name in enumerate(("axial", "coronal", "sagittal")):
            across = [other for other in range(3) if other != axis]
            flips = [axis_across for place, axis_across in enumerate(across) if mirrored[axis_across] != (axis_across == 0)]
            scale = [spacing[other] for other in across]
            picture = _plane(voxels, axis, middle[axis], across, flips, scale)
            outline = _plane(mask, axis, middle[axis], across, flips, scale)
            row.append(Panel(f"{caption}, {name}", picture, outline, colors))
        rows.append(row)
    return rows


def _plane(voxels: NDArray[Any], axis: int, index: int, across: list[int], flips: list[int], scale: list[float]) -> NDArray[Any]:
    """Cut a plane out, turn it upright and give it square pixels (nearest neighbour)."""
    plane: NDArray[Any] = np.flip(np.take(voxels, index, axis=axis), tuple(across.index(other) for other in flips))
    for place, step in enumerate(scale):
        size = max(1, round(plane.shape[place] * step / min(scale)))
        plane = np.take(plane, (np.arange(size) * plane.shape[place]) // size, axis=place)
    return plane


def displayed(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return grey or RGB values as 8-bit RGB; grey ones stretched from the 0.5th to the 99.8th percentile, without what is not finite."""
    if values.ndim == 3 and values.shape[-1] == 3 and values.dtype == np.uint8:
        return values
    real = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = np.percentile(real, (0.5, 99.8))
    scaled = np.clip((real - low) / max(high - low, 1e-12), 0, 1)
    return np.repeat((255 * scaled).astype(np.uint8)[..., None], 3, axis=-1)


def write_overlay(path: Path, rows: Sequence[Sequence[Panel]], *, legend: Sequence[tuple[str, str]] = (), overwrite: bool = False) -> Path:
    """Draw panels side by side, rows below each other, and save them as PNG.

    Parameters
    ----------
    legend : sequence of (name, color)
        What the colours mean; one line at the bottom.

    Raises
    ------
    OutputError
        If the file cannot be written there.
    """
    zoom = max(1, math.ceil(_SIDE / max(side for row in rows for panel in row for side in panel.image.shape[:2])))
    drawn = [[_drawn(panel, zoom) for panel in row] for row in rows]
    heights = [max(picture.height for picture in row) + _CAPTION for row in drawn]
    columns = max(len(row) for row in drawn)
    widths = [max(row[index].width for row in drawn if index < len(row)) for index in range(columns)]
    bottom = _MARGIN + sum(height + _MARGIN for height in heights)
    font = ImageFont.load_default(size=17)
    wide = max(_MARGIN + sum(width + _MARGIN for width in widths), _MARGIN + sum(48 + round(font.getlength(name)) for name, _ in legend))
    sheet = Image.new("RGB", (wide, bottom + (_CAPTION if legend else 0)), _GROUND)
    pen = ImageDraw.Draw(sheet)
    top = _MARGIN
    for row, pictures, height in zip(rows, drawn, heights, strict=True):
        left = _MARGIN
        for panel, picture, width in zip(row, pictures, widths, strict=False):
            pen.text((left, top), panel.caption, fill=_TEXT, font=font)
            sheet.paste(picture, (left, top + _CAPTION))
            left += width + _MARGIN
        top += height + _MARGIN
    left = _MARGIN
    for name, color in legend:
        pen.rectangle((left, bottom, left + 16, bottom + 16), fill=color)
        pen.text((left + 24, bottom - 2), name, fill=_TEXT, font=font)
        left += 48 + round(pen.textlength(name, font=font))
    with put_in_place(path, overwrite=overwrite) as temporary:
        sheet.save(temporary, format="PNG", compress_level=4)
    return path


def _drawn(panel: Panel, zoom: int) -> Image.Image:
    """Enlarge a panel by a whole number, smoothly, and draw its outlines one or two pixels wide inside the objects."""
    size = (panel.image.shape[1] * zoom, panel.image.shape[0] * zoom)
    pixels = np.array(Image.fromarray(np.ascontiguousarray(panel.image)).resize(size, Image.Resampling.BICUBIC))
    if panel.labels is not None:
        labels = np.repeat(np.repeat(panel.labels, zoom, axis=0), zoom, axis=1)
        lines = outlines(labels, width=1 if zoom == 1 else 2)
        palette = np.array([_INK, *(rgb(color) for color in panel.colors)], dtype=np.uint8)
        pixels[lines] = palette[labels[lines]] if panel.colors else palette[0]
    return Image.fromarray(pixels)


def outlines(labels: NDArray[Any], *, width: int) -> NDArray[np.bool_]:
    """Return the pixels of each object that lie within `width` of another object or of the background."""
    edge = np.zeros(labels.shape, dtype=bool)
    for first, second in _NEIGHBOURS:
        differs = labels[first] != labels[second]
        edge[first] |= differs
        edge[second] |= differs
    for _ in range(width - 1):  # what lies beside an edge belongs to the same object, or is on an edge itself
        wider = edge.copy()
        for first, second in _NEIGHBOURS:
            wider[first] |= edge[second]
            wider[second] |= edge[first]
        edge = wider
    lines: NDArray[np.bool_] = edge & (labels > 0)
    return lines


_ALL, _FROM, _TO = slice(None), slice(1, None), slice(None, -1)
_NEIGHBOURS = (((_FROM, _ALL), (_TO, _ALL)), ((_ALL, _FROM), (_ALL, _TO)), ((_FROM, _FROM), (_TO, _TO)), ((_FROM, _TO), (_TO, _FROM)))
"""Pairs of parts of a picture that lie one pixel apart: below, beside, and the two diagonals."""


def rgb(color: str) -> tuple[int, int, int]:
    """Read ``#rrggbb``."""
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
