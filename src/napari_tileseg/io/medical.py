"""NIfTI files: x-first and right-anterior-superior outside, slowest-first and left-posterior-superior inside."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from napari_tileseg.errors import InputError
from napari_tileseg.io.files import broken_off, check_readable, damaged, too_short
from napari_tileseg.io.lazy import LazyArray, native
from napari_tileseg.io.mapped import delete_after, unpacked
from napari_tileseg.io.ome import annotation
from napari_tileseg.io.order import ordered, reindexed
from napari_tileseg.io.output import blocks, smallest_dtype, survey
from napari_tileseg.io.space import axes_affine, check_grid, xyz_affine, xyz_unit
from napari_tileseg.io.units import is_length, length_factor
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_nifti", "write_nifti"]

_WHOLE_BYTES = 2**27
"""Volumes up to this size (128 MB) are read into memory at once."""

_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
_HEADER_BYTES = 544  # of NIfTI-2, the longer one
_COMMENT = 6  # the extension code of plain text
_KEY = "napari-tileseg"
_UNITS = {"meter": "meter", "mm": "millimeter", "micron": "micrometer", "sec": "second", "msec": "millisecond", "usec": "microsecond"}
_GEOMETRY = (
    *("pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z", "xyzt_units", "toffset"),
)
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns right-anterior-superior coordinates into left-posterior-superior ones, and back."""


def read_nifti(path: Path, *, series: int = 0, level: int = 0) -> Volume:
    """Read a NIfTI-1 or NIfTI-2 image, compressed or not.

    The axes are reversed: the file's ``(x, y, z, t, c)`` becomes ``"CTZYX"`` (without those of length 1 beyond the third).
    The affine is that of the sform, else the qform, with its world turned from RAS to LPS. Values are scaled as the
    header says. A fourth axis is time, a fifth one channels, as NIfTI-1 has it (``--axes`` overrides this).

    Raises
    ------
    InputError
        If the file is missing, no NIfTI, cut off, complex, or has more than five axes.
    """
    check_readable(path)
    if series or level:
        raise InputError(f'"{path.name}" holds one image. Choose series 0 and level 0.')
    try:
        image = nibabel.load(path)
        _check_size(path, image)
        return _volume(path, image)
    except (EOFError, zlib.error) as error:
        raise broken_off(path) from error
    except gzip.BadGzipFile as error:
        raise damaged(path, "NIfTI") from error
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, KeyError) as error:
        raise (broken_off(path) if _is_cut(path) else damaged(path, "NIfTI")) from error


def _is_cut(path: Path) -> bool:
    """Say whether a compressed file ends before its header does (nibabel does not tell why it fails)."""
    if not _is_gzip(path):
        return False
    with gzip.open(path) as stream:
        try:
            stream.read(_HEADER_BYTES)
        except EOFError:
            return True
        except (OSError, zlib.error):
            return False
    return False


def _check_size(path: Path, image: Any) -> None:
    if not isinstance(image, nibabel.Nifti1Pair):
        raise damaged(path, "NIfTI")
    proxy: Any = image.dataobj
    expected = int(proxy.offset) + int(np.prod(proxy.shape, dtype=np.int64)) * proxy.dtype.itemsize
    if not _is_gzip(path) and expected > path.stat().st_size:
        raise too_short(path, expected)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _volume(path: Path, image: Any) -> Volume:
    shape = tuple(int(size) for size in image.shape)
    if 0 in shape:
        raise InputError(f'"{path.name}" holds an image without voxels. Choose another one.')
    if any(size > 1 for size in shape[5:]):
        raise InputError(f'"{path.name}" has {len(shape)} axes. Up to five are accepted: x, y, z, time and channel.')
    colours = image.get_data_dtype().names is not None
    kept = [axis for axis in range(min(len(shape), 5)) if axis < 3 or shape[axis] > 1]
    if kept in ([0], []):
        raise InputError(f'"{path.name}" has one axis only. An image needs at least two.')
    axes = "".join("XYZTC"[axis] for axis in reversed(kept))
    if colours and "C" in axes:
        raise InputError(f'"{path.name}" has several channels of three colours each. Save each as an image.')
    data = _data(path, image, kept, colours)
    affine, units = _grid(path, image, axes)
    if colours:
        axes, affine = f"{axes}C", _with_axis(affine)
        units = (*units, "pixel")
    metadata = {"format": "nifti", "nifti": _geometry(image), **_stored(image)}
    name = path.name[: -len(".nii.gz")] if path.name.lower().endswith(".nii.gz") else path.stem
    volume = Volume(data, axes, affine, units, name, ("red", "green", "blue") if colours else (), metadata)
    return _restore(volume, metadata)


