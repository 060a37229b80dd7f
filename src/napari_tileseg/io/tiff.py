"""TIFF files: OME-TIFF, ImageJ TIFF and plain TIFF, read tile by tile where they are large."""

from __future__ import annotations

import functools
import logging
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_tileseg.errors import InputError
from napari_tileseg.io.files import check_readable, damaged, too_short
from napari_tileseg.io.ifd import chain_end
from napari_tileseg.io.imagej import read_note
from napari_tileseg.io.lazy import LazyArray, native
from napari_tileseg.io.ome import OmeImage, parse_ome
from napari_tileseg.io.tiff_unpack import in_huge_pieces, unpack
from napari_tileseg.io.units import TIMES, unit_name
from napari_tileseg.volume import AXIS_NAMES, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["count_tiff", "read_tiff"]

_WHOLE_BYTES = 2**26
"""Images up to this size (64 MB) are read into memory at once."""

_COARSEST_UM = 20.0
"""Pixels from plain resolution tags are believed below this size: 1270 dots per inch is finer than any print setting."""

_GUESSES = {1: "Z", 2: "TZ", 3: "TCZ"}


def read_tiff(path: Path, *, series: int = 0, level: int = 0, partial: bool = False, lazy: bool = False) -> Volume:
    """Read a TIFF image of any common flavour.

    Samples of a pixel become the axis C where the file has them (``"YXC"`` for RGB); an alpha channel is left out.
    Axes that the file does not name are guessed (Z for one) and listed in ``metadata["guessed_axes"]``;
    ``metadata["series"]`` and ``metadata["levels"]`` say how many images and resolutions there are, if several; the resolutions
    that are coarser than `level` are in ``Volume.levels``.

    Parameters
    ----------
    path : Path
        The file.
    series : int
        Which of its images.
    level : int
        Which of the image's resolutions, 0 the finest.
    partial : bool
        Open a file that is cut off or damaged too, as long as it says what it should hold: what is missing raises when it is
        indexed.
    lazy : bool
        Leave small images in their file too.

    Returns
    -------
    Volume
        In memory up to 64 MB, else read where it is indexed.

    Raises
    ------
    InputError
        If the file is missing, no TIFF, cut off, or holds axes that are none of T, C, Z, Y, X.
    """
    check_readable(path)
    kind = "TIFF"
    try:
        with _quiet(), tifffile.TiffFile(path) as tif:
            _check_chain(path)
            chosen = _choose(path, tif, series, level)
            if not partial:
                _check_segments(path, chosen)
            facts = _facts(tif, series)
            layout = _Layout.of(path, chosen)
            data = _load(path, tif, chosen, layout, partial=partial or lazy)
            first, levels = tif.series[series], tif.series[series].levels
            counts = {"series": len(tif.series), "levels": len(levels)}
            coarser = [
                (
                    _Layout.of(path, item),
                    _shrink(first, item),
                    _later(path, series, index, np.dtype(item.dtype), _Layout.of(path, item), partial),
                )
                for index, item in enumerate(levels)
                if index > level
            ]
            shrink = _shrink(first, chosen)
    except tifffile.TiffFileError as error:
        _check_chain(path)
        raise damaged(path, kind) from error
    except (ValueError, IndexError, KeyError, RuntimeError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise InputError(f'"{path.name}" could not be read: {error.strerror}.') from error
        raise damaged(path, kind) from error
    volume = _volume(path, data, layout, facts, shrink, counts)
    below = tuple(_volume(path, late, place, facts, by, counts) for place, by, late in coarser if place.axes == layout.axes)
    return replace(volume, levels=tuple(item for item in below if item.axes == volume.axes))


def count_tiff(path: Path) -> int:
    """Return how many images a file holds.

    Raises
    ------
    InputError
        If the file is missing, no TIFF, or damaged.
    """
    check_readable(path)
    try:
        with _quiet(), tifffile.TiffFile(path) as tif:
            return max(1, len(tif.series))
    except (ValueError, IndexError, KeyError, RuntimeError, zlib.error) as error:
        raise damaged(path, "TIFF") from error


@dataclass(frozen=True)
class _Facts:
    """What the file says about its axes besides their names."""

    flavour: str
    scale: dict[str, float] = field(default_factory=dict)
    unit: dict[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    ome: OmeImage | None = None


@dataclass(frozen=True)
class _Layout:
    """How the stored axes become those of a volume.

    Parameters
    ----------
    axes : str
        Letters of the axes that are kept.
    shape : tuple of int
        Their lengths, without an alpha channel.
    kept : tuple of int
        Their positions among the stored axes; the others have length 1.
    stored : tuple of int
        Lengths of the stored axes.
    guessed : str
        The letters that the file did not name.
    """

    axes: str
    shape: tuple[int, ...]
    kept: tuple[int, ...]
    stored: tuple[int, ...]
    guessed: str = ""

    @classmethod
    def of(cls, path: Path, series: tifffile.TiffPageSeries) -> _Layout:
        stored = tuple(int(size) for size in series.shape)
        letters = list(series.axes)
        if "S" in letters:
            if "C" in letters and stored[letters.index("C")] > 1:
                raise InputError(f'"{path.name}" has several channels of {stored[letters.index("S")]} colours each. Save each as an image.')
            letters = ["" if letter == "C" else "C" if letter == "S" else letter for letter in letters]
        kept = [index for index, letter in enumerate(letters) if letter in "YX" or stored[index] > 1]
        kept = [index for index in kept if letters[index]]
        letters, guessed = _name_unknown(path, letters, kept)
        shape = [stored[index] for index in kept]
        axes = "".join(letters[index] for index in kept)
        if "C" in axes and "S" in series.axes:
            position = axes.index("C")
            shape[position] -= _alpha_samples(series)
            if shape[position] == 1:
                axes = axes.replace("C", "")
                del shape[position], kept[position]
        return cls(axes, tuple(shape), tuple(kept), stored, guessed)

    def whole(self, array: NDArray[Any]) -> NDArray[Any]:
        """Cut and squeeze an array of the stored shape."""
        return self.cut(array, tuple(slice(0, size) for size in self.shape))

    def cut(self, array: Any, box: tuple[slice, ...]) -> NDArray[Any]:
        """Read a box, given along the kept axes, from an array of the stored shape."""
        keys = [slice(0, 1)] * len(self.stored)
        for index, span in zip(self.kept, box, strict=True):
            keys[index] = span
        part: NDArray[Any] = np.asarray(array[tuple(keys)])
        return part.reshape([part.shape[index] for index in self.kept])


def _name_unknown(path: Path, letters: list[str], kept: list[int]) -> tuple[list[str], str]:
    """Give a letter to each axis of unknown meaning; refuse those with a meaning that volumes do not have."""
    unknown = [index for index in kept if letters[index] in "QI"]
    foreign = [index for index in kept if letters[index] not in "QI" and letters[index] not in AXIS_NAMES]
    if foreign:
        name = tifffile.TIFF.AXES_NAMES.get(letters[foreign[0]], letters[foreign[0]])
        raise InputError(f'"{path.name}" has an axis "{name}". Time, channel, Z, Y and X are accepted; save one entry of it as an image.')
    free = [letter for letter in _GUESSES.get(len(unknown), "") if letter not in letters]
    free += [letter for letter in "ZTC" if letter not in free and letter not in letters]
    if len(unknown) > len(free):
        raise InputError(f'"{path.name}" has {len(kept)} axes. Images of up to five are accepted: time, channel, Z, Y and X.')
    names = list(letters)
    for index, letter in zip(unknown, free, strict=False):
        names[index] = letter
    return names, "".join(names[index] for index in unknown)


def _alpha_samples(series: tifffile.TiffPageSeries) -> int:
    """Return how many of the samples at the end are transparency."""
    page = series.keyframe
    extra = tuple(int(sample) for sample in page.extrasamples)
    return 1 if extra and extra[-1] in (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA) else 0


def _choose(path: Path, tif: tifffile.TiffFile, series: int, level: int) -> tifffile.TiffPageSeries:
    if not tif.series:
        raise damaged(path, "TIFF")
    if not 0 <= series < len(tif.series):
        raise InputError(f'"{path.name}" has {len(tif.series)} images. Choose series 0 to {len(tif.series) - 1}, not {series}.')
    levels = tif.series[series].levels
    if not 0 <= level < len(levels):
        raise InputError(f'"{path.name}" has {len(levels)} resolutions. Choose level 0 to {len(levels) - 1}, not {level}.')
    chosen = levels[level]
    if chosen.dtype is None or np.dtype(chosen.dtype).kind not in "biuf":
        raise InputError(f'"{path.name}" holds values of type {chosen.dtype}. Whole and real numbers are accepted.')
    if 0 in chosen.shape:
        raise InputError(f'"{path.name}" holds an image without pixels. Choose another one.')
    return chosen


def _check_chain(path: Path) -> None:
    expected = chain_end(path)
    if expected is not None and expected > path.stat().st_size:
        raise too_short(path, expected, exact=False)


def _check_segments(path: Path, series: tifffile.TiffPageSeries) -> None:
    """Raise if a strip or tile of the image lies beyond the end of the file."""
    end = 0
    for page in series.pages:
        if page is None:
            raise InputError(f'"{path.name}" lacks some of its planes. Copy it again, with all the files that belong to it.')
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
        end = max(end, *ends) if ends else end
    if series.dataoffset is not None and len(series.pages) == 1:
        end = max(end, series.dataoffset + series.nbytes)  # ImageJ writes one page for a whole stack
    size = path.stat().st_size
    if end > size and len({page.parent.filename for page in series.pages if page}) == 1:
        raise too_short(path, end, exact=True)


def _facts(tif: tifffile.TiffFile, series: int) -> _Facts:
    if tif.is_ome and tif.ome_metadata:
        ome = parse_ome(tif.ome_metadata, series)
        if ome is not None:
            return _Facts("ome-tiff", dict(ome.scale), dict(ome.unit), ome.channels, ome)
    if tif.is_imagej:
        return _imagej_facts(tif)
    return _plain_facts(tif.series[series].keyframe)


def _imagej_facts(tif: tifffile.TiffFile) -> _Facts:
    meta = tif.imagej_metadata or {}
    page = tif.pages.first
    unit = unit_name(str(meta.get("unit", "")))
    scale: dict[str, float] = {}
    units: dict[str, str] = {}
    if unit != "pixel":
        for axis, step in (("X", _step(page, "XResolution")), ("Y", _step(page, "YResolution")), ("Z", meta.get("spacing"))):
            if step is not None and _positive(step):
                scale[axis] = float(step)
                units[axis] = unit_name(str(meta.get(f"{axis.lower()}unit", ""))) if meta.get(f"{axis.lower()}unit") else unit
    interval = meta.get("finterval")
    if interval is not None and _positive(interval):
        scale["T"] = float(interval)
        time = unit_name(str(meta.get("tunit", "sec")))
        units["T"] = time if time in TIMES else "second"
    labels = meta.get("Labels") or ()
    note = read_note(meta)
    channels = tuple(str(label) for label in labels)
    return _Facts("imagej-tiff", scale, units, channels, OmeImage(extra=note) if note else None)


def _plain_facts(page: tifffile.TiffPage) -> _Facts:
    """Take the resolution tags where they are metric or in inches and finer than any printer's."""
    centimetres = {2: 2.54, 3: 1.0}.get(int(page.tags.valueof("ResolutionUnit", 2) or 0))
    steps = {"X": _step(page, "XResolution"), "Y": _step(page, "YResolution")}
    if centimetres is None or not all(_positive(step) for step in steps.values()):
        return _Facts("tiff")
    scale = {axis: float(step) * centimetres * 1e4 for axis, step in steps.items() if step is not None}
    if max(scale.values()) > _COARSEST_UM:
        return _Facts("tiff")
    return _Facts("tiff", scale, dict.fromkeys(scale, "micrometer"))


def _step(page: tifffile.TiffPage, tag: str) -> float | None:
    """Return the length of a pixel in the file's unit: one over the resolution."""
    value = page.tags.valueof(tag)
    if not value or not value[0] or not value[1]:
        return None
    return float(value[1]) / float(value[0])


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and np.isfinite(value) and value > 0


def _later(path: Path, series: int, level: int, dtype: np.dtype[Any], layout: _Layout, partial: bool) -> LazyArray:
    """Return a level that is not opened before somebody looks at it."""

    @functools.cache
    def data() -> Any:
        with _quiet(), tifffile.TiffFile(path) as tif:
            return _load(path, tif, tif.series[series].levels[level], layout, partial=partial)

    return LazyArray(layout.shape, dtype, lambda box: np.asarray(data()[box]))


def _load(path: Path, tif: tifffile.TiffFile, chosen: tifffile.TiffPageSeries, layout: _Layout, *, partial: bool) -> Any:
    if not partial and chosen.nbytes <= _WHOLE_BYTES:
        return native(layout.whole(chosen.asarray().reshape(layout.stored)))
    if not partial and chosen.dataoffset is not None:
        dtype = np.dtype(chosen.dtype).newbyteorder(tif.byteorder)
        mapped = np.memmap(path, dtype=dtype, mode="r", offset=chosen.dataoffset, shape=layout.stored)
        return LazyArray(layout.shape, dtype, lambda box: layout.cut(mapped, box))
    if in_huge_pieces(chosen):
        unpacked = unpack(chosen).reshape(layout.stored)
        return LazyArray(layout.shape, unpacked.dtype, lambda box: layout.cut(unpacked, box))
    import zarr

    store = chosen.aszarr(level=0)  # without the level it would be a group of all of them
    array = zarr.open_array(store, mode="r")
    return LazyArray(layout.shape, array.dtype, lambda box: layout.cut(array, box), close=store.close)


def _shrink(first: tifffile.TiffPageSeries, chosen: tifffile.TiffPageSeries) -> dict[str, float]:
    """Return by what factor each axis of a pyramid level is coarser than the finest one."""
    pairs = zip(first.axes, first.shape, chosen.shape, strict=False)
    return {axis: full / size for axis, full, size in pairs if axis in "ZYX" and full != size}


def _volume(path: Path, data: Any, layout: _Layout, facts: _Facts, shrink: dict[str, float], counts: dict[str, int]) -> Volume:
    metadata: dict[str, Any] = {"format": facts.flavour, **{key: count for key, count in counts.items() if count > 1}}
    if layout.guessed:
        metadata["guessed_axes"] = layout.guessed
    axes, shape = layout.axes, layout.shape
    scale = tuple(facts.scale.get(axis, 1.0) * shrink.get(axis, 1.0) for axis in axes)
    # A coarse pixel's centre lies between those of the fine pixels it stands for.
    shift = (facts.scale.get(axis, 1.0) * (shrink.get(axis, 1.0) - 1) / 2 for axis in axes)
    units = tuple(facts.unit.get(axis, "pixel") for axis in axes)
    channels = facts.channels if "C" in axes and len(facts.channels) == shape[axes.index("C")] else ()
    name = path.name
    for suffix in (".tif", ".tiff", ".btf", ".tf8", ".tf2", ".ome", ".imagej"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    volume = Volume.from_scale(data, axes, scale, translate=tuple(shift), units=units, name=name, channel_names=channels, metadata=metadata)
    if facts.ome is None:
        return volume
    volume = facts.ome.restore(volume, shrink)
    return _whole_numbers(volume) if facts.flavour == "imagej-tiff" else volume


def _whole_numbers(labels: Volume) -> Volume:
    """Return labels that ImageJ had to hold as floating point numbers, because they are above 65535."""
    if labels.dtype.kind != "f":
        return labels
    data = labels.data
    if isinstance(data, np.ndarray):
        return replace(labels, data=data.astype(np.int32))
    return replace(labels, data=LazyArray(labels.shape, np.int32, lambda box: np.asarray(data[box]).astype(np.int32)))


class _quiet:
    """Keep tifffile's log off the screen while a file is opened: what matters is raised as one sentence."""

    def __enter__(self) -> None:
        self._logger = logging.getLogger("tifffile")
        self._was = self._logger.disabled
        self._logger.disabled = True

    def __exit__(self, *_: object) -> None:
        self._logger.disabled = self._was
