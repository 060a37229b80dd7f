"""The segments of 3D Slicer: key/value pairs of a ``.seg.nrrd`` that give each label a name, a colour and a box."""

from __future__ import annotations

import colorsys
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import numpy as np

from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from napari_tileseg.volume import Volume

__all__ = ["KEY", "Segment", "escaped", "hue", "named_by_hand", "read_segments", "segment_fields", "segments_of", "unescaped"]

KEY = "napari-tileseg"
"""Key of our own note in the header."""

_MOST = 1000
"""Labels up to this one are named one by one; above they are objects, whose names say nothing."""

_GOLDEN = 0.61803398875
"""Steps along the circle of hues that keep neighbours apart."""

_EMPTY = (0, -1)


@dataclass(frozen=True)
class Segment:
    """One segment.

    Parameters
    ----------
    label, layer : int
        Its value, and the mask that holds it where segments overlap.
    name : str
    color : str
        ``#rrggbb``.
    box : tuple of (int, int)
        First and last index along x, y and z; (0, -1) for an empty segment.
    """

    label: int
    layer: int
    name: str
    color: str
    box: tuple[tuple[int, int], ...] = (_EMPTY,) * 3


def segments_of(labels: Volume, classes: tuple[str, ...], colors: tuple[str, ...]) -> list[Segment]:
    """Return the segments of labels.

    Each class is one, be there pixels of it or not; labels that are more than the classes are objects, each a segment.
    Masks that may overlap (an axis C) are one segment each, in a layer of their own.

    Parameters
    ----------
    labels : Volume
        Axes ``CZYX``, ``ZYX``, ``CYX`` or ``YX``.
    """
    boxes = _boxes(labels)
    if "C" in labels.axes:
        names = classes if len(classes) == labels.sizes["C"] else classes[1:]
        return [
            Segment(
                1, layer, _nth(names, layer, f"class {layer + 1}"), _nth(colors, layer, hue(layer)), boxes.get((layer, 1), (_EMPTY,) * 3)
            )
            for layer in range(labels.sizes["C"])
        ]
    found = sorted(label for _, label in boxes)
    if not found or found[-1] < max(len(classes), 2):  # classes
        count = max(len(classes) - 1, *found, 0)
        return [
            Segment(
                label, 0, _nth(classes, label, f"label {label}"), _nth(colors, label - 1, hue(label)), boxes.get((0, label), (_EMPTY,) * 3)
            )
            for label in range(1, count + 1)
        ]
    what = classes[-1] if len(classes) > 1 else "label"
    return [Segment(label, 0, f"{what} {label}", hue(label), boxes[0, label]) for label in found]


def _nth(values: tuple[str, ...], index: int, other: str) -> str:
    return values[index] if index < len(values) else other


def hue(number: int) -> str:
    """Return a colour that the neighbouring numbers do not have, the same each time."""
    parts = colorsys.hsv_to_rgb(number * _GOLDEN % 1.0, 0.65, 0.95)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _boxes(labels: Volume) -> dict[tuple[int, int], tuple[tuple[int, int], ...]]:
    """Return first and last index along x, y and z of each (layer, label) but 0."""
    from scipy import ndimage

    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    start = 0
    for block in blocks(labels):
        masks = [(start + index, part) for index, part in enumerate(block)] if labels.axes[0] == "C" else [(0, block)]
        for layer, mask in masks:
            values, places = np.unique(mask, return_inverse=True)
            for value, box in zip(values, ndimage.find_objects(places.reshape(mask.shape) + 1), strict=True):
                if not value:
                    continue
                spans = [(part.start, part.stop - 1) for part in box]
                if labels.axes[0] != "C":
                    spans[0] = (spans[0][0] + start, spans[0][1] + start)
                spans = [*spans[::-1], (0, 0)][:3]
                before = found.get((layer, int(value)), spans)
                found[layer, int(value)] = [(min(a[0], b[0]), max(a[1], b[1])) for a, b in zip(before, spans, strict=True)]
        start += len(block)
    return {key: tuple(spans) for key, spans in found.items()}


