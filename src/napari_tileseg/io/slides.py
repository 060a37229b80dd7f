"""Whole slides (Aperio, Hamamatsu, MIRAX, Leica, Ventana, Trestle, Philips), with OpenSlide where it is installed."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.files import check_readable
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_slide"]

_WIDEST = 4096
"""Pixels of a row that are asked for at once: OpenSlide gives four bytes for each."""


def read_slide(path: Path, *, series: int = 0, level: int = 0) -> Volume:
    """Read a slide: ``"YXC"`` with red, green and blue, in micrometres where the slide says how large its pixels are.

    Label and overview pictures, which may show names of patients, are not opened. What was not scanned has the slide's
    background colour, white by default.

    Parameters
    ----------
    path : Path
        ``.svs``, ``.ndpi``, ``.mrxs``, ``.scn``, ``.bif``, ``.vms``, ``.svslide``.
    series : int
        0: a slide holds one image.
    level : int
        Which resolution, 0 the finest; coarser ones are in ``Volume.levels``.

    Returns
    -------
    Volume
        Read where it is indexed.

    Raises
    ------
    InputError
        If OpenSlide is not installed, or the file is no slide that it knows.
    """
    check_readable(path)
    openslide = _library(path)
    try:
        slide = openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise InputError(
            f'"{path.name}" is no slide that OpenSlide can open, or it is damaged. Copy it again, with all its files.'
        ) from error
    if series:
        raise InputError(f'"{path.name}" holds one image. Choose series 0, not {series}.')
    count = slide.level_count
    if not 0 <= level < count:
        raise InputError(f'"{path.name}" has {count} resolutions. Choose level 0 to {count - 1}, not {level}.')
    volumes = [_level(path, slide, index) for index in range(level, count)]
    return replace(volumes[0], levels=tuple(volumes[1:]))


def _library(path: Path) -> Any:
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError: the package is there, the library itself is not
        raise InputError(f'"{path.name}" needs OpenSlide. Install it: pip install "napari-tileseg[slides]".') from error
    return openslide


def _level(path: Path, slide: Any, index: int) -> Volume:
    full_width, full_height = slide.dimensions
    width, height = slide.level_dimensions[index]
    by = (full_height / height, full_width / width)
    background = tuple(bytes.fromhex(slide.properties.get("openslide.background-color", "FFFFFF")))

    def read(box: tuple[slice, ...]) -> NDArray[np.uint8]:
        rows, columns, channels = box
        block = np.empty((rows.stop - rows.start, columns.stop - columns.start, 3), np.uint8)
        for left in range(columns.start, columns.stop, _WIDEST):
            right = min(left + _WIDEST, columns.stop)
            block[:, left - columns.start : right - columns.start] = _region(
                path, slide, index, (rows.start, left), (rows.stop, right), by, background
            )
        return block[:, :, channels]

    steps = _micrometres(slide)
    scale = (*(step * factor for step, factor in zip(steps or (1.0, 1.0), by, strict=True)), 1.0)
    # A coarse pixel's centre lies between those of the fine pixels it stands for.
    shift = (*(step * (factor - 1) / 2 for step, factor in zip(steps or (1.0, 1.0), by, strict=True)), 0.0)
    unit = "micrometer" if steps else "pixel"
    metadata = {"format": "slide", "vendor": slide.properties.get("openslide.vendor", "")}
    metadata |= {"levels": slide.level_count} if slide.level_count > 1 else {}
    return Volume.from_scale(
        LazyArray((height, width, 3), np.uint8, read),
        "YXC",
        scale,
        translate=shift,
        units=(unit, unit, "pixel"),
        name=path.stem,
        channel_names=("red", "green", "blue"),
        metadata=metadata,
    )


def _region(
    path: Path, slide: Any, index: int, start: tuple[int, int], stop: tuple[int, int], by: tuple[float, float], background: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Read a box of a level; its corner is given in pixels of the finest one, as OpenSlide wants it."""
    corner = (round(start[1] * by[1]), round(start[0] * by[0]))
    try:
        picture = slide.read_region(corner, index, (stop[1] - start[1], stop[0] - start[0]))
    except Exception as error:  # OpenSlide closes a slide after its first error
        raise InputError(f'"{path.name}" cannot be read at row {start[0]}, column {start[1]} of level {index}. Copy it again.') from error
    pixels = np.asarray(picture)
    seen = pixels[..., 3:]
    colours = pixels[..., :3]
    return colours if seen.all() else np.where(seen > 0, colours, np.array(background, np.uint8))


def _micrometres(slide: Any) -> tuple[float, float] | None:
    """Return height and width of a pixel, if the slide tells both."""
    try:
        steps = tuple(float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "yx")
    except (KeyError, ValueError):
        return None
    return (steps[0], steps[1]) if all(math.isfinite(step) and step > 0 for step in steps) else None
