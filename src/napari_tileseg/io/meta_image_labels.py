"""Labels as MetaImage, in one file (``.mha``) or with their voxels apart (``.mhd``), written slab by slab."""

from __future__ import annotations

import json
import os
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.io.meta_image import FIELD, KEY
from napari_tileseg.io.ome import annotation
from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import blocks, smallest_dtype, survey
from napari_tileseg.io.pair import companion_path
from napari_tileseg.io.space import as_stored, xyz_affine, xyz_unit
from napari_tileseg.io.units import is_length, length_factor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.volume import Volume

__all__ = ["check_meta_image", "write_meta_image", "write_meta_image_pair"]

_TYPES = {
    "uint8": "MET_UCHAR",
    "int8": "MET_CHAR",
    "uint16": "MET_USHORT",
    "int16": "MET_SHORT",
    "uint32": "MET_UINT",
    "int32": "MET_INT",
    "uint64": "MET_ULONG_LONG",
    "int64": "MET_LONG_LONG",
}
_LEVEL = 6
"""Of zlib: what its own program takes."""

_SIZE = 20
"""Digits left free for the size of the packed voxels, which is known when they are written."""


def write_meta_image(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as one file packed by zlib, in millimetres; classes, colours and provenance are fields of the header, as JSON.

    Raises
    ------
    OutputError
        If the grid is sheared, or the labels are no whole numbers.
    """
    canonical, dtype, fields = _prepared(labels, classes, colors, provenance)
    lines = [*_lines(canonical, dtype, fields, packed=True), "ElementDataFile = LOCAL"]
    head = "\n".join(lines).encode() + b"\n"
    with path.open("wb") as file:
        file.write(head)
        size = 0
        packer = zlib.compressobj(_LEVEL)
        for block in _bytes(canonical, dtype):
            size += file.write(packer.compress(block))
        size += file.write(packer.flush())
        place = head.index(_free().encode())
        file.seek(place)
        file.write(f"CompressedDataSize = {size:<{_SIZE}}".encode())


def write_meta_image_pair(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write the header as text, and beside it the voxels as they are, ``cells.raw`` for ``cells.mhd``.

    Raises
    ------
    OutputError
        As `write_meta_image`.
    """
    canonical, dtype, fields = _prepared(labels, classes, colors, provenance)
    voxels = companion_path(path, ".raw")
    lines = [*_lines(canonical, dtype, fields, packed=False), f"ElementDataFile = {voxels.name}"]
    path.write_bytes(os.fsencode("\n".join(lines) + "\n"))
    with voxels.open("wb") as file:
        for block in _bytes(canonical, dtype):
            file.write(block)


def check_meta_image(image: Volume) -> None:
    """Raise if the labels of an image could not be saved as MetaImage.

    Raises
    ------
    OutputError
        If the grid is sheared.
    """
    linear = xyz_affine(image)[:3, :3]
    direction = linear / np.linalg.norm(linear, axis=0)
    if not np.allclose(direction.T @ direction, np.eye(3), atol=1e-4):
        raise OutputError("MetaImage holds no sheared grid, such as that of a tilted scanner. Save the labels as .nrrd.")


def _prepared(
    labels: Volume, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> tuple[Volume, np.dtype[Any], list[str]]:
    """Return the labels as they lie in the file, their type there, and the lines of our own note."""
    check_meta_image(labels)
    stored = as_stored(ordered(labels, "CTZYX"))
    canonical = ordered(stored, "TZYXC")
    note = json.dumps(annotation(stored, classes=classes, colors=colors, provenance=provenance))
    parts = [note[start : start + FIELD] for start in range(0, len(note), FIELD)]
    fields = [f"{KEY}-{number:04d} = <{part}>" for number, part in enumerate(parts)]  # so that no blank at the end is cut
    return canonical, smallest_dtype(survey(canonical), tuple(_TYPES), "MetaImage"), fields


def _lines(labels: Volume, dtype: np.dtype[Any], fields: Iterable[str], *, packed: bool) -> Iterator[str]:
    """Yield the header up to the name of the voxels' file, in the order in which ITK writes it."""
    axes = "".join(axis for axis in "XYZT" if axis in labels.axes or (axis == "Z" and "T" in labels.axes))
    count, space = len(axes), min(len(axes), 3)
    matrix, unit = xyz_affine(labels), xyz_unit(labels)
    matrix[:3] *= length_factor(unit, "millimeter") if is_length(unit) else 1.0
    linear = matrix[:space, :space]
    steps = np.linalg.norm(linear, axis=0)
    direction = np.eye(count)
    direction[:space, :space] = linear / steps
    time, start = ([labels.spacing["T"]], [float(labels.affine[labels.axes.index("T"), -1])]) if "T" in axes else ([], [])
    yield "ObjectType = Image"
    yield f"NDims = {count}"
    yield "BinaryData = True"
    yield "BinaryDataByteOrderMSB = False"
    yield f"CompressedData = {packed}"
    if packed:
        yield _free()
    yield f"TransformMatrix = {_numbers(direction.T.ravel())}"
    yield f"Offset = {_numbers([*matrix[:space, 3], *start])}"
    yield f"CenterOfRotation = {_numbers(np.zeros(count))}"
    yield f"ElementSpacing = {_numbers([*steps, *time])}"
    yield from fields
    yield "DimSize = " + " ".join(str(labels.sizes.get(axis, 1)) for axis in axes)
    if "C" in labels.axes:
        yield f"ElementNumberOfChannels = {labels.sizes['C']}"
    yield f"ElementType = {_TYPES[dtype.name]}"


def _numbers(values: Iterable[float] | NDArray[np.float64]) -> str:
    return " ".join(repr(float(value)) for value in values)


def _free() -> str:
    return "CompressedDataSize = " + _SIZE * "0"


def _bytes(labels: Volume, dtype: np.dtype[Any]) -> Iterator[memoryview]:
    for block in blocks(labels):
        yield np.ascontiguousarray(block, dtype.newbyteorder("<")).data.cast("B")
