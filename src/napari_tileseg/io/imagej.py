"""Labels as ImageJ TIFF: a hyperstack with pixel size, unit and origin, of the types that ImageJ knows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from napari_tileseg.errors import OutputError
from napari_tileseg.io.looks import Looks
from napari_tileseg.io.ome import annotation
from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import survey
from napari_tileseg.io.units import TIMES, is_length, length_factor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.io.output import Survey
    from napari_tileseg.volume import Volume

__all__ = ["read_note", "write_imagej"]

_KEY = "napari-tileseg"
"""Key of our own note among the properties of the image."""

_MOST_BYTES = 2**32 - 2**25
_LARGEST = 2**24
"""Floating point numbers of 32 bits hold whole numbers up to this one."""

_UNITS = {"micrometer": "um", "nanometer": "nm", "millimeter": "mm", "centimeter": "cm", "meter": "m", "inch": "inch"}
_SECONDS = {"second": 1.0, "millisecond": 1e-3, "microsecond": 1e-6, "minute": 60.0, "hour": 3600.0, "day": 86400.0}


def write_imagej(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as ImageJ and Fiji do: not compressed, 8 or 16 bits, floating point above 65535.

    Up to 255 labels are shown in their colours by a lookup table; their values stay as they are.
    Classes, colours, provenance and the whole affine stand among the properties of the image.

    Raises
    ------
    OutputError
        If the labels are no whole numbers, beyond what ImageJ counts to exactly, or take more than 4 GB.
    """
    canonical = ordered(labels, "TZCYX")
    found = survey(canonical)
    dtype = _dtype(found)
    if int(np.prod(canonical.shape, dtype=np.int64)) * dtype.itemsize > _MOST_BYTES:
        raise OutputError("An ImageJ TIFF holds up to 4 GB, and these labels take more. Save them as .ome.tif.")
    note = json.dumps(annotation(canonical, classes=classes, colors=colors, provenance=provenance))
    colored = dtype == np.uint8 and "C" not in canonical.axes
    # ImageJ stretches a lookup table over the range that is shown: over all of it, each label has its own colour.
    metadata: dict[str, Any] = {
        "axes": canonical.axes,
        "min": float(found.lowest),
        "max": 255.0 if colored else float(max(found.highest, 1)),
    }
    metadata |= _calibration(canonical) | {"Properties": {_KEY: note}}
    names = canonical.channel_names or classes
    if "C" in canonical.axes and len(names) == canonical.sizes["C"]:
        others = int(np.prod([canonical.sizes[axis] for axis in "TZ" if axis in canonical.axes], dtype=np.int64))
        metadata["Labels"] = list(names) * others
    tifffile.imwrite(
        path,
        _planes(canonical, dtype),
        shape=canonical.shape,
        dtype=dtype,
        imagej=True,
        metadata=metadata,
        **(_lookup(classes, colors, found.highest) if colored else {"photometric": "minisblack"}),
        **_resolution(canonical),
    )


def _lookup(classes: tuple[str, ...], colors: tuple[str, ...], highest: int) -> dict[str, Any]:
    """Return the colours of 256 values: black, and the one of each label."""
    looks = Looks(classes, colors, highest)
    table = np.zeros((3, 256), np.uint16)
    for label in range(1, 256):
        table[:, label] = np.array(looks.of(label).own, np.uint16) * 257
    return {"photometric": "palette", "colormap": table}


def _dtype(found: Survey) -> np.dtype[Any]:
    if found.lowest >= 0 and found.highest <= 65535:
        return np.dtype(np.uint8 if found.highest <= 255 else np.uint16)
    if -_LARGEST <= found.lowest and found.highest <= _LARGEST:
        return np.dtype(np.float32)
    raise OutputError(f"Labels up to {found.highest} do not fit in ImageJ TIFF (up to {_LARGEST}). Number them anew, or save as .ome.tif.")


def _planes(labels: Volume, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    for place in np.ndindex(*labels.shape[:-2]):
        yield np.ascontiguousarray(np.asarray(labels.data[place]).astype(dtype))


def _unit(labels: Volume) -> str:
    """Return the unit of X, which all axes of space are given in; nothing if one of them has none, or no length."""
    known = all(is_length(labels.unit[axis]) and 0 < labels.spacing[axis] < np.inf for axis in labels.spatial_axes)
    return labels.unit["X"] if known and labels.unit["X"] in _UNITS else ""


def _calibration(labels: Volume) -> dict[str, Any]:
    """Return step along Z, unit, origin (in pixels, as ImageJ counts) and time between frames."""
    told: dict[str, Any] = {}
    unit = _unit(labels)
    if unit:
        told["unit"] = _UNITS[unit]
        if "Z" in labels.axes:
            told["spacing"] = labels.spacing["Z"] * length_factor(labels.unit["Z"], unit)
        origins = {
            f"{axis.lower()}origin": -labels.affine[labels.axes.index(axis), -1] / labels.spacing[axis] for axis in labels.spatial_axes
        }
        told |= {key: float(value) for key, value in origins.items() if value}
    if "T" in labels.axes and labels.unit["T"] in TIMES:
        told["finterval"] = labels.spacing["T"] * _SECONDS[labels.unit["T"]]
    return told


def _resolution(labels: Volume) -> dict[str, Any]:
    unit = _unit(labels)
    if not unit:
        return {}
    per_unit = tuple(1 / (labels.spacing[axis] * length_factor(labels.unit[axis], unit)) for axis in "XY")
    return {"resolution": per_unit} if all(1e-6 < value < 1e9 for value in per_unit) else {}


def read_note(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `write_imagej` noted among the properties; empty for images of other programs."""
    properties = metadata.get("Properties")
    try:
        note = {key: json.loads(value) for key, value in json.loads(dict(properties)[_KEY]).items()} if properties else {}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    return note if "affine" in note and "units" in note else {}