def segment_fields(segments: list[Segment]) -> Iterator[tuple[str, str]]:
    """Yield the key/value pairs, as 3D Slicer writes them."""
    yield "Segmentation_ContainedRepresentationNames", "Binary labelmap|"
    yield "Segmentation_MasterRepresentation", "Binary labelmap"  # up to Slicer 4.11
    yield "Segmentation_SourceRepresentation", "Binary labelmap"
    yield "Segmentation_ReferenceImageExtentOffset", "0 0 0"
    for number, segment in enumerate(segments):
        parts = bytes.fromhex(segment.color.lstrip("#")[:6])
        fields = {
            "ID": f"Segment_{number + 1}",
            "Name": segment.name,
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{part / 255:.6g}" for part in parts),
            "ColorAutoGenerated": "0",
            "LabelValue": str(segment.label),
            "Layer": str(segment.layer),
            "Extent": " ".join(f"{first} {last}" for first, last in segment.box),
            "Tags": "|",
        }
        yield from ((f"Segment{number}_{key}", value) for key, value in fields.items())


def read_segments(volume: Volume, header: Mapping[str, Any]) -> Volume:
    """Return labels with the names and colours of the segments that a header names; the volume itself if it names none."""
    if volume.dtype.kind not in "biu" or not any(re.fullmatch(r"Segment\d+_ID", key) for key in header):
        return volume
    segments = sorted(_listed(header), key=lambda segment: (segment.layer, segment.label))
    metadata = {**volume.metadata, "labels": True}
    if "C" in volume.axes:
        volume = ordered(volume, "CTZYX")
        masks = [[segment for segment in segments if segment.layer == layer] for layer in range(volume.sizes["C"])]
        metadata["classes"] = [", ".join(segment.name for segment in mask) for mask in masks]
        metadata["colors"] = [mask[0].color if mask else hue(layer) for layer, mask in enumerate(masks)]
        return replace(volume, metadata=metadata, channel_names=tuple(metadata["classes"]))
    by_label = {segment.label: segment for segment in segments}
    last = max(by_label, default=0)
    if 0 < last <= _MOST:
        metadata["classes"] = [
            "background",
            *(by_label[label].name if label in by_label else f"label {label}" for label in range(1, last + 1)),
        ]
        metadata["colors"] = [by_label[label].color if label in by_label else hue(label) for label in range(1, last + 1)]
    return replace(volume, metadata=metadata)


def named_by_hand(found: Volume, told: Volume) -> Volume:
    """Return labels with the names and colours that somebody has given to segments after us.

    Parameters
    ----------
    found : Volume
        As the segments tell.
    told : Volume
        The same as our own note tells, which another program keeps without understanding it.
    """
    named = {key: list(found.metadata.get(key, ())) for key in ("classes", "colors")}
    noted = {key: list(told.metadata.get(key, ())) for key in ("classes", "colors")}
    first = 0 if "C" in told.axes else 1
    names = named["classes"][first:]
    what = noted["classes"][-1] if len(noted["classes"]) > 1 else "label"
    if not names or all(name in (f"{what} {label}", f"label {label}") for label, name in enumerate(names, 1)):
        return replace(told, metadata={**told.metadata, **{key: value for key, value in noted.items() if value}})
    ours = [*noted["colors"], *(hue(first + index) for index in range(len(noted["colors"]), len(named["colors"])))]
    own = noted["classes"] if noted["classes"][-len(names) :] == names else named["classes"]
    colors = noted["colors"] if named["colors"] == ours[: len(named["colors"])] else named["colors"]
    metadata = {key: value for key, value in told.metadata.items() if key != "colors"}
    return replace(told, metadata={**metadata, "classes": own, **({"colors": colors} if colors else {})})


def _listed(header: Mapping[str, Any]) -> Iterator[Segment]:
    for number in sorted(int(key[7:-3]) for key in header if re.fullmatch(r"Segment\d+_ID", key)):
        given = {key: str(header.get(f"Segment{number}_{key}", "")) for key in ("LabelValue", "Layer", "Name", "Color")}
        label = int(given["LabelValue"]) if given["LabelValue"].isdigit() else number + 1
        layer = int(given["Layer"]) if given["Layer"].isdigit() else 0
        try:
            parts = [min(max(float(part), 0.0), 1.0) for part in given["Color"].split()][:3]
            color = "#" + "".join(f"{round(255 * part):02x}" for part in parts) if len(parts) == 3 else hue(label)
        except ValueError:
            color = hue(label)
        yield Segment(label, layer, given["Name"] or f"Segment_{number + 1}", color)


def escaped(note: Mapping[str, str]) -> str:
    r"""Return a note as one line of ASCII without a backslash, which the readers of NRRD do not treat alike (as ``%5C``)."""
    return json.dumps(note).replace("%", "%25").replace("\\", quote("\\"))


def unescaped(text: str) -> Mapping[str, str]:
    """Return the note of a line that `escaped` gave; empty if it is none."""
    try:
        found = json.loads(unquote(text))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
