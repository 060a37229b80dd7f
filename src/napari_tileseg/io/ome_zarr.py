"""OME-Zarr (NGFF 0.1 to 0.5, Zarr v2 and v3) and plain Zarr arrays, in folders and .zip files, read where they are indexed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.files import ZARR_FILES, zarr_root
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.units import TIMES, is_length, unit_name
from napari_tileseg.volume import AXIS_NAMES, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["OWN", "count_zarr", "read_zarr"]

OWN = "napari-tileseg"
"""Attribute of the group of our labels: what NGFF has no place for."""

_LETTERS = {letter.lower(): letter for letter in AXIS_NAMES} | {"time": "T", "channel": "C", "height": "Y", "width": "X", "depth": "Z"}
_GUESSES = {1: "Z", 2: "TZ", 3: "TCZ"}
_IMPLIED = ("t", "c", "z", "y", "x")
"""The axes of NGFF 0.1 and 0.2, which do not name them."""


def read_zarr(path: Path, *, series: int = 0, level: int = 0) -> Volume:
    """Read an image from an OME-Zarr or a plain Zarr array.

    Axes of length 1 other than Y and X are left out, except for labels that this package wrote. The coarser levels are in
    ``Volume.levels``.

    Parameters
    ----------
    path : Path
        A store, or a group or array in it (``x.ome.zarr/labels/cells``).
    series : int
        Which of the images that the store lists.
    level : int
        Which resolution, 0 the finest.

    Returns
    -------
    Volume
        Read where it is indexed.

    Raises
    ------
    InputError
        If there is no Zarr, it holds no image, or it is a plate (whose images have to be named one by one).
    """
    if not path.exists():
        raise InputError(f'There is no file "{path}". Check the name and the folder.')
    node, close = _open(path)
    name = _name(path)
    if not _is_group(node):
        return _plain(path, node, name, series, level, close)
    images = _images(path, node)
    if not 0 <= series < len(images):
        raise InputError(f'"{path.name}" has {len(images)} images. Choose series 0 to {len(images) - 1}, not {series}.')
    image = images[series]
    if isinstance(image, _Plain):
        return _plain(path, image.array, f"{name} {image.name}", 0, level, close)
    volumes = _multiscale(path, image, name, len(images), close)
    if not 0 <= level < len(volumes):
        raise InputError(f'"{path.name}" has {len(volumes)} resolutions. Choose level 0 to {len(volumes) - 1}, not {level}.')
    return replace(volumes[level], levels=tuple(volumes[level + 1 :]))


def count_zarr(path: Path) -> int:
    """Return how many images a store, or a part of it, lists.

    Raises
    ------
    InputError
        As `read_zarr`.
    """
    if not path.exists():
        raise InputError(f'There is no file "{path}". Check the name and the folder.')
    node, close = _open(path)
    try:
        return len(_images(path, node)) if _is_group(node) else 1
    finally:
        if close is not None:
            close()


@dataclass(frozen=True)
class _Multiscale:
    """A group, one entry of its list of images, and what the group says besides."""

    group: Any
    entry: Mapping[str, Any]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class _Plain:
    """An array of a group that says nothing of it."""

    name: str
    array: Any


def _open(path: Path) -> tuple[Any, Callable[[], object] | None]:
    import zarr

    store: Any = path
    close: Callable[[], object] | None = None
    inner = ""
    try:
        if path.is_file():
            store = zarr.storage.ZipStore(path, mode="r")
            close, inner = store.close, _zip_root(path)
        return zarr.open(store, mode="r", path=inner or None), close
    except Exception as error:  # zarr raises what its codecs, its stores and JSON raise
        if close is not None:
            close()
        raise InputError(
            f'"{path.name}" is no Zarr image, or it is damaged. Open the folder that holds its zarr.json or .zattrs.'
        ) from error


def _zip_root(path: Path) -> str:
    """Return the folder inside a .zip that holds the store, ``""`` if the archive itself is the store."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name in ZARR_FILES for name in names):
        return ""
    first = {name.split("/", 1)[0] for name in names}
    return first.pop() if len(first) == 1 else ""


def _is_group(node: Any) -> bool:
    import zarr

    return isinstance(node, zarr.Group)


