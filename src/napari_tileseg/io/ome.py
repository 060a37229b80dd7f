"""What OME-XML says about an image: sizes, units, channel names, and our own annotation."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.units import TIMES, unit_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_tileseg.volume import Volume

__all__ = ["NAMESPACE", "SCORES_NAMESPACE", "OmeImage", "annotation", "parse_ome"]

NAMESPACE = "napari-tileseg/labels/1"
"""Namespace of the MapAnnotation that holds what OME-XML has no place for."""

SCORES_NAMESPACE = "napari-tileseg/scores/1"
"""Namespace of the MapAnnotation of a file of raw scores."""

_DEFAULT_UNITS = {"X": "micrometer", "Y": "micrometer", "Z": "micrometer", "T": "second"}


@dataclass(frozen=True)
class OmeImage:
    """One image of an OME-XML document.

    Parameters
    ----------
    scale, unit : dict
        Length of a step and its unit, by axis letter; only what is given.
    channels : tuple of str
        Names of the channels; empty if none has one.
    extra : dict
        Our own annotation, decoded; empty in files of other programs.
    """

    scale: dict[str, float] = field(default_factory=dict)
    unit: dict[str, str] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def restore(self, volume: Volume, by: Mapping[str, float] | None = None) -> Volume:
        """Put back what we wrote beside the standard fields: axes of length 1, the affine, the provenance.

        Parameters
        ----------
        volume : Volume
            As the standard fields tell.
        by : mapping of str to float, optional
            By what factor each axis is coarser than the finest resolution; the axes that are not, may be missing.
        """
        if not self.extra:
            return volume
        factors = by or {}
        axes, shape = str(self.extra.get("axes", volume.axes)), list(self.extra.get("shape", volume.shape))
        metadata = dict(volume.metadata)
        for key in ("provenance", "classes", "colors"):
            if key in self.extra:
                metadata[key] = self.extra[key]
        metadata["labels"] = True
        volume = replace(volume, metadata=metadata)
        steps = [float(factors.get(axis, 1.0)) for axis in axes]
        shape = [round(size / step) for size, step in zip(shape, steps, strict=False)]
        if int(np.prod(shape)) != int(np.prod(volume.shape)) or not _same_order(axes, shape, volume):
            return volume  # somebody cropped the file after us
        # A coarse pixel's centre lies between those of the fine pixels it stands for.
        coarse = np.diag([*steps, 1.0])
        coarse[:-1, -1] = [(step - 1) / 2 for step in steps]
        data = volume.data if tuple(shape) == volume.shape else _expanded(volume, axes, shape)
        affine = np.array(self.extra["affine"], dtype=np.float64) @ coarse
        return replace(volume, data=data, axes=axes, affine=affine, units=tuple(self.extra["units"]))


def _expanded(volume: Volume, axes: str, shape: list[int]) -> Any:
    """Return the data with axes of length 1 put between its own; read where it is indexed if it was so before."""
    if isinstance(volume.data, np.ndarray):
        return volume.data.reshape(shape)
    kept = [axes.index(axis) for axis in volume.axes if axis in axes]
    if len(kept) != volume.ndim or kept != sorted(kept):
        return np.asarray(volume.data[...]).reshape(shape)
    data = volume.data
    return LazyArray(
        tuple(shape),
        data.dtype,
        lambda box: np.asarray(data[tuple(box[place] for place in kept)]).reshape([span.stop - span.start for span in box]),
    )


def _same_order(axes: str, shape: list[int], volume: Volume) -> bool:
    long = [(axis, size) for axis, size in zip(axes, shape, strict=False) if size > 1]
    return len(axes) == len(shape) and long == [(axis, size) for axis, size in volume.sizes.items() if size > 1]


def annotation(
    labels: Volume, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> dict[str, str]:
    """Return the MapAnnotation for a file of labels: each value is a JSON text."""
    content = {
        "axes": labels.axes,
        "shape": list(labels.shape),
        "affine": labels.affine.tolist(),
        "units": list(labels.units),
        "classes": list(classes),
        "colors": list(colors),
        "provenance": dict(provenance or {}),
    }
    return {key: json.dumps(value, ensure_ascii=False, sort_keys=True) for key, value in content.items() if value not in ([], {})}


def parse_ome(xml: str, index: int) -> OmeImage | None:
    """Read one image's facts; None if the document cannot be read or has no such image."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return None
    images = [element for element in root if _tag(element) == "Image"]
    if not 0 <= index < len(images):
        return None
    pixels = next((element for element in images[index] if _tag(element) == "Pixels"), None)
    if pixels is None:
        return None
    scale, unit = _sizes(pixels)
    names = [element.get("Name", "") for element in pixels if _tag(element) == "Channel"]
    return OmeImage(scale, unit, tuple(names) if any(names) else (), _extra(root))


def _sizes(pixels: ElementTree.Element) -> tuple[dict[str, float], dict[str, str]]:
    scale: dict[str, float] = {}
    unit: dict[str, str] = {}
    for axis, attribute in (("X", "PhysicalSizeX"), ("Y", "PhysicalSizeY"), ("Z", "PhysicalSizeZ"), ("T", "TimeIncrement")):
        step = _number(pixels.get(attribute))
        if step is None or step <= 0:
            continue
        name = unit_name(pixels.get(f"{attribute}Unit")) if pixels.get(f"{attribute}Unit") else _DEFAULT_UNITS[axis]
        scale[axis] = step
        unit[axis] = name if axis != "T" or name in TIMES else "second"
    return scale, unit


def _extra(root: ElementTree.Element) -> dict[str, Any]:
    for element in root.iter():
        if _tag(element) == "MapAnnotation" and element.get("Namespace") == NAMESPACE:
            try:
                return {str(entry.get("K")): json.loads(entry.text or "null") for entry in element.iter() if _tag(entry) == "M"}
            except ValueError:
                return {}
    return {}


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rsplit("}", 1)[-1]


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
