"""GeoJSON as QuPath reads and writes it: a polygon for each object, or for each class, in pixels of the full resolution."""

from __future__ import annotations

import json
import math
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError, OutputError, TileSegError
from napari_tileseg.io.contours import fill, polygons
from napari_tileseg.io.files import check_readable
from napari_tileseg.io.looks import Looks
from napari_tileseg.io.notes import noted, restored, unsigned
from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import survey
from napari_tileseg.io.planes import masks, planes
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["KEY", "read_geojson", "write_geojson"]

KEY = "napari-tileseg"
"""Member of the collection with what GeoJSON has no place for; other programs pass over it."""

_MOST_PIXELS = 2**31
"""A file says nothing of the size of its image but where its polygons end; beyond that one of them is wrong."""

_FAR = 2.0**40
"""No image reaches so far; numbers beyond might not fit in an integer."""


def write_geojson(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as a FeatureCollection: objects as detections, classes as annotations.

    Polygons follow the edges of the pixels, so that they give the same labels again. Of a stack each plane has its own, with
    ``z`` and ``t`` as QuPath writes them.

    Raises
    ------
    OutputError
        If the labels are no whole numbers, or negative.
    """
    canonical = ordered(labels, "TZCYX")
    found = survey(canonical)
    if found.lowest < 0:
        raise OutputError("GeoJSON holds labels from 0 up; some of these are negative. Save them as .ome.tif.")
    looks = Looks(classes, colors, found.highest, canonical.sizes.get("C", 0))
    head = {"type": "FeatureCollection", KEY: noted(canonical, classes=classes, colors=colors, provenance=provenance)}
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "features": [')
        for number, feature in enumerate(_features(canonical, looks, found.digest)):
            file.write(("," if number else "") + "\n" + json.dumps(feature, ensure_ascii=False, separators=(",", ":")))
        file.write("\n]}\n")


def _features(labels: Volume, looks: Looks, digest: str) -> Iterator[dict[str, Any]]:
    deep = {"Z", "T"} & set(labels.axes)
    for at, plane in planes(labels):
        for label, box, mask in masks(plane):
            look = looks.of(label, at.get("C", 0))
            parts = polygons(mask, top=box[0].start, left=box[1].start)
            geometry = {
                "type": "Polygon" if len(parts) == 1 else "MultiPolygon",
                "coordinates": parts[0] if len(parts) == 1 else parts,
                **({"plane": {"c": -1, "z": at.get("Z", 0), "t": at.get("T", 0)}} if deep else {}),
            }
            properties = {
                "objectType": "detection" if looks.objects else "annotation",
                "name": look.name,
                "classification": {"name": look.kind, "color": list(look.color)},
                "metadata": {"label": str(label), **({"mask": str(at["C"])} if "C" in at else {})},
            }
            # QuPath takes objects of one identifier for the same one: equal labels give equal ones.
            own = uuid.uuid5(uuid.NAMESPACE_URL, f"{digest} {sorted(at.items())} {label}")
            yield {"type": "Feature", "id": str(own), "geometry": geometry, "properties": properties}


def read_geojson(path: Path, *, series: int = 0, level: int = 0, overlapping: bool = False) -> Volume:
    """Read polygons as labels, each pixel of which lies in a polygon by its centre; later polygons lie over earlier ones.

    Files that this package wrote give the labels again that they were made from. In others, annotations that all have a
    class give a label for each class, in the order in which they appear; all else a label for each feature. Their size is
    that of the smallest image that holds them.

    Parameters
    ----------
    path : Path
        The file.
    series, level : int
        Must be 0.
    overlapping : bool
        A mask along C for each class that polygons have, so that none lies over another.

    Raises
    ------
    InputError
        If the file is missing, no GeoJSON, or holds no polygon; for `overlapping` also where a polygon has no class.
    """
    check_readable(path)
    if series or level:
        raise InputError(f'"{path.name}" holds one image. Choose series 0 and level 0.')
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        features = _list(content)
        shapes = [shape for feature in features if (shape := _Shape.of(feature))]
        note = content.get(KEY) if isinstance(content, dict) else None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f'"{path.name}" is no GeoJSON, or it is damaged. Export it again from the program that made it.') from error
    name = path.name[: -len(".geojson")] if path.name.lower().endswith(".geojson") else path.stem
    if isinstance(note, dict) and ("C" in str(note.get("axes")) or not overlapping):
        try:
            return _drawn_again(shapes, note, name)
        except (ValueError, KeyError, TypeError, IndexError, TileSegError):
            pass  # somebody has changed it: read it as that of another program
    if not shapes:
        raise InputError(f'"{path.name}" holds no polygon. Export annotations or detections as GeoJSON.')
    if overlapping and not all(item.kind for item in shapes):
        raise InputError(f'"{path.name}" has polygons without a class. Give each a class, so that there is a mask for it.')
    return _drawn(path, shapes, name, overlapping=overlapping)


class _Shape:
    """The polygons of one feature, and what it says of them."""

    def __init__(self, rings: list[NDArray[np.float64]], properties: Mapping[str, Any], plane: Mapping[str, Any]) -> None:
        self.rings = rings
        self.place = {axis: max(int(plane.get(axis.lower(), 0)), 0) for axis in "TZ"}
        kind = properties.get("classification")
        self.kind = str(kind.get("name") or "") if isinstance(kind, dict) else ""
        self.color = _color(kind) if isinstance(kind, dict) else ""
        self.annotation = str(properties.get("objectType") or properties.get("object_type") or "annotation") == "annotation"
        told = properties.get("metadata")
        self.told: Mapping[str, Any] = told if isinstance(told, dict) else {}
        corners = np.concatenate(rings)
        if not np.isfinite(corners).all():
            raise ValueError("a corner is no number")
        corners = np.clip(corners, -_FAR, _FAR)
        self.first = np.floor(corners.min(axis=0)).astype(np.int64)
        self.last = np.ceil(corners.max(axis=0)).astype(np.int64)

    @classmethod
    def of(cls, feature: Mapping[str, Any]) -> _Shape | None:
        geometry = feature.get("geometry") or {}
        corners = geometry.get("coordinates") or ()
        parts = {"Polygon": [corners], "MultiPolygon": corners}.get(str(geometry.get("type")), [])
        rings = [np.asarray(ring, np.float64)[:, :2] for part in parts for ring in part]
        plane = geometry.get("plane")
        return cls(rings, feature.get("properties") or {}, plane if isinstance(plane, dict) else {}) if rings else None

    def draw(self, picture: NDArray[Any], label: int) -> None:
        """Set the pixels of a plane that lie in the polygons."""
        (left, top), (right, bottom) = np.maximum(self.first, 0), np.minimum(self.last, picture.shape[::-1])
        if left < right and top < bottom:
            inside = fill(self.rings, (int(bottom - top), int(right - left)), top=float(top), left=float(left))
            picture[top:bottom, left:right][inside] = label


def _list(content: Any) -> list[dict[str, Any]]:
    """Return the features of a collection, of a list, or of a single feature or geometry."""
    if isinstance(content, list):
        return content
    if content.get("type") == "FeatureCollection":
        return list(content["features"])
    if content.get("type") == "Feature":
        return [content]
    if content.get("type") in ("Polygon", "MultiPolygon"):
        return [{"geometry": content}]
    raise ValueError("no GeoJSON")


def _color(kind: Mapping[str, Any]) -> str:
    parts = kind.get("color")
    if isinstance(parts, list) and len(parts) == 3:
        return "#" + "".join(f"{min(max(int(part), 0), 255):02x}" for part in parts)
    packed = kind.get("colorRGB")  # QuPath before 0.4
    return f"#{int(packed) & 0xFFFFFF:06x}" if isinstance(packed, int) else ""


def _drawn_again(shapes: list[_Shape], note: Mapping[str, Any], name: str) -> Volume:
    """Return the labels that `write_geojson` was given."""
    axes, shape = str(note["axes"]), tuple(int(size) for size in note["shape"])
    values = [(int(item.told["label"]), {**item.place, "C": int(item.told.get("mask", 0))}) for item in shapes]
    if math.prod(shape) > _MOST_PIXELS or axes[-2:] != "YX":
        raise ValueError("no size of an image")
    data = np.zeros(shape, unsigned(max((label for label, _ in values), default=0)))
    for item, (label, place) in zip(shapes, values, strict=True):
        item.draw(data[tuple(place[axis] for axis in axes[:-2])], label)
    return restored(Volume(data, axes, name=name, metadata={"format": "geojson"}), note)


def _drawn(path: Path, shapes: list[_Shape], name: str, *, overlapping: bool) -> Volume:
    sizes = {axis: 1 + max(item.place[axis] for item in shapes) for axis in "TZ"}
    across = np.max([item.last for item in shapes], axis=0)
    kept = [axis for axis in "TZ" if sizes[axis] > 1]
    shape = (*(sizes[axis] for axis in kept), max(int(across[1]), 1), max(int(across[0]), 1))
    if math.prod(shape) > _MOST_PIXELS:
        raise InputError(f'The polygons of "{path.name}" reach {shape[-1]} x {shape[-2]} pixels far. Are they in pixels of the image?')
    kinds = list(dict.fromkeys(item.kind for item in shapes))
    if overlapping:
        masks = np.zeros((len(kinds), *shape), np.uint8)
        for item in shapes:
            item.draw(masks[(kinds.index(item.kind), *(item.place[axis] for axis in kept))], 1)
        told: dict[str, Any] = {"format": "geojson", "labels": True}
        return Volume(masks, "C" + "".join(kept) + "YX", name=name, channel_names=tuple(kinds), metadata=told)
    classes = all(item.annotation and item.kind for item in shapes)
    data = np.zeros(shape, unsigned(len(kinds) if classes else len(shapes)))
    for number, item in enumerate(shapes):
        item.draw(data[tuple(item.place[axis] for axis in kept)], 1 + (kinds.index(item.kind) if classes else number))
    volume = Volume(data, "".join(kept) + "YX", name=name, metadata={"format": "geojson", "labels": True})
    if not classes:
        return volume
    colors = [next((item.color for item in shapes if item.kind == kind and item.color), "") for kind in kinds]
    looks = {"classes": ["background", *kinds], **({"colors": colors} if all(colors) else {})}
    return replace(volume, metadata={**volume.metadata, **looks})