def _attributes(group: Any) -> dict[str, Any]:
    """Return the attributes with those of NGFF 0.5, which stand below "ome", beside the others."""
    found = dict(group.attrs)
    ome = found.get("ome")
    return {**found, **ome} if isinstance(ome, dict) else found


def _images(path: Path, group: Any) -> Sequence[_Multiscale | _Plain]:
    """List the images of a group; raise where somebody has to choose first."""
    found = _attributes(group)
    if isinstance(entries := found.get("multiscales"), list) and entries:
        return [_Multiscale(group, entry, found) for entry in entries]
    if isinstance(plate := found.get("plate"), dict):
        raise InputError(_plate_sentence(path, group, plate))
    if isinstance(names := found.get("labels"), list) and names:
        raise InputError(f'"{path.name}" lists the labels {", ".join(map(str, names))}. Open one of them, say "{path / str(names[0])}".')
    inner = [str(image.get("path")) for image in found["well"].get("images", ())] if isinstance(found.get("well"), dict) else []
    if not inner and "bioformats2raw.layout" in found:
        inner = sorted((name for name in group.group_keys() if name.isdigit()), key=int)
    images: list[_Multiscale | _Plain] = []
    for name in inner:
        images += _images(path, _member(path, group, name))
    if images:
        return images
    arrays = sorted(group.array_keys())
    if not arrays:
        groups = sorted(group.group_keys())
        advice = f'Open a group in it, say "{path / groups[0]}".' if groups else "Choose another one."
        raise InputError(f'"{path.name}" is a Zarr group without an image. {advice}')
    if len(arrays) > 1:
        raise InputError(f'"{path.name}" holds the arrays {", ".join(arrays)}. Open one of them, say "{path / arrays[0]}".')
    return [_Plain(arrays[0], group[arrays[0]])]


def _plate_sentence(path: Path, group: Any, plate: Mapping[str, Any]) -> str:
    """Say how to open one field of a plate, and how to have all of them segmented."""
    wells = [str(well.get("path")) for well in plate.get("wells", ()) if isinstance(well, dict)]
    well = _attributes(group[wells[0]]).get("well") if wells and wells[0] in group else None
    images = well.get("images") if isinstance(well, dict) else None
    field = str(images[0].get("path")) if images and isinstance(images[0], dict) else "0"
    where = f"{path.name}/{wells[0] if wells else 'A/1'}/{field}"
    return f'"{path.name}" is a plate of {len(wells)} wells. Open one of its fields, say "{where}", or segment all with a batch.'


def _member(path: Path, group: Any, name: str) -> Any:
    try:
        return group[name]
    except Exception as error:
        raise InputError(f'"{path.name}" lacks "{name}", which it lists. Copy it again, as a whole.') from error


def _multiscale(path: Path, image: _Multiscale, name: str, count: int, close: Callable[[], object] | None) -> list[Volume]:
    datasets = [entry for entry in image.entry.get("datasets", ()) if isinstance(entry, dict) and "path" in entry]
    if not datasets:
        raise InputError(f'"{path.name}" lists no resolution of its image. Write it again with the program that made it.')
    arrays = [_member(path, image.group, str(entry["path"])) for entry in datasets]
    names, units = _axes(image.entry, arrays[0].ndim)
    own = image.attributes.get(OWN)
    letters = _letters(path, names, arrays[0].shape, keep_all=isinstance(own, dict))
    kept = [index for index, letter in enumerate(letters) if letter]
    axes = "".join(letters[index] for index in kept)
    channels = _channels(image.attributes.get("omero"), arrays[0].shape[letters.index("C")]) if "C" in letters else ()
    metadata = {"format": "ome-zarr", **({"series": count} if count > 1 else {}), **({"levels": len(arrays)} if len(arrays) > 1 else {})}
    metadata |= _labels(image.attributes)
    volumes = []
    for entry, array in zip(datasets, arrays, strict=True):
        if array.ndim != len(letters):
            raise InputError(f'"{path.name}" has resolutions with different numbers of axes. Write it again with the program that made it.')
        scale, translate = _transform(image.entry, entry, array.ndim)
        volumes.append(
            Volume.from_scale(
                _lazy(path, array, kept, close),
                axes,
                tuple(scale[index] for index in kept),
                translate=tuple(translate[index] for index in kept),
                units=tuple(units[index] for index in kept),
                name=str(image.entry.get("name") or "") if count > 1 and image.entry.get("name") else name,
                channel_names=channels,
                metadata=metadata,
            )
        )
    if isinstance(own, dict) and "affine" in own and axes == own.get("axes"):
        volumes = [_turned(volume, volumes[0], own) for volume in volumes]
    return volumes


