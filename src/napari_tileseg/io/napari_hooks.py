"""What the manifest offers to napari: readers, writers and samples, as layer data tuples. napari itself is not imported."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.checks import CHECK, CHECKS, checks_in, with_checks
from napari_tileseg.io.dicom_series import holds_dicom, series_in
from napari_tileseg.io.files import is_zarr
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.order import nearest_order, reindexed
from napari_tileseg.io.registry import find_format, read_volume, write_labels
from napari_tileseg.io.samples import find_sample, sample
from napari_tileseg.io.written import tell_written
from napari_tileseg.io.zarr_edit import ZarrArray, check_elsewhere
from napari_tileseg.volume import AXIS_NAMES, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    LayerData = tuple[Any, dict[str, Any], str]

__all__ = [
    "get_reader",
    "layer_data",
    "layer_volume",
    "pyramid_layers",
    "sample_fluorescence",
    "sample_hippocampus",
    "sample_histology",
    "write_labels_layer",
]

_LETTERS = {name: letter for letter, name in AXIS_NAMES.items()} | {letter.lower(): letter for letter in AXIS_NAMES}
_CHANNEL_COLORMAPS = ("cyan", "magenta", "yellow", "green", "red", "blue")


def get_reader(
    path: str | Sequence[str], *, choose: Callable[[Path], Sequence[int]] | None = None
) -> Callable[[str | Sequence[str]], list[LayerData]] | None:
    """Return a reader if every path is a file, a Zarr store or a folder of DICOM, of a known format.

    Parameters
    ----------
    path : str or sequence of str
    choose : callable, optional
        Takes a folder of DICOM and returns which of its series are opened; all of them by default.
    """
    paths = [Path(item) for item in ([path] if isinstance(path, str) else path)]
    if not paths or any(find_format(item) is None or (item.is_dir() and not (is_zarr(item) or holds_dicom(item))) for item in paths):
        return None

    def read(path: str | Sequence[str]) -> list[LayerData]:
        paths = [path] if isinstance(path, str) else list(path)
        return [layer for item in paths for layer in _read_file(item, choose)]

    return read


def _read_file(path: str, choose: Callable[[Path], Sequence[int]] | None) -> list[LayerData]:
    """Open every image of a file, each with all its resolutions."""
    found = find_format(path)
    if found is not None and found.title == "DICOM":
        return _read_dicom(path, choose)
    first = read_volume(path)
    layers = []
    for series in range(int(first.metadata.get("series", 1))):
        shown = pyramid_layers(read_volume(path, series=series) if series else first)
        if "series" in first.metadata:
            shown = [(data, meta | {"name": f"{meta['name']} {series + 1}"}, kind) for data, meta, kind in shown]
        layers += shown
    return layers


_TOGETHER = 2.0
"""Seconds in which files of one series count as opened together."""

_opened: dict[tuple[Path, ...], float] = {}


def _read_dicom(path: str, choose: Callable[[Path], Sequence[int]] | None) -> list[LayerData]:
    """Open the series of a folder that are wanted, or the one of a file; files of one series that are opened together open it once."""
    series = series_in(Path(path))
    together = series[0].files
    if len(together) > 1 and not Path(path).is_dir() and time.monotonic() - _opened.get(together, -_TOGETHER) < _TOGETHER:
        _opened[together] = time.monotonic()
        return [(None,)]  # type: ignore[list-item]  # how a reader says that there is nothing to show
    layers: list[LayerData] = []
    lost: list[InputError] = []
    for number in choose(Path(path)) if choose is not None and Path(path).is_dir() else range(len(series)):
        try:
            shown = pyramid_layers(read_volume(path, series=number))
        except InputError as error:
            lost.append(error)
            continue
        more = f" {number + 1}" if len(series) > 1 else ""
        layers += [(data, meta | {"name": meta["name"] + more}, kind) for data, meta, kind in shown]
    if lost and not layers:
        raise lost[0]
    for reason in lost:
        warnings.warn(str(reason), stacklevel=2)
    _opened[together] = time.monotonic()
    return layers or [(None,)]  # type: ignore[list-item]


def pyramid_layers(volume: Volume) -> list[LayerData]:
    """Return the layers that show a volume, as `layer_data` does, with all its resolutions."""
    finest, coarser = layer_data(volume), [layer_data(level) for level in volume.levels]
    if not coarser:
        return finest
    return [
        ([data, *(level[index][0] for level in coarser)], meta | {"multiscale": True}, kind)
        for index, (data, meta, kind) in enumerate(finest)
    ]


def layer_data(volume: Volume) -> list[LayerData]:
    """Return the layers that show a volume: one, or one for each channel that is no colour of an RGB image.

    A viewer slices along stored axes. Where these are turned against the world (sagittal slices, say), they are
    put in the order of the world's; ``metadata["tileseg_volume"]["order"]`` (NIfTI: ``["nifti"]["order"]``) says how, so that
    labels can be saved as the file was stored.
    """
    kind = "labels" if volume.metadata.get("labels") and volume.dtype.kind in "biu" else "image"
    volume = _upright(volume)
    meta = {**_placement(volume), "name": volume.name, "metadata": _metadata(volume)}
    if kind == "labels":
        meta |= _look(volume)
    elif volume.metadata.get("inverted"):
        meta["colormap"] = "gray_r"
    if "C" not in volume.axes:
        return [(_shown(volume.data, kind), meta, kind)]
    if kind == "image" and volume.axes.endswith("C") and volume.sizes["C"] == 3:
        return [(_shown(volume.data, kind), meta | {"rgb": True}, kind)]
    return [_channel(volume, index, meta, kind) for index in range(volume.sizes["C"])]


def _upright(volume: Volume) -> Volume:
    order = nearest_order(volume)
    if order == tuple(range(volume.ndim)):
        return volume
    metadata = dict(volume.metadata)
    if volume.spatial_axes == "ZYX":
        first = volume.axes.index("Z")
        shown = [axis - first for axis in order[first : first + 3]]
        if "nifti" in metadata:
            metadata["nifti"] = {**metadata["nifti"], "order": shown}
        else:
            metadata["order"] = shown
    return replace(reindexed(volume, order), metadata=metadata)


def _channel(volume: Volume, index: int, meta: dict[str, Any], kind: str) -> LayerData:
    position = volume.axes.index("C")
    key = (slice(None),) * position + (index,)
    shown = _shown(volume.data, kind)
    name = volume.channel_names[index] if index < len(volume.channel_names) else f"channel {index + 1}"
    look = {"colormap": _CHANNEL_COLORMAPS[index % len(_CHANNEL_COLORMAPS)], "blending": "additive"} if kind == "image" else {}
    part = shown.at(position, index) if isinstance(shown, ZarrArray) else shown[key]
    return part, meta | look | {"name": f"{volume.name} {name}"}, kind


def _shown(data: Any, kind: str) -> Any:
    """Return an array that napari takes: files that are read piece by piece become Dask arrays, but for labels that can be changed."""
    if isinstance(data, ZarrArray) and kind == "labels":
        return data
    if isinstance(data, LazyArray):
        import dask.array

        wrap: Callable[..., Any] = dask.array.from_array
        data = wrap(data, chunks="auto", asarray=False, name=False)
    return data.astype(np.uint8) if kind == "labels" and data.dtype == bool else data


def _placement(volume: Volume) -> dict[str, Any]:
    """Return scale, translation (or the affine of a turned grid), units and axis names, without C."""
    axes, affine, units = volume.drop("C")
    placement: dict[str, Any] = {"units": units, "axis_labels": tuple(axes)}
    linear = affine[:-1, :-1]
    if np.array_equal(linear, np.diag(np.diag(linear))) and (np.diag(linear) > 0).all():
        return placement | {"scale": tuple(np.diag(linear).tolist()), "translate": tuple(affine[:-1, -1].tolist())}
    return placement | {"affine": affine}


def _metadata(volume: Volume) -> dict[str, Any]:
    known = dict(volume.metadata)
    provenance = {name: value for name, value in (known.pop("provenance", None) or {}).items() if name != CHECKS}
    return {"tileseg_volume": known, **({"tileseg": provenance} if provenance else {})}


def _look(volume: Volume) -> dict[str, Any]:
    """Return names and colours of the classes, and what was said of objects, where the file tells them."""
    classes, colors = list(volume.metadata.get("classes") or ()), list(volume.metadata.get("colors") or ())
    checks = checks_in(volume.metadata.get("provenance"))
    look: dict[str, Any] = {}
    if classes or checks:
        index = sorted({0, *range(len(classes)), *checks})
        objects = index[-1] >= len(classes)  # more than there are classes: all of them are of the last one
        columns = {"class": [classes[-1 if objects and label else label] for label in index]} if classes else {}
        columns |= {CHECK: [checks.get(label, "") for label in index]} if checks else {}
        look["features"] = {"index": index, **columns}
    if colors and len(colors) + 1 >= len(classes):
        look["colormap"] = {None: "#808080", 0: "transparent", **{index + 1: color for index, color in enumerate(colors)}}
    return look


def sample_fluorescence() -> list[LayerData]:
    """Open the fluorescence field with its hidden reference."""
    return _sample_layers("nuclei-fluorescence")


def sample_histology() -> list[LayerData]:
    """Open the histology field with its hidden reference."""
    return _sample_layers("nuclei-histology")


def sample_hippocampus() -> list[LayerData]:
    """Open the MRI with its reference."""
    return _sample_layers("hippocampus-mri")


def _sample_layers(key: str) -> list[LayerData]:
    """Return the reference below and the image above it, so that the image is the active layer."""
    image, reference = sample(key)
    layers = []
    for data, meta, kind in [*layer_data(reference), *layer_data(image)]:
        meta["metadata"]["licence"] = find_sample(key).licence
        layers.append((data, meta | ({"visible": False} if kind == "labels" else {}), kind))
    return layers


def write_labels_layer(path: str, data: Any, meta: Mapping[str, Any], *, image: Volume | None = None) -> list[str]:
    """Save a Labels layer; napari has asked before if the file is there already.

    Parameters
    ----------
    image : Volume, optional
        On the grid of the labels, for tables.
    """
    volume = layer_volume(data, meta)
    provenance = with_checks((meta.get("metadata") or {}).get("tileseg"), meta.get("features"))
    known = volume.metadata
    classes, colors = known.get("classes") or (), known.get("colors") or ()
    check_elsewhere(volume.data, Path(path))
    written = write_labels(volume, path, classes=classes, colors=colors, provenance=provenance, overwrite=True, image=image)
    tell_written(data, written)
    return [str(written)]


def layer_volume(data: Any, meta: Mapping[str, Any]) -> Volume:
    """Return the volume of a Labels layer given as layer data.

    Parameters
    ----------
    data : array-like or list of them
        The labels; of a pyramid the finest level is taken.
    meta : mapping
        The layer's attributes: ``scale``, ``translate``, ``rotate``, ``shear``, ``affine``, ``units``, ``axis_labels``,
        ``name``, ``metadata``, ``features``.
    """
    finest = data[0] if isinstance(data, list | tuple) else data
    ndim = len(finest.shape)
    metadata = dict(meta.get("metadata") or {})
    known = dict(metadata.get("tileseg_volume") or {})
    classes = _classes(meta.get("features"))
    colors = _colors(meta.get("colormap"), len(classes))
    known |= {"classes": classes} if classes else {}
    known |= {"colors": colors} if colors else {}
    known |= {"features": meta["features"]} if meta.get("features") is not None else {}
    units = tuple(str(unit) for unit in meta.get("units") or ())
    return Volume(finest, _axes(meta.get("axis_labels"), ndim), _matrix(meta, ndim), units, str(meta.get("name", "labels")), metadata=known)


def _classes(features: Any) -> list[str]:
    """Return the column "class" of the layer's table, if there is one."""
    try:
        return list(dict.fromkeys(str(name) for name in features["class"]))  # objects repeat their class
    except (KeyError, TypeError, IndexError, ValueError):
        return []


