"""MetaImage (``.mha``, ``.mhd``), with SimpleITK where it is installed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io.files import amount, check_readable, damaged
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.ome import annotation
from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import smallest_dtype, survey
from napari_tileseg.io.space import as_stored, axes_affine, check_grid, decode_note, xyz_affine, xyz_unit
from napari_tileseg.io.units import is_length, length_factor
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["check_meta_image", "read_meta_image", "write_meta_image"]

_WHOLE_BYTES = 2**27
"""Volumes up to this size (128 MB) are read into memory at once."""

_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
_KEY = "napari-tileseg"
_HEADER = 2**24
"""Bytes at the start that are looked at."""

_FIELD = 4000
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
        start = stream.read(_HEADER).lower()
    if b"dimsize" not in start or b"elementtype" not in start:  # ITK would tell the terminal
        raise damaged(path, "MetaImage")
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
    """Return what `write_meta_image` put into the header."""
    fields = sorted(key for key in reader.GetMetaDataKeys() if key.startswith(f"{_KEY}-"))
    try:
        found = json.loads("".join(str(reader.GetMetaData(key))[1:-1] for key in fields))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write_meta_image(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as one compressed file, in millimetres; classes, colours and provenance are fields of the header, as JSON.

    Raises
    ------
    OutputError
        If SimpleITK is not installed, or the labels are no whole numbers.
    """
    check_meta_image(labels)
    import SimpleITK as itk

    stored = as_stored(ordered(labels, "CTZYX"))
    canonical = ordered(stored, "TZYXC")
    dtype = smallest_dtype(survey(canonical), _DTYPES, "MetaImage")
    voxels = np.asarray(canonical.data[...]).astype(dtype)
    if "T" in canonical.axes and "Z" not in canonical.axes:
        voxels = np.expand_dims(voxels, 1)
    image: Any = itk.GetImageFromArray(voxels, isVector="C" in canonical.axes)
    _place(image, canonical)
    note = json.dumps(annotation(stored, classes=classes, colors=colors, provenance=provenance))
    for number, start in enumerate(range(0, len(note), _FIELD)):
        image.SetMetaData(f"{_KEY}-{number:04d}", f"<{note[start : start + _FIELD]}>")  # so that no blank at the end is cut
    try:
        itk.WriteImage(image, str(path), useCompression=True, imageIO="MetaImageIO")
    except RuntimeError as error:
        raise OSError(f"ITK says: {str(error).strip().splitlines()[-1]}") from error


def check_meta_image(image: Volume) -> None:
    """Raise if the labels of an image could not be saved as MetaImage.

    Raises
    ------
    OutputError
        If SimpleITK is not installed, or the grid is sheared.
    """
    try:
        import SimpleITK  # noqa: F401
    except ImportError as error:
        raise OutputError('Writing MetaImage needs SimpleITK. Install it: pip install "napari-tileseg[medical]".') from error
    linear = xyz_affine(image)[:3, :3]
    direction = linear / np.linalg.norm(linear, axis=0)
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-4):
        raise OutputError("MetaImage holds no sheared grid, such as that of a tilted scanner. Save the labels as .nrrd.")


def _place(image: Any, labels: Volume) -> None:
    matrix, unit = xyz_affine(labels), xyz_unit(labels)
    matrix[:3] *= length_factor(unit, "millimeter") if is_length(unit) else 1.0
    count = image.GetDimension()
    space = min(count, 3)
    linear = matrix[:space, :space]
    steps = np.linalg.norm(linear, axis=0)
    direction = np.eye(count)
    direction[:space, :space] = linear / steps
    time = [] if count < 4 else [labels.spacing["T"]]
    image.SetSpacing([*steps.tolist(), *time])
    image.SetOrigin([*matrix[:space, 3].tolist(), *([float(labels.affine[labels.axes.index("T"), -1])] if time else [])])
    image.SetDirection(direction.ravel().tolist())
