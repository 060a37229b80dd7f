"""Labels as NRRD, in one file or two, and as segmentation of 3D Slicer (``.seg.nrrd``), written slab by slab."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.io.ome import annotation
from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import blocks, smallest_dtype, survey
from napari_tileseg.io.pair import companion_path
from napari_tileseg.io.segments import KEY, escaped, segment_fields, segments_of
from napari_tileseg.io.space import as_stored, xyz_affine, xyz_unit
from napari_tileseg.io.units import is_length, symbol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path
    from typing import IO

    from napari_tileseg.volume import Volume

__all__ = ["check_seg_nrrd", "write_nhdr", "write_nrrd", "write_seg_nrrd"]

_TYPES = {
    "uint8": "uchar",
    "int8": "signed char",
    "uint16": "ushort",
    "int16": "short",
    "uint32": "uint",
    "int32": "int",
    "uint64": "ulonglong",
    "int64": "longlong",
}
_LEVEL = 6
"""Of gzip: what its own program takes."""


def write_nrrd(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as NRRD, packed by gzip; classes, colours and provenance stand in a key/value pair as JSON.

    Raises
    ------
    OutputError
        If the labels are no whole numbers.
    """
    canonical = as_stored(ordered(labels, "CTZYX"))
    _write(canonical, path, _note(canonical, classes, colors, provenance))


def write_nhdr(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write the header of `write_nrrd` as text, and beside it the voxels, ``cells.raw.gz`` for ``cells.nhdr``.

    Raises
    ------
    OutputError
        If the labels are no whole numbers.
    """
    canonical = as_stored(ordered(labels, "CTZYX"))
    _write(canonical, path, _note(canonical, classes, colors, provenance), apart=companion_path(path, ".raw.gz"))


def write_seg_nrrd(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as 3D Slicer does: names and colours of the segments appear there; masks that overlap are layers.

    Raises
    ------
    OutputError
        If the labels are no whole numbers, negative, or change with time.
    """
    check_seg_nrrd(labels)
    canonical = as_stored(ordered(labels, "CZYX"))
    if survey(canonical).lowest < 0:
        raise OutputError("A .seg.nrrd holds labels from 0 up; some of these are negative. Save them as .nrrd.")
    fields = segment_fields(segments_of(canonical, classes, colors))
    # Slicer wants the layers first in the file, and Z, though it be of length 1.
    _write(ordered(canonical, "ZYXC"), path, [*fields, *_note(canonical, classes, colors, provenance)], deep=True)


def check_seg_nrrd(image: Volume) -> None:
    """Raise if the labels of an image could be no segmentation of 3D Slicer.

    Raises
    ------
    OutputError
    """
    if "T" in image.axes:
        raise OutputError("A .seg.nrrd holds one moment; these labels have several. Save them as .nrrd or .ome.tif.")


def _note(labels: Volume, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    return [(KEY, escaped(annotation(labels, classes=classes, colors=colors, provenance=provenance)))]


def _write(labels: Volume, path: Path, pairs: Iterable[tuple[str, str]], *, deep: bool = False, apart: Path | None = None) -> None:
    dtype = smallest_dtype(survey(labels), tuple(_TYPES), "NRRD")
    lines = ["NRRD0005", *_fields(labels, dtype, deep), *(f"{key}:={_one_line(value)}" for key, value in pairs)]
    if apart is not None:
        lines.append(f"data file: {apart.name}")
    with path.open("wb") as file:
        file.write(os.fsencode("\n".join(lines) + "\n" + ("\n" if apart is None else "")))
        if apart is None:
            _pack(labels, dtype, file)
    if apart is not None:
        with apart.open("wb") as file:
            _pack(labels, dtype, file)


def _pack(labels: Volume, dtype: np.dtype[Any], file: IO[bytes]) -> None:
    # No name and no time in it: equal labels give equal files.
    with gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
        for block in blocks(labels):
            packed.write(np.ascontiguousarray(block, dtype.newbyteorder("<")).data)


def _one_line(value: str) -> str:
    return " ".join(value.splitlines()).strip()


def _fields(labels: Volume, dtype: np.dtype[Any], deep: bool) -> Iterator[str]:
    sizes, axes = list(labels.shape[::-1]), labels.axes[::-1]
    if deep and "Z" not in axes:
        axes, sizes = axes + "Z", [*sizes, 1]
    space = [axis for axis in "XYZ" if axis in axes]
    matrix, unit = xyz_affine(labels), xyz_unit(labels)
    yield f"type: {_TYPES[dtype.name]}"
    yield f"dimension: {len(sizes)}"
    # Without a unit nobody knows what the axes are: they may be those of a microscope's table.
    body = len(space) == 3 and is_length(unit)
    yield "space: left-posterior-superior" if body else f"space dimension: {len(space)}"
    yield "sizes: " + " ".join(map(str, sizes))
    rows = {axis: _vector(matrix[: len(space), "XYZ".index(axis)]) for axis in space}
    yield "space directions: " + " ".join(rows.get(axis, "none") for axis in axes)
    # "list", because programs that know no time take such an axis for the parts of a value.
    yield "kinds: " + " ".join("domain" if axis in space else "list" for axis in axes)
    yield "labels: " + " ".join('"time"' if axis == "T" else '""' for axis in axes)
    if dtype.itemsize > 1:
        yield "endian: little"
    yield "encoding: gzip"
    yield f"space origin: {_vector(matrix[: len(space), 3])}"
    if is_length(unit):
        sign = symbol(unit).replace("µ", "u")
        yield "space units: " + " ".join([f'"{sign}"'] * len(space))


def _vector(values: np.ndarray[Any, Any]) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"
