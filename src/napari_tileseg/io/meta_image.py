"""MetaImage (``.mha``, ``.mhd``), with SimpleITK where it is installed."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.files import amount, check_readable, damaged
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.space import axes_affine, check_grid, decode_note
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["FIELD", "KEY", "read_meta_image"]

_WHOLE_BYTES = 2**27
"""Volumes up to this size (128 MB) are read into memory at once."""

KEY = "napari-tileseg"
"""What the names of the fields with our own note begin with."""

_HEADER = 2**24
"""Bytes at the start that are looked at."""

FIELD = 4000
"""Letters of one field of the header: all versions of ITK read so many."""


def read_meta_image(path: Path, *, series: int = 0, level: int = 0, lazy: bool = False) -> Volume:
    """Read a MetaImage; its axes are reversed, its world is LPS and in millimetres, as ITK has it.

    A fourth axis is time; several numbers for a voxel become the axis C, the last one. Without any size, place or direction the
    lengths are pixels.

    Parameters
    ----------
    path : Path
        ``.mha``, or ``.mhd`` beside the file of its voxels.
    series, level : int
        Must be 0.
    lazy : bool
        Leave small images in their file too.

    Returns
    -------
    Volume
        In memory up to 128 MB, else read where it is indexed.

    Raises
    ------
    InputError
        If SimpleITK is not installed, or the file is missing, no MetaImage or cut off.
    """
    check_readable(path)
    itk = _library(path)
    if series or level:
        raise InputError(f'"{path.name}" holds one image. Choose series 0 and level 0.')
    with path.open("rb") as stream:
        start = stream.read(_HEADER)
    if b"dimsize" not in start.lower() or b"elementtype" not in start.lower():  # ITK would tell the terminal
        raise damaged(path, "MetaImage")
    _check_voxels(path, start)
    reader = itk.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    try:
        with _quiet(itk):
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(path, error) from error
    sizes = tuple(int(size) for size in reader.GetSize())
    if len(sizes) > 4:
        raise InputError(f'"{path.name}" has {len(sizes)} axes. Up to four are accepted: x, y, z and time.')
    kind = reader.GetPixelID()
    parts = int(reader.GetNumberOfComponents())
    if "complex" in itk.GetPixelIDValueAsString(kind):
        raise InputError(f'"{path.name}" holds complex numbers. Whole and real numbers are accepted.')
    axes = "XYZT"[: len(sizes)][::-1] + ("C" if parts > 1 else "")
    shape = (*sizes[::-1], *((parts,) if parts > 1 else ()))
    affine, units = _grid(path, reader, axes)
    dtype = _dtype(itk, kind)
    late = LazyArray(shape, dtype, lambda box: _read(itk, path, box, len(sizes)))
    data: Any = late if lazy or late.nbytes > _WHOLE_BYTES else late[...]
    channels = ("red", "green", "blue") if parts == 3 and dtype == np.uint8 else ()
    volume = Volume(data, axes, affine, units, path.stem, channels, {"format": "metaimage"})
    note = _note(reader)
    return decode_note(volume, note) if note else volume


def _check_voxels(path: Path, start: bytes) -> None:
    """Raise if the file of the voxels is missing; a list or a pattern of files is left to ITK."""
    told = re.search(rb"^[ \t]*ElementDataFile[ \t]*=[ \t]*([^\r\n]+?)[ \t]*\r?$", start, re.IGNORECASE | re.MULTILINE)
    name = os.fsdecode(told[1]) if told else "LOCAL"
    if name.upper() == "LOCAL" or name.upper().startswith("LIST") or "%" in name:
        return
    if not (path.parent / name).is_file():
        raise InputError(f'"{path.name}" has its voxels in "{name}", which is missing. Copy both files into one folder.')


def _library(path: Path) -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise InputError(f'"{path.name}" needs SimpleITK. Install it: pip install "napari-tileseg[medical]".') from error
    return SimpleITK


class _quiet:
    """Keep the library from writing warnings to the terminal: what matters is raised as one sentence."""

    def __init__(self, itk: Any) -> None:
        self._itk = itk

    def __enter__(self) -> None:
        self._was = self._itk.ProcessObject.GetGlobalWarningDisplay()
        self._itk.ProcessObject.SetGlobalWarningDisplay(False)

    def __exit__(self, *_: object) -> None:
        self._itk.ProcessObject.SetGlobalWarningDisplay(self._was)


def _unreadable(path: Path, error: RuntimeError) -> InputError:
    text = str(error).lower()
    if "file cannot be read" in text or "no such file" in text:
        return InputError(f'"{path.name}" or the file of its voxels ends too early, or is missing. Copy both again.')
    if "zero" in text and "spacing" in text:
        return InputError(f'"{path.name}" gives a pixel size of 0. Correct it in the program that made the file.')
    if "negative spacing" in text or "spacing" in text:
        return InputError(f'"{path.name}" gives a pixel size that is not above 0. Correct it in the program that made the file.')
    return damaged(path, "MetaImage")


def _dtype(itk: Any, kind: int) -> np.dtype[Any]:
    """Return the NumPy type of a pixel type of SimpleITK."""
    name = itk.GetPixelIDValueAsString(kind).lower().replace("vector of ", "")
    bits, sign, _ = (*name.split(), "")[:3]
    letter = "f" if sign == "float" else "u" if sign == "unsigned" else "i"
    return np.dtype(f"{letter}{int(bits.split('-')[0]) // 8}")


def _read(itk: Any, path: Path, box: tuple[slice, ...], ndim: int) -> NDArray[Any]:
    """Read a box of the file; only what is not compressed is read in parts."""
    reader = itk.ImageFileReader()
    reader.SetImageIO("MetaImageIO")
    reader.SetFileName(str(path))
    space = box[:ndim][::-1]
    reader.SetExtractIndex([span.start for span in space])
    reader.SetExtractSize([span.stop - span.start for span in space])
    try:
        with _quiet(itk):
            part: NDArray[Any] = itk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise InputError(
            f'"{path.name}" ends too early, after {amount(path.stat().st_size)}, or the file of its voxels does. Copy it again.'
        ) from error
    return part[(..., box[ndim])] if len(box) > ndim else part


def _grid(path: Path, reader: Any, axes: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    ndim = int(reader.GetDimension())
    spacing, origin = np.array(reader.GetSpacing()), np.array(reader.GetOrigin())
    direction = np.array(reader.GetDirection()).reshape(ndim, ndim)
    space = min(ndim, 3)
    if (spacing < 0).any():
        axis = "XYZT"[int(np.argmin(spacing))]
        raise InputError(
            f'"{path.name}" gives a pixel size of {spacing.min():g} along {axis}. Correct it in the program that made the file.'
        )
    matrix = np.eye(4)
    matrix[:space, :space] = (direction * spacing)[:space, :space]
    matrix[:space, 3] = origin[:space]
    check_grid(path, matrix, "XYZ"[:space])
    time = (float(spacing[3]), float(origin[3])) if ndim > 3 else (1.0, 0.0)
    plain = np.array_equal(matrix, np.eye(4))  # written by a program that knows no sizes
    units = tuple("pixel" if axis in "CT" or plain else "millimeter" for axis in axes)
    return axes_affine(axes, matrix, time=time), units


def _note(reader: Any) -> dict[str, Any]:
    """Return what `meta_image_labels` put into the header."""
    fields = sorted(key for key in reader.GetMetaDataKeys() if key.startswith(f"{KEY}-"))
    try:
        found = json.loads("".join(str(reader.GetMetaData(key))[1:-1] for key in fields))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