def _turned(volume: Volume, finest: Volume, own: Mapping[str, Any]) -> Volume:
    """Put back the whole affine, of which NGFF 0.5 can say the lengths only; pixels of a coarse level cover those of the finest."""
    by = [size / small for size, small in zip(volume.spacing.values(), finest.spacing.values(), strict=True)]
    step = np.diag([*by, 1.0])
    step[:-1, -1] = [(factor - 1) / 2 for factor in by]
    return replace(volume, affine=np.array(own["affine"], dtype=np.float64) @ step, units=tuple(own["units"]))


def _axes(entry: Mapping[str, Any], ndim: int) -> tuple[list[str], list[str]]:
    """Return name and unit of each axis, whatever version of NGFF wrote them."""
    given = entry.get("axes") or _IMPLIED[-ndim:]
    names, units = [], []
    for axis in given:
        facts = axis if isinstance(axis, dict) else {"name": axis}
        name = str(facts.get("name", "?"))
        kind = str(facts.get("type", ""))
        names.append("t" if kind == "time" and name.lower() not in _LETTERS else "c" if kind == "channel" else name)
        unit = unit_name(str(facts.get("unit") or ""))
        units.append(unit if is_length(unit) or unit in TIMES else "pixel")
    return names, units


def _letters(path: Path, names: Sequence[str], shape: Sequence[int], *, keep_all: bool = False) -> list[str]:
    """Return the letter of each axis, ``""`` for those that are left out."""
    letters = [_LETTERS.get(name.lower(), "") for name in names]
    if len(letters) != len(shape):
        raise InputError(
            f'"{path.name}" names {len(letters)} axes, its image has {len(shape)}. Write it again with the program that made it.'
        )
    foreign = [name for name, letter, size in zip(names, letters, shape, strict=True) if not letter and size > 1]
    if foreign:
        raise InputError(
            f'"{path.name}" has an axis "{foreign[0]}". Time, channel, Z, Y and X are accepted; save one entry of it as an image.'
        )
    return [letter if keep_all or letter in ("Y", "X") or size > 1 else "" for letter, size in zip(letters, shape, strict=True)]


def _transform(image: Mapping[str, Any], dataset: Mapping[str, Any], ndim: int) -> tuple[list[float], list[float]]:
    """Put the steps of a dataset and of its image together: first the dataset's, in order, then the image's."""
    scale, translate = [1.0] * ndim, [0.0] * ndim
    steps = [*(dataset.get("coordinateTransformations") or ()), *(image.get("coordinateTransformations") or ())]
    for step in steps:
        by = step.get(step.get("type"), ()) if isinstance(step, dict) else ()
        if len(by) != ndim:
            continue
        if step["type"] == "scale":
            scale = [size * float(factor) for size, factor in zip(scale, by, strict=True)]
            translate = [place * float(factor) for place, factor in zip(translate, by, strict=True)]
        elif step["type"] == "translation":
            translate = [place + float(shift) for place, shift in zip(translate, by, strict=True)]
    return [size if size > 0 and np.isfinite(size) else 1.0 for size in scale], translate


def _channels(omero: Any, count: int) -> tuple[str, ...]:
    entries = omero.get("channels", ()) if isinstance(omero, dict) else ()
    names = tuple(str(entry.get("label") or "") for entry in entries if isinstance(entry, dict))
    return names if len(names) == count and any(names) else ()