def _colors(colormap: Any, count: int) -> list[str]:
    """Return ``#rrggbb`` of each class but the background, where the layer has a colour for each of them."""
    table = getattr(colormap, "color_dict", None)
    if not table or count < 2 or any(label not in table for label in range(1, count)):
        return []
    rows = (np.asarray(table[label], dtype=np.float64)[:3] for label in range(1, count))
    return ["#" + "".join(f"{round(255 * float(part)):02x}" for part in row) for row in rows]


def _axes(labels: Any, ndim: int) -> str:
    """Return one letter a dimension: the layer's own names if they are known ones, else space, then time, then channel."""
    letters = [_LETTERS.get(str(label).lower(), "?") for label in labels or ()]
    if len(letters) == ndim and "?" not in letters and len(set(letters)) == ndim:
        return "".join(letters)
    return "TCZYX"[-ndim:] if ndim != 4 else "TZYX"


def _matrix(meta: Mapping[str, Any], ndim: int) -> NDArray[np.float64]:
    """Put the parts of a layer's transform together: affine after (translate, rotate, shear, scale)."""
    inner = np.eye(ndim + 1)
    rotate = _rotation(meta.get("rotate"), ndim)
    inner[:-1, :-1] = rotate @ _shear(meta.get("shear"), ndim) @ np.diag(_vector(meta.get("scale"), ndim, 1.0))
    inner[:-1, -1] = _vector(meta.get("translate"), ndim, 0.0)
    affine = meta.get("affine")
    return inner if affine is None else np.asarray(affine, dtype=np.float64) @ inner


def _vector(value: Any, ndim: int, default: float) -> NDArray[np.float64]:
    return np.full(ndim, default) if value is None else np.asarray(value, dtype=np.float64)


def _rotation(value: Any, ndim: int) -> NDArray[np.float64]:
    if value is None:
        return np.eye(ndim)
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.ndim == 2:
        return matrix
    angle = np.deg2rad(float(matrix.ravel()[0]))
    turned = np.eye(ndim)
    turned[-2:, -2:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turned


def _shear(value: Any, ndim: int) -> NDArray[np.float64]:
    """Return the matrix of a shear: given itself, or as the numbers above the diagonal, row by row."""
    if value is None:
        return np.eye(ndim)
    given = np.asarray(value, dtype=np.float64)
    if given.ndim == 2:
        return given
    matrix = np.eye(ndim)
    matrix[np.triu_indices(ndim, 1)] = given
    return matrix
