"""Labels written as OME-Zarr: a pyramid of chunks with classes, colours and provenance; NGFF 0.5 in Zarr v3, 0.4 in v2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.io.checks import checks_in, properties_with
from napari_tileseg.io.ome_zarr import OWN
from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import smallest_dtype, survey
from napari_tileseg.io.segments import hue
from napari_tileseg.io.zarr_store import ZarrLabels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from napari_tileseg.io.zarr_layout import Layout
    from napari_tileseg.volume import Volume

__all__ = ["attributes", "finish_labels", "write_zarr", "write_zarr_04"]

_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
_KINDS = {"T": ("time", "t"), "C": ("channel", "c"), "Z": ("space", "z"), "Y": ("space", "y"), "X": ("space", "x")}


def write_zarr(
    labels: Volume,
    path: Path,
    *,
    classes: tuple[str, ...],
    colors: tuple[str, ...],
    provenance: Mapping[str, Any] | None,
    version: int = 3,
    source: str = "",
) -> None:
    """Write labels as OME-Zarr, a row of chunks at a time; axes in the order ``TCZYX``.

    Coarser levels take every second pixel, so that they hold labels and no mixtures. Types of up to 32 bits are kept, wider
    ones become the smallest that holds all labels.

    Parameters
    ----------
    version : {3, 2}
        Of Zarr.
    source : str
        Where the image is, as seen from the labels; empty where it is another file.

    Raises
    ------
    OutputError
        If the values are no whole numbers.
    """
    canonical = ordered(labels, "TCZYX")
    dtype = np.dtype(np.uint8) if labels.dtype == bool else labels.dtype
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        dtype = smallest_dtype(survey(canonical), _DTYPES, "OME-Zarr")
    store = ZarrLabels.create(path, canonical.shape, dtype, canonical.axes, spacing=canonical.spacing, version=version)
    try:
        for _, box in store.layout.pieces(tuple((0, size) for size in canonical.shape)):
            place = tuple(slice(*span) for span in box)
            store[place] = np.asarray(canonical.data[place])
        facts = attributes(labels, store.layout, classes=classes, colors=colors, provenance=provenance)
        if source:
            facts["ome"]["image-label"]["source"] = {"image": source}
        store.finish(facts if version == 3 else _as_04(facts))
    finally:
        store.discard()


def write_zarr_04(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as OME-Zarr 0.4, in Zarr v2, for programs that do not read newer ones; else as `write_zarr`."""
    write_zarr(labels, path, classes=classes, colors=colors, provenance=provenance, version=2)


def finish_labels(
    store: ZarrLabels,
    labels: Volume,
    *,
    classes: tuple[str, ...],
    colors: tuple[str, ...],
    provenance: Mapping[str, Any] | None,
    path: Path | None = None,
) -> Path:
    """Give a store that a run has filled its metadata and its place.

    Parameters
    ----------
    store : ZarrLabels
        The labels.
    labels : Volume
        Where they lie in the world.
    path : Path, optional
        Another place than the store's target, in the same folder.

    Returns
    -------
    Path
        Where it is.
    """
    return store.finish(attributes(labels, store.layout, classes=classes, colors=colors, provenance=provenance), path=path)


def attributes(
    labels: Volume, layout: Layout, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the attributes of the group: NGFF 0.5 below ``"ome"``, and what it has no place for below ``"napari-tileseg"``.

    A pixel of a coarse level covers those of the finest that it stands for, hence the translations.
    """
    canonical = ordered(labels, "TCZYX")
    scale = list(canonical.spacing.values())
    origin = canonical.affine[:-1, -1].tolist()
    datasets = []
    for index, by in enumerate(layout.factors):
        steps = [size * factor for size, factor in zip(scale, by, strict=True)]
        shift = [start + size * (factor - 1) / 2 for start, size, factor in zip(origin, scale, by, strict=True)]
        transform = [{"type": "scale", "scale": steps}, {"type": "translation", "translation": shift}]
        datasets.append({"path": str(index), "coordinateTransformations": transform})
    image = {"name": labels.name, "axes": _axes(canonical), "datasets": datasets, "type": "nearest"}
    looks = properties_with(_looks(classes, colors, masks="C" in canonical.axes), checks_in(dict(provenance or {})))
    ome: dict[str, Any] = {"version": "0.5", "multiscales": [image], "image-label": looks}
    if "C" in canonical.axes and len(classes) == canonical.sizes["C"]:
        window = {"min": 0, "max": 1, "start": 0, "end": 1}
        shades = [(colors[place] if place < len(colors) else hue(place)).lstrip("#")[:6] for place in range(len(classes))]
        ome["omero"] = {
            "channels": [{"label": name, "color": color, "window": window} for name, color in zip(classes, shades, strict=True)]
        }
    own = {
        "axes": canonical.axes,
        "affine": canonical.affine.tolist(),
        "units": list(canonical.units),
        "classes": list(classes),
        "colors": list(colors),
        "provenance": dict(provenance or {}),
    }
    return {"ome": ome, OWN: {key: value for key, value in own.items() if value not in ([], {})}}


def _as_04(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes as NGFF 0.4 has them: all on one level, the version in each part."""
    ome = facts["ome"]
    images = [{"version": "0.4", **image} for image in ome["multiscales"]]
    changed = {"multiscales": images, "image-label": {**ome["image-label"], "version": "0.4"}}
    kept = {key: value for key, value in ome.items() if key not in ("version", *changed)}
    return {**{key: value for key, value in facts.items() if key != "ome"}, **kept, **changed}


def _axes(labels: Volume) -> list[dict[str, str]]:
    axes = []
    for axis, unit in zip(labels.axes, labels.units, strict=True):
        kind, name = _KINDS[axis]
        axes.append({"name": name, "type": kind} | ({"unit": unit} if unit != "pixel" and kind != "channel" else {}))
    return axes


def _looks(classes: tuple[str, ...], colors: tuple[str, ...], *, masks: bool) -> dict[str, Any]:
    """Return colours and names by label; masks have one value only, and their names stand at the channels."""
    if masks:
        return {"version": "0.5"}
    values = range(max(len(classes), len(colors) + 1 if colors else 0))
    # Validators ask for the same labels in both lists. The background is the one that nobody wants to see.
    names = [{"label-value": value, "class": classes[value] if value < len(classes) else f"label {value}"} for value in values]
    given = ["#00000000", *colors, *(hue(value) for value in range(len(colors) + 1, len(classes)))]
    shades = [{"label-value": value, "rgba": [*bytes.fromhex(given[value].lstrip("#")[:6]), 255 if value else 0]} for value in values]
    return {"version": "0.5"} | ({"properties": names} if classes else {}) | ({"colors": shades} if colors else {})
