"""COCO (``.coco.json``): an annotation for each object, its pixels as run lengths, because polygons of COCO know no holes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError, OutputError, TileSegError
from napari_tileseg.io.contours import fill
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

__all__ = ["KEY", "count_coco", "draw", "list_coco", "read_coco", "run_lengths", "write_coco"]

KEY = "napari-tileseg"
"""Key of our own note in ``info``."""

_MOST_PIXELS = 2**31


def write_coco(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as COCO JSON: an image for each plane, a category for each class, an annotation for each label in a plane.

    Raises
    ------
    OutputError
        If the labels are no whole numbers, or negative.
    """
    canonical = ordered(labels, "TZCYX")
    found = survey(canonical)
    if found.lowest < 0:
        raise OutputError("COCO holds labels from 0 up; some of these are negative. Save them as .ome.tif.")
    looks = Looks(classes, colors, found.highest, canonical.sizes.get("C", 0))
    note = noted(canonical, classes=classes, colors=colors, provenance=provenance)
    listed = _listed(canonical)
    with path.open("w", encoding="utf-8") as file:
        head = {"info": {"description": "Labels made with napari-tileseg.", KEY: note}, "licenses": [], "images": listed}
        file.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "annotations": [')
        kinds: dict[str, dict[str, Any]] = {}
        for label in _always(looks):
            _kind(kinds, looks, label)
        for number, entry in enumerate(_annotations(canonical, looks, kinds)):
            file.write(("," if number else "") + "\n" + json.dumps(entry, ensure_ascii=False, separators=(",", ":")))
        file.write('\n], "categories": ' + json.dumps(list(kinds.values()), ensure_ascii=False) + "}\n")


def _listed(labels: Volume) -> list[dict[str, Any]]:
    """Return an entry for each plane; masks of one plane share it."""
    outer = {axis: labels.sizes[axis] for axis in "TZ" if axis in labels.axes}
    entries = []
    for number, place in enumerate(np.ndindex(*outer.values())):
        at = {axis.lower(): int(index) for axis, index in zip(outer, place, strict=True)}
        behind = "".join(f"_{axis}{index:03d}" for axis, index in at.items())
        size = {"width": labels.sizes["X"], "height": labels.sizes["Y"]}
        entries.append({"id": number + 1, "file_name": labels.name + behind, **size, **at})
    return entries


def _always(looks: Looks) -> range:
    """Return the labels, or masks, that get a category though there be no pixel of them."""
    if looks.overlapping:
        return range(looks.overlapping)
    return range(0) if looks.objects else range(1, len(looks.classes))


def _kind(kinds: dict[str, dict[str, Any]], looks: Looks, label: int) -> int:
    """Return the number of the category of a label, or of a mask; a new one where it has none yet."""
    look = looks.of(label, label)
    if look.kind not in kinds:
        kinds[look.kind] = {"id": len(kinds) + 1, "name": look.kind, "supercategory": "", "color": list(look.color)}
    return int(kinds[look.kind]["id"])


def _annotations(labels: Volume, looks: Looks, kinds: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    outer = [axis for axis in "TZ" if axis in labels.axes]
    sizes = [labels.sizes[axis] for axis in outer]
    number = 0
    for at, plane in planes(labels):
        image = int(np.ravel_multi_index([at[axis] for axis in outer], sizes)) + 1 if outer else 1
        for label, box, mask in masks(plane):
            number += 1
            rows, columns = box
            yield {
                "id": number,
                "image_id": image,
                "category_id": _kind(kinds, looks, at["C"] if looks.overlapping else label),
                "segmentation": {
                    "size": list(plane.shape),
                    "counts": run_lengths(mask, plane.shape, top=rows.start, left=columns.start),
                },
                "area": int(np.count_nonzero(mask)),
                "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                "iscrowd": 0,
                "label": label,
                **({"mask": at["C"]} if "C" in at else {}),
            }


def run_lengths(mask: NDArray[np.bool_], shape: tuple[int, ...], *, top: int, left: int) -> list[int]:
    """Return how many pixels lie outside and inside a mask in turn, column by column through the whole image.

    Parameters
    ----------
    mask : ndarray of bool, shape (Y, X)
    shape : tuple of int
        Rows and columns of the image.
    top, left : int
        Where the mask lies in it.
    """
    height = shape[0]
    columns = np.pad(mask.T, ((0, 0), (1, 1))).astype(np.int8)
    change = np.diff(columns, axis=1)
    column, first = np.nonzero(change == 1)
    _, last = np.nonzero(change == -1)
    start, stop = (column + left) * height + top + first, (column + left) * height + top + last
    edges = np.stack([start, stop], axis=1).ravel()
    # A run that ends at the bottom and one that begins at the top of the next column are one.
    touching = np.flatnonzero(edges[1:-1:2] == edges[2::2])
    edges = np.delete(edges, np.concatenate([2 * touching + 1, 2 * touching + 2]))
    lengths: list[int] = np.diff(np.concatenate([[0], edges, [height * shape[1]]])).tolist()
    return lengths if lengths[-1] else lengths[:-1]


def draw(picture: NDArray[Any], counts: list[int] | str, label: int) -> None:
    """Set the pixels that run lengths tell, given as numbers or packed into letters as COCO's own tools do.

    Parameters
    ----------
    picture : ndarray, shape (X, Y)
        The plane turned, so that its columns lie one after the other in memory.

    Raises
    ------
    ValueError
        If they are more than the pixels.
    """
    lengths = np.array(_unpacked(counts) if isinstance(counts, str) else [int(count) for count in counts], np.int64)
    edges = np.cumsum(lengths)
    if len(lengths) and (lengths.min() < 0 or edges[-1] > picture.size):
        raise ValueError("run lengths of another image")
    flat = picture.reshape(-1)
    for start, stop in zip(edges[:-1:2].tolist(), edges[1::2].tolist(), strict=True):
        flat[start:stop] = label


def _unpacked(text: str) -> list[int]:
    """Read numbers of 5 bits a letter, lowest first; from the fourth on each is the difference to the one before the last."""
    numbers: list[int] = []
    value = shift = 0
    for letter in text:
        code = ord(letter) - 48
        if not 0 <= code < 64:
            raise ValueError("no run lengths")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            numbers.append(value + (numbers[-2] if len(numbers) > 2 else 0))
            value = shift = 0
    return numbers


def read_coco(path: Path, *, series: int = 0, level: int = 0, overlapping: bool = False) -> Volume:
    """Read the annotations of one image as labels, numbered in their order; later ones lie over earlier ones.

    Files that this package wrote give the labels again that they were made from.

    Parameters
    ----------
    path : Path
        The file.
    series : int
        Which of its images.
    level : int
        Must be 0.
    overlapping : bool
        A mask along C for each category that the file lists, so that none lies over another.

    Raises
    ------
    InputError
        If the file is missing, no COCO, or lists no such image; for `overlapping` also where it lists no categories.
    """
    if level:
        raise InputError(f'"{path.name}" holds one resolution. Choose level 0, not {level}.')
    content = _content(path)
    images, annotations, note = content["images"], content["annotations"], (content.get("info") or {}).get(KEY)
    name = path.name[: -len(".coco.json")] if path.name.lower().endswith(".coco.json") else path.stem
    if isinstance(note, dict) and not series and ("C" in str(note.get("axes")) or not overlapping):
        try:
            return _drawn_again(images, annotations, note, name)
        except (ValueError, KeyError, TypeError, IndexError, TileSegError):
            pass  # somebody has changed it: read it as that of another program
    if not 0 <= series < len(images):
        raise InputError(f'"{path.name}" lists {len(images)} images. Choose series 0 to {len(images) - 1}, not {series}.')
    kinds = _kinds(content) if overlapping else {}
    if overlapping and not kinds:
        raise InputError(f'"{path.name}" lists no categories, so there is no mask for any. Export it again with them.')
    try:
        return _drawn(images[series], annotations, name, len(images), kinds)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f'"{path.name}" has an annotation that cannot be drawn. Export it again from the program that made it.') from error


def list_coco(path: Path) -> list[str]:
    """Return the file name of each image that a file lists, in its order.

    Raises
    ------
    InputError
        If the file is missing, or no COCO.
    """
    try:
        return [str(image["file_name"]) for image in _content(path)["images"]]
    except (KeyError, TypeError) as error:
        raise InputError(f'"{path.name}" does not say which files its images are. Export it again with their names.') from error


def count_coco(path: Path) -> int:
    """Return how many images a file lists; those of this package are one."""
    volume = read_coco(path)
    return int(volume.metadata.get("series", 1))


def _content(path: Path) -> dict[str, Any]:
    """Return what a file holds, which nobody may change.

    Raises
    ------
    InputError
        If the file is missing, or no COCO.
    """
    check_readable(path)
    told = path.stat()
    return _parsed(path, told.st_mtime_ns, told.st_size)


@lru_cache(maxsize=1)
def _parsed(path: Path, changed: int, size: int) -> dict[str, Any]:
    """Read a file once for all the images that it lists, until it is changed."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8-sig"))
        content["images"], content["annotations"] = list(content["images"]), list(content["annotations"])
        (content.get("info") or {}).get(KEY)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f'"{path.name}" is no COCO file, or it is damaged. Export it again from the program that made it.') from error
    return content


def _drawn_again(images: list[Any], annotations: list[Any], note: Mapping[str, Any], name: str) -> Volume:
    """Return the labels that `write_coco` was given."""
    axes, shape = str(note["axes"]), tuple(int(size) for size in note["shape"])
    if math.prod(shape) > _MOST_PIXELS or axes[-2:] != "YX":
        raise ValueError("no size of an image")
    places = {image["id"]: image for image in images}
    data = np.zeros((*shape[:-2], shape[-1], shape[-2]), unsigned(max((int(entry["label"]) for entry in annotations), default=0)))
    for entry in annotations:
        place = {**places[entry["image_id"]], "c": entry.get("mask", 0)}
        _add(data[tuple(int(place[axis.lower()]) for axis in axes[:-2])], entry, int(entry["label"]))
    upright = np.ascontiguousarray(np.swapaxes(data, -1, -2))
    return restored(Volume(upright, axes, name=name, metadata={"format": "coco"}), note)


def _kinds(content: Mapping[str, Any]) -> dict[Any, str]:
    """Return the names of categories by their numbers."""
    listed = content.get("categories")
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return {entry["id"]: str(entry.get("name") or entry["id"]) for entry in entries if isinstance(entry.get("id"), int | str)}


def _drawn(image: Mapping[str, Any], annotations: list[Any], name: str, count: int, kinds: Mapping[Any, str]) -> Volume:
    shape = (int(image["height"]), int(image["width"]))
    if min(shape) < 1 or math.prod(shape) > _MOST_PIXELS:
        raise ValueError("no size of an image")
    own = [entry for entry in annotations if entry["image_id"] == image["id"] and entry.get("segmentation")]
    if kinds:
        places = {kind: number for number, kind in enumerate(kinds)}
        masks = np.zeros((len(kinds), *shape[::-1]), np.uint8)
        for entry in own:
            _add(masks[places[entry["category_id"]]], entry, 1)
        upright = np.ascontiguousarray(np.swapaxes(masks, 1, 2))
        told: dict[str, Any] = {"format": "coco", "labels": True}
        return Volume(upright, "CYX", name=name, channel_names=tuple(kinds.values()), metadata=told)
    data = np.zeros(shape[::-1], unsigned(len(own)))
    for number, entry in enumerate(own):
        _add(data, entry, number + 1)
    metadata: dict[str, Any] = {"format": "coco", "labels": True, **({"series": count} if count > 1 else {})}
    volume = Volume(np.ascontiguousarray(data.T), "YX", name=name, metadata=metadata)
    return replace(volume, name=str(image.get("file_name") or name)) if count > 1 else volume


def _add(picture: NDArray[Any], entry: Mapping[str, Any], label: int) -> None:
    """Set the pixels of an annotation in a plane that is turned."""
    given = entry["segmentation"]
    if isinstance(given, dict):
        draw(picture, given["counts"], label)
        return
    for ring in given:  # COCO's polygons are added to each other; none is a hole
        points = np.asarray(ring, np.float64).reshape(-1, 2)
        (left, top), (right, bottom) = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
        box = (slice(max(int(left), 0), max(int(right), 0)), slice(max(int(top), 0), max(int(bottom), 0)))
        part = picture[box]
        part[fill([points], part.T.shape, top=box[1].start, left=box[0].start).T] = label