def _labels(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the group says of its labels: that they are some; names and colours, and the provenance if we wrote them."""
    if "image-label" not in attributes:
        return {}
    own = attributes.get(OWN)
    if isinstance(own, dict):
        return {"labels": True, **{key: own[key] for key in ("provenance", "classes", "colors") if key in own}}
    return {"labels": True, **_told_looks(attributes["image-label"])}


def _told_looks(told: Any) -> dict[str, Any]:
    """Return names and colours that another program gave to the labels from 1 on, as far as it gave them to all."""
    facts = {key: [entry for entry in value if isinstance(entry, dict)] for key, value in _lists(told)}
    names: dict[int, str] = {}
    colors: dict[int, str] = {}
    for entry in facts.get("properties", ()):
        name = next((entry[key] for key in ("class", "name", "label") if isinstance(entry.get(key), str)), "")
        names |= {int(entry["label-value"]): name} if name and isinstance(entry.get("label-value"), int) else {}
    for entry in facts.get("colors", ()):
        parts = entry.get("rgba")
        if isinstance(parts, list) and len(parts) >= 3 and isinstance(entry.get("label-value"), int):
            colors[int(entry["label-value"])] = "#" + "".join(f"{min(max(int(part), 0), 255):02x}" for part in parts[:3])
    looks: dict[str, Any] = {}
    if (last := max(names, default=0)) and all(label in names for label in range(1, last + 1)):
        looks["classes"] = [names.get(0, "background"), *(names[label] for label in range(1, last + 1))]
    if (last := max(colors, default=0)) and all(label in colors for label in range(1, last + 1)):
        looks["colors"] = [colors[label] for label in range(1, last + 1)]
    return looks


def _lists(told: Any) -> Iterator[tuple[str, list[Any]]]:
    yield from ((key, value) for key, value in (told.items() if isinstance(told, dict) else ()) if isinstance(value, list))


def _plain(path: Path, array: Any, name: str, series: int, level: int, close: Callable[[], object] | None) -> Volume:
    if series or level:
        raise InputError(f'"{path.name}" holds one image. Choose series 0 and level 0.')
    names = list(getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ())
    metadata = {"format": "zarr"}
    if len(names) == array.ndim and {"Y", "X"} <= {_LETTERS.get(str(axis).lower()) for axis in names}:
        letters = _letters(path, [str(axis) for axis in names], array.shape)
    else:
        letters = _guess(path, array.shape)
        if guessed := "".join(letters[:-2]):
            metadata["guessed_axes"] = guessed
    kept = [index for index, letter in enumerate(letters) if letter]
    return Volume(_lazy(path, array, kept, close), "".join(letters[index] for index in kept), name=name, metadata=metadata)


def _guess(path: Path, shape: Sequence[int]) -> list[str]:
    """Take the last two axes for Y and X, and name the others that are longer than 1 as the TIFF reader does."""
    long = [index for index, size in enumerate(shape[:-2]) if size > 1]
    if len(shape) < 2 or len(long) > 3:
        raise InputError(f'"{path.name}" has {len(shape)} axes. Images of two to five are accepted: time, channel, Z, Y and X.')
    letters = [""] * (len(shape) - 2) + ["Y", "X"]
    for index, letter in zip(long, _GUESSES.get(len(long), ""), strict=True):
        letters[index] = letter
    return letters


def _lazy(path: Path, array: Any, kept: Sequence[int], close: Callable[[], object] | None) -> LazyArray:
    """Return the array without the axes that are left out, all of length 1."""
    if np.dtype(array.dtype).kind not in "biuf":
        raise InputError(f'"{path.name}" holds values of type {array.dtype}. Whole and real numbers are accepted.')
    if 0 in array.shape:
        raise InputError(f'"{path.name}" holds an image without pixels. Choose another one.')

    def read(box: tuple[slice, ...]) -> Any:
        keys: list[Any] = [0] * array.ndim
        for index, span in zip(kept, box, strict=True):
            keys[index] = span
        return np.asarray(array[tuple(keys)])

    depth = int((array.shards or array.chunks)[kept[0]])
    return LazyArray(tuple(array.shape[index] for index in kept), array.dtype, read, close=close, depth=depth)


def _name(path: Path) -> str:
    """Return the store's name without its suffixes; for a part of a store with the part's own name behind it."""
    root = zarr_root(path) or path
    name = root.name
    for suffix in (".zip", ".ozx", ".zarr", ".ome", ".0.4"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name if root == path else f"{name} {path.name}"
