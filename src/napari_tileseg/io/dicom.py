"""DICOM images: a folder, or one of its files; slices in their order in the body, frames, times, colours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.dicom_header import quiet
from napari_tileseg.io.dicom_series import files_stamp, series_at, series_in
from napari_tileseg.io.files import amount, damaged
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.space import axes_affine
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.io.dicom_header import Frame
    from napari_tileseg.io.dicom_series import Grid, Series

    Frames = tuple[tuple[Frame | None, ...], ...]


__all__ = ["count_dicom", "read_dicom"]

_WHOLE_BYTES = 2**27
"""Images up to this size (128 MB) are read into memory at once."""

_CINE = ("US", "XA", "RF", "ES", "GM", "IVUS")
"""Modalities whose frames follow each other in time."""


def read_dicom(path: Path, *, series: int = 0, level: int = 0, partial: bool = False, lazy: bool = False) -> Volume:
    """Read a series of DICOM: ``"ZYX"`` where the files tell the place in the body, else a plane or frames.

    Slices are sorted by their place. Several images of each slice are time (T), or channels (C) where echo time, diffusion weighting
    or type differ. Values are those after rescaling: whole numbers where slope and intercept are whole, else float32. Lengths are
    millimetres, the world is LPS. A segmentation is read as labels.

    Parameters
    ----------
    path : Path
        A folder, or one file of a series.
    series : int
        Which of the series in the folder; ``metadata["series_names"]`` lists them.
    level : int
        Must be 0.
    partial : bool
        Accept a series that lacks slices: reading one of these raises.
    lazy : bool
        Leave small images in their files too.

    Returns
    -------
    Volume
        In memory up to 128 MB, else read frame by frame where it is indexed.

    Raises
    ------
    InputError
        If there is no image, a file is cut off, a slice is missing, or slices lie at unequal distances.
    """
    if level:
        raise InputError(f'"{path.name}" has one resolution. Choose level 0.')
    chosen, count = series_at(path, series)
    name = path.name if path.is_dir() else path.stem if len(chosen.files) == 1 else path.parent.name
    metadata: dict[str, Any] = {"format": "dicom", "stamp": files_stamp(chosen.files)}
    if count > 1:
        metadata |= {"series": count, "series_names": [item.title for item in series_in(path)]}
    if chosen.is_labels:
        from napari_tileseg.io.dicom_seg import read_segmentation

        return read_segmentation(chosen.first.file, metadata)
    # Where a segmentation finds the headers that it has to repeat; no part of any provenance.
    metadata["dicom"] = {"folder": str(chosen.first.file.parent), "file": chosen.first.file.name, "place": series, "given": str(path)}
    if chosen.first.photometric == "MONOCHROME1":
        metadata["inverted"] = True  # the values stay; the lowest is shown white
    return _volume(chosen, chosen.grid(path.name, partial=partial), name, metadata, lazy=lazy)


def count_dicom(path: Path) -> int:
    """Return how many series a folder holds, or a file belongs to.

    Raises
    ------
    InputError
        If there is none, or a header cannot be read.
    """
    return len(series_in(path))


def _volume(series: Series, grid: Grid, name: str, metadata: dict[str, Any], *, lazy: bool) -> Volume:
    first = series.first
    moments, places = len(grid.frames), len(grid.frames[0])
    letter, channels = _letter(grid.frames) if moments > 1 else ("", ())
    colour = len(first.shape) == 3
    if colour and letter == "C":
        letter = "T"
    deep = grid.placed or places > 1
    depth = "Z" if grid.placed or first.modality not in _CINE else "T"
    axes = f"{letter}{depth if deep else ''}YX{'C' if colour else ''}"
    shape = (*((moments,) if letter else ()), *((places,) if deep else ()), *first.shape)
    if deep and not grid.placed and not (depth == "T" and first.step):
        metadata["guessed_axes"] = depth
    time = _time(grid.frames) if letter == "T" else first.step
    affine = axes_affine(axes, grid.matrix, time=(time or 1.0, 0.0))
    known = grid.placed or bool(first.spacing)
    units = tuple(
        "millimeter" if (axis in "YX" and known) or (axis == "Z" and grid.placed) else "millisecond" if axis == "T" and time else "pixel"
        for axis in axes
    )
    dtype, scaled = _dtype(series)
    full = (moments, places if deep else 1, *first.shape)
    reader = _Reader(grid.frames, dtype, scaled, full, shape)
    late = LazyArray(shape, dtype, reader)
    data: Any = late if lazy or late.nbytes > _WHOLE_BYTES or any(None in stack for stack in grid.frames) else late[...]
    return Volume(data, axes, affine, units, name, ("red", "green", "blue") if colour else channels, metadata)


def _letter(frames: Frames) -> tuple[str, tuple[str, ...]]:
    """Say what several images of one place are: channels with their names, or moments."""
    found = [next(frame for frame in stack if frame is not None) for stack in frames]
    variants = [frame.variant for frame in found]
    if len(set(variants)) < len(variants):
        return "T", ()
    names = (("echo {:g} ms", 0), ("b {:g}", 1), ("{}", 2))
    differing = [(text, index) for text, index in names if len({variant[index] for variant in variants}) > 1]
    return "C", tuple(" ".join(text.format(variant[index]) for text, index in differing) for variant in variants)


def _time(frames: Frames) -> float:
    """Return the step of time in milliseconds, 0 if it is not known."""
    found = [next(frame for frame in stack if frame is not None) for stack in frames]
    triggers = np.diff([frame.moment[1] for frame in found])
    if len(triggers) and triggers.min() > 0:
        return float(np.median(triggers))
    return found[0].step


def _dtype(series: Series) -> tuple[np.dtype[Any], bool]:
    """Return the type of the values after rescaling, and whether they are rescaled at all."""
    first = series.first
    allocated, stored, _ = first.bits
    if first.real:
        return np.dtype(f"f{allocated // 8}"), False
    plain = np.dtype(f"{'i' if first.signed else 'u'}{max(allocated, 8) // 8}")
    factors = {(frame.slope, frame.intercept) for frame in series.frames}
    if factors == {(1.0, 0.0)}:
        return plain, False
    if all(slope.is_integer() and intercept.is_integer() for slope, intercept in factors):
        low, high = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if first.signed else (0, 2**stored - 1)
        ends = [slope * value + intercept for slope, intercept in factors for value in (low, high)]
        for name in ("int16", "int32"):
            if np.iinfo(name).min <= min(ends) and max(ends) <= np.iinfo(name).max:
                return np.dtype(name), True
    return np.dtype(np.float32), True


class _Reader:
    """Reads a box of a series frame by frame.

    Parameters
    ----------
    frames : tuple of tuple of Frame
        By moment and place.
    dtype : dtype
    scaled : bool
        Whether slope and intercept are applied.
    full, shape : tuple of int
        Lengths with and without the axes that the volume lacks.
    """

    def __init__(self, frames: Frames, dtype: np.dtype[Any], scaled: bool, full: tuple[int, ...], shape: tuple[int, ...]) -> None:
        self._frames, self._dtype, self._scaled, self._full, self._shape = frames, dtype, scaled, full, shape

    def __call__(self, box: tuple[slice, ...]) -> NDArray[Any]:
        inner = len(self._full) - 2
        outer = list(box[: len(box) - inner])
        moment = outer.pop(0) if len(outer) > 0 and self._full[0] > 1 else slice(0, 1)
        place = outer.pop(0) if outer else slice(0, 1)
        planes = box[len(box) - inner :]
        out = np.empty((moment.stop - moment.start, place.stop - place.start, *(span.stop - span.start for span in planes)), self._dtype)
        for row in range(moment.start, moment.stop):
            for column in range(place.start, place.stop):
                out[row - moment.start, column - place.start] = self._plane(row, column)[planes]
        return out.reshape([span.stop - span.start for span in box])

    def _plane(self, moment: int, place: int) -> NDArray[Any]:
        frame = self._frames[moment][place]
        if frame is None:
            raise InputError(f"Slice {place + 1} is missing. Copy the whole series again.")
        pixels = _pixels(frame)
        if not self._scaled:
            return pixels.astype(self._dtype, copy=False)
        wide: NDArray[Any] = pixels.astype(np.int64 if self._dtype.kind == "i" else np.float64)
        wide *= wide.dtype.type(frame.slope)
        wide += wide.dtype.type(frame.intercept)
        return wide.astype(self._dtype)


def _pixels(frame: Frame) -> NDArray[Any]:
    """Read one plane as it is stored; colours are red, green and blue."""
    from napari_tileseg.io.dicom_codecs import install

    install()
    path = frame.file
    try:
        with quiet():
            if frame.photometric == "PALETTE COLOR":
                return _by_palette(frame)
            pixels = _unpacked(frame)
    except (EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise _broken(path) from error
    except (NotImplementedError, RuntimeError) as error:
        if "compress" in str(error).lower() or "decode" in str(error).lower() or "decoding" in str(error).lower():
            raise InputError(
                f'"{path.name}" is packed in a way that cannot be unpacked here ({_syntax(path)}). '
                "Save it uncompressed in the program that made it."
            ) from error
        raise _broken(path) from error
    if pixels.shape != frame.shape:
        raise _broken(path)
    return pixels if frame.real else _bits(pixels, frame)


def _unpacked(frame: Frame) -> NDArray[Any]:
    import pydicom
    from pydicom.pixels.utils import pixel_array

    pixels: NDArray[Any]
    try:
        pixels = pixel_array(frame.file, index=frame.number)
    except AttributeError:  # what is deflated, or begins otherwise than usual, has to be read whole
        whole = pydicom.dcmread(frame.file, force=True)
        if "TransferSyntaxUID" not in whole.file_meta:
            whole.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        pixels = pixel_array(whole, index=frame.number)
    return pixels


def _bits(pixels: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """Drop bits that hold no part of the value: older files keep overlays there."""
    allocated, stored, high = frame.bits
    if stored >= allocated or len(frame.shape) == 3 or pixels.dtype.itemsize * 8 != allocated:
        return pixels
    value: NDArray[Any] = np.right_shift(np.left_shift(pixels, allocated - 1 - high), allocated - stored)
    return value


def _by_palette(frame: Frame) -> NDArray[Any]:
    import pydicom
    from pydicom.pixels.processing import apply_color_lut
    from pydicom.pixels.utils import pixel_array

    header = pydicom.dcmread(frame.file)
    colours: Any = apply_color_lut(pixel_array(header, index=frame.number), header)
    rgb: NDArray[Any] = np.asarray(colours >> 8 if colours.dtype == np.uint16 else colours)
    return rgb.astype(np.uint8)


def _syntax(path: Path) -> str:
    import pydicom

    with quiet():
        meta = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Rows"]).file_meta
    return str(meta.TransferSyntaxUID.name) if "TransferSyntaxUID" in meta else "unknown"


def _broken(path: Path) -> InputError:
    if path.stat().st_size < 1024:
        return damaged(path, "DICOM")
    return InputError(
        f'The pixels of "{path.name}" are cut off or damaged: the file ends after {amount(path.stat().st_size)}. Copy it again.'
    )