def _with_axis(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine of the same grid with one more axis at the end."""
    size = len(affine)
    wider = np.eye(size + 1)
    wider[: size - 1, : size - 1] = affine[:-1, :-1]
    wider[: size - 1, -1] = affine[:-1, -1]
    return wider


def _data(path: Path, image: Any, kept: list[int], colours: bool) -> Any:
    """Return the voxels, slowest axis first; whole if they are few."""
    proxy = image.dataobj
    raw = int(np.prod(proxy.shape, dtype=np.int64)) * proxy.dtype.itemsize
    shape = tuple(int(proxy.shape[axis]) for axis in reversed(kept))
    if colours:
        voxels = np.asarray(proxy.get_unscaled())
        planes = [voxels[name].transpose().reshape(shape) for name in ("R", "G", "B")]
        return np.stack(planes, axis=-1)
    if proxy.dtype.kind not in "iuf":
        raise InputError(f'"{path.name}" holds values of type {proxy.dtype}. Whole and real numbers are accepted.')
    scale = _Scaling(proxy)
    if raw <= _WHOLE_BYTES:
        return scale(np.ascontiguousarray(np.asarray(proxy.get_unscaled()).transpose().reshape(shape)))
    mapped = _mapped(path, proxy).transpose().reshape(shape)
    return LazyArray(shape, scale.dtype, lambda box: scale(np.asarray(mapped[box])))


class _Scaling:
    """The header's ``scl_slope`` and ``scl_inter``, in float32 where that holds the stored values exactly."""

    def __init__(self, proxy: Any) -> None:
        self.slope, self.inter = float(proxy.slope), float(proxy.inter)
        self.plain = self.slope == 1 and self.inter == 0
        stored = proxy.dtype.newbyteorder("=")
        self.dtype = stored if self.plain else np.dtype(np.float32 if stored.itemsize <= 2 or stored == np.float32 else np.float64)

    def __call__(self, voxels: NDArray[Any]) -> NDArray[Any]:
        if self.plain:
            return native(voxels)
        scaled = voxels.astype(np.float64) * self.slope + self.inter
        return scaled.astype(self.dtype)


def _mapped(path: Path, proxy: Any) -> NDArray[Any]:
    """Map the voxels into memory; what is compressed is unpacked into a temporary file first."""
    if not _is_gzip(path):
        return np.memmap(path, proxy.dtype, "r", int(proxy.offset), proxy.shape, order="F")
    with gzip.open(path) as packed:
        file, delete = unpacked(packed)
    mapped = np.memmap(file, proxy.dtype, "r", int(proxy.offset), proxy.shape, order="F")
    delete_after(mapped, delete)
    return mapped


def _grid(path: Path, image: Any, axes: str) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return affine and units in the order of `axes`."""
    header = image.header
    world = _LPS @ np.asarray(image.affine, dtype=np.float64)
    check_grid(path, world, "XYZ" if "Z" in axes else "XY")
    affine = axes_affine(axes, world)
    length, time = (_UNITS.get(name, "pixel") for name in header.get_xyzt_units())
    if "T" in axes:
        step = float(header["pixdim"][4])
        affine[axes.index("T"), axes.index("T")] = step if step > 0 else 1.0
        affine[axes.index("T"), -1] = float(np.nan_to_num(header["toffset"]))
    units = tuple(length if axis in "ZYX" else time if axis == "T" else "pixel" for axis in axes)
    return affine, units


def _geometry(image: Any) -> dict[str, Any]:
    """Return the header's fields about the grid as they are, so that labels can be given the very same."""
    fields: dict[str, Any] = {key: np.asarray(image.header[key]).tolist() for key in _GEOMETRY}
    return {**fields, "ndim": len(image.shape), "affine": np.asarray(image.affine, dtype=np.float64).tolist()}


def _stored(image: Any) -> dict[str, Any]:
    """Return what `write_nifti` put into the file's extension."""
    for extension in image.header.extensions:
        if extension.get_code() == _COMMENT:
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                content = extension.get_content()
                text = content.decode() if isinstance(content, bytes) else content
                note = json.loads(text.rstrip("\x00"))[_KEY]
                return {"labels": True, **{key: json.loads(value) for key, value in note.items()}}
    return {}


def _restore(volume: Volume, metadata: dict[str, Any]) -> Volume:
    """Take the axes that our own note names, where they are those of the file but for lengths of 1."""
    axes, shape = metadata.pop("axes", None), metadata.pop("shape", None)
    affine, units = metadata.pop("affine", None), metadata.pop("units", None)
    if None in (axes, shape, affine, units) or (axes == volume.axes and len(shape) == volume.ndim):
        return Volume(volume.data, volume.axes, volume.affine, volume.units, volume.name, volume.channel_names, metadata)
    long = [(axis, size) for axis, size in zip(axes, shape, strict=True) if size > 1]
    if long != [(axis, size) for axis, size in volume.sizes.items() if size > 1]:
        return Volume(volume.data, volume.axes, volume.affine, volume.units, volume.name, volume.channel_names, metadata)
    return Volume(np.asarray(volume.data).reshape(shape), axes, np.array(affine), tuple(units), volume.name, volume.channel_names, metadata)


def write_nifti(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as NIfTI, on the grid of the image they were made from.

    Where the volume came from a NIfTI file and still lies where it lay, qform and sform are the input's, bit by bit.
    Otherwise the sform is the volume's affine, and the qform too if that has no shear. The intent is ``label``;
    classes, colours and provenance stand in a comment extension as JSON.

    Raises
    ------
    OutputError
        If the labels have no two axes of space.
    """
    source = dict(labels.metadata).get("nifti") or {}
    canonical = _as_stored(ordered(labels, "CTZYX"), source)
    dtype = smallest_dtype(survey(canonical), _DTYPES, "NIfTI")
    header = _header(canonical, dtype, source)
    header.set_intent("label", name=labels.name.encode("ascii", "replace").decode()[:15])
    header["descrip"] = b"labels by napari-tileseg"
    note = annotation(canonical, classes=classes, colors=colors, provenance=provenance)
    extension: Any = nibabel.nifti1.Nifti1Extension
    header.extensions.append(extension(_COMMENT, json.dumps({_KEY: note}).encode()))
    _save(header, canonical, dtype, path)


def write_nifti_map(values: Volume, path: Path) -> None:
    """Write one number per pixel (float32) as NIfTI, on the grid of the image as `write_nifti` does."""
    source = dict(values.metadata).get("nifti") or {}
    canonical, dtype = _as_stored(ordered(values, "CTZYX"), source), np.dtype(np.float32)
    header = _header(canonical, dtype, source)
    header["descrip"] = b"uncertainty by napari-tileseg"
    _save(header, canonical, dtype, path)


def _header(canonical: Volume, dtype: np.dtype[Any], source: Mapping[str, Any]) -> Any:
    shape = _x_first(canonical, flat=source.get("ndim") == 2)
    kind: Any = nibabel.Nifti1Image if max(shape) < 2**15 else nibabel.Nifti2Image
    # Without an affine of its own, because nibabel would write that one over the fields of the header.
    header = kind(np.zeros([1] * len(shape), dtype), None, dtype=dtype).header
    header.set_data_shape(shape)
    _set_grid(header, canonical, _ras(canonical), source)
    header.set_slope_inter(1.0, 0.0)
    return header


def _save(header: Any, canonical: Volume, dtype: np.dtype[Any], path: Path) -> None:
    """Write a header, and the voxels slab by slab: they lie in the file as in the volume, the last axis being the fastest."""
    with nibabel.openers.ImageOpener(str(path), "wb") as file:
        header.write_to(file)
        file.write(bytes(header.get_data_offset() - file.tell()))
        for block in blocks(canonical):
            file.write(np.ascontiguousarray(block, dtype).tobytes())


def _as_stored(labels: Volume, source: Mapping[str, Any]) -> Volume:
    """Undo the order in which the axes of a turned grid are shown (`layer_data` notes it)."""
    shown = source.get("order")
    if not shown or labels.spatial_axes != "ZYX":
        return labels
    first = labels.ndim - 3
    back = [first + list(shown).index(axis) for axis in range(3)]
    stored = reindexed(labels, (*range(first), *back))
    return stored if np.allclose(_ras(stored), source["affine"], rtol=1e-6, atol=1e-5) else labels


def _x_first(labels: Volume, *, flat: bool) -> list[int]:
    """Return the lengths of (x, y, z, t, c), without the axes at the end that the volume lacks."""
    last = max("XYZTC".index(axis) for axis in labels.axes)
    if not flat:
        last = max(last, 2)
    return [labels.sizes.get(axis, 1) for axis in "XYZTC"[: last + 1]]


def _ras(labels: Volume) -> NDArray[np.float64]:
    """Return the 4 x 4 matrix from (x, y, z) indices to right, anterior, superior."""
    world = xyz_affine(labels)
    world[:3] *= _to_unit(labels)[0]
    return _LPS @ world


def _to_unit(labels: Volume) -> tuple[float, str]:
    """Return the factor from the volume's unit of length to one that NIfTI has, and its name."""
    unit = xyz_unit(labels)
    if not is_length(unit):
        return 1.0, "unknown"
    names = {"meter": "meter", "millimeter": "mm", "micrometer": "micron"}
    if unit in names:
        return 1.0, names[unit]
    target = "micrometer" if length_factor(unit, "micrometer") < 1 else "millimeter"
    return length_factor(unit, target), names[target]


def _set_grid(header: Any, labels: Volume, affine: NDArray[np.float64], source: Mapping[str, Any]) -> None:
    time = {"second": "sec", "millisecond": "msec", "microsecond": "usec"}.get(labels.unit.get("T", ""), "unknown")
    header.set_sform(affine, code="scanner")
    with contextlib.suppress(HeaderDataError):  # a sheared grid has no qform
        header.set_qform(affine, code="scanner", strip_shears=False)
    if "T" in labels.axes:
        header["pixdim"][4] = labels.spacing["T"]
        header["toffset"] = labels.affine[labels.axes.index("T"), -1]
    header.set_xyzt_units(_to_unit(labels)[1], time)
    if source and np.allclose(_placed(labels, source), affine, rtol=1e-6, atol=1e-5):
        for key in _GEOMETRY:
            if key in source:
                header[key] = source[key]


def _placed(labels: Volume, source: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the source's matrix without the axes that the labels lack, to compare with theirs."""
    matrix = np.array(source["affine"], dtype=np.float64)
    if "Z" not in labels.axes:
        matrix[2, :], matrix[:, 2] = (0, 0, 1, 0), (0, 0, 1, 0)
    return matrix
