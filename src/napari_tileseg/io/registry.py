"""The formats by the suffixes of files: what is read and written by which function, imported on first use."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io.builtin import BUILTIN, Format
from napari_tileseg.io.dicom_header import is_dicom
from napari_tileseg.io.dicom_series import holds_dicom
from napari_tileseg.io.files import readable, stamp, zarr_root
from napari_tileseg.io.output import check_place, put_in_place
from napari_tileseg.io.own_labels import check_label_place, is_label_place, write_own_labels
from napari_tileseg.io.pair import check_pair, companion_path, put_pair_in_place
from napari_tileseg.io.sidecar import check_sidecar, read_sidecar, sidecar_path, write_sidecar
from napari_tileseg.models.settings import publishable
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from os import PathLike

    from numpy.typing import NDArray

__all__ = [
    "BUILTIN",
    "ENTRY_POINTS",
    "Format",
    "check_axes",
    "check_fits",
    "check_writable",
    "count_series",
    "find_format",
    "formats",
    "has_more_files",
    "label_suffixes",
    "parts_of",
    "read_volume",
    "suffix_of",
    "write_image",
    "write_labels",
    "write_scores",
    "write_uncertainty",
]

ENTRY_POINTS = "napari_tileseg.formats"
"""Entry-point group of other packages; each entry names a `Format` or an iterable of them."""


@functools.cache
def formats() -> tuple[Format, ...]:
    """Return all formats, those of other packages last; a broken extension is reported as a warning and left out."""
    found = list(BUILTIN)
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            loaded = entry.load()
            found += _checked([loaded] if isinstance(loaded, Format) else list(loaded))
        except Exception as error:
            package = entry.dist.name if entry.dist else entry.value
            warnings.warn(f'The file formats of "{package}" were left out: {type(error).__name__}: {error}', stacklevel=2)
    return tuple(found)


def _checked(extension: Iterable[Any]) -> list[Format]:
    items = list(extension)
    for item in items:
        if not isinstance(item, Format):
            raise TypeError(f"{item!r} is no Format")
        if not item.suffixes or not all(suffix.startswith(".") for suffix in item.suffixes):
            raise ValueError(f"the suffixes {item.suffixes} must start with a dot")
    return items


def suffix_of(path: str | PathLike[str], *, purpose: str = "read") -> str:
    """Return the longest known suffix of a file name, ``""`` if there is none.

    Parameters
    ----------
    purpose : {"read", "write"}
        Which suffixes count.
    """
    name = Path(path).name.lower()
    known = [suffix for item in formats() if _function(item, purpose) for suffix in item.suffixes]
    found = max((suffix for suffix in known if name.endswith(suffix)), key=len, default="")
    if not found and purpose == "read" and Path(path).is_dir() and zarr_root(Path(path)) is not None:
        return ".zarr"  # a group or array inside a store, or a store under another name
    if not found and purpose == "read" and _looks_like_dicom(Path(path)):
        return ".dcm"  # a folder of slices, or a slice whose name has no suffix
    return found


def _looks_like_dicom(path: Path) -> bool:
    if path.is_dir():
        return holds_dicom(path)
    return path.is_file() and is_dicom(path)


def find_format(path: str | PathLike[str], *, purpose: str = "read") -> Format | None:
    """Return the format of a file name; of two with the same suffix the package's own."""
    suffix = suffix_of(path, purpose=purpose)
    return next((item for item in formats() if suffix in item.suffixes and _function(item, purpose)), None)


def _function(item: Format, purpose: str) -> str:
    return item.reader if purpose == "read" else item.writer


def read_volume(path: str | PathLike[str], *, series: int = 0, level: int = 0, partial: bool = False, lazy: bool = False) -> Volume:
    """Open an image file.

    Parameters
    ----------
    path : path-like
        OME-TIFF, ImageJ or plain TIFF, OME-Zarr, NIfTI, NRRD, MetaImage, DICOM (a folder, or one file of a series), NumPy, PNG, JPEG,
        BMP, a whole slide, or a format of an installed extension.
    series : int
        Which image, in files that hold several.
    level : int
        Which resolution, 0 the finest, in files that hold several.
    partial : bool
        Open a damaged file too, if its format can (TIFF): indexing what is missing raises an error.
    lazy : bool
        Leave small images in their file too, where the format can, for somebody who wants to know their size only.

    Returns
    -------
    Volume
        With the axes, spacing and units that the file gives. Large images are read where they are indexed.

    Raises
    ------
    InputError
        One sentence: what is wrong with the file, what is accepted.
    """
    path = Path(path)
    chosen = find_format(path)
    if chosen is None:
        if not path.exists():
            raise InputError(f'There is no file "{path}". Check the name and the folder.')
        name = path.name or path.resolve().name
        if path.is_dir():
            raise InputError(f'"{name}" is a folder, and neither OME-Zarr nor a series of DICOM. Give one image; a folder is for a batch.')
        raise InputError(f'"{name}" is of no known format. {_accepted("read")} can be opened.')
    try:
        reader = _load(chosen.reader)
        known = inspect.signature(reader).parameters
        more = {name: True for name, wanted in (("partial", partial), ("lazy", lazy)) if wanted and name in known}
        volume: Volume = reader(path, series=series, level=level, **more)
        # The stamp: so that a run that was interrupted notices when the file is another one. The name goes into files that are text.
        told: dict[str, Any] = {key: at for key, at in (("chosen_series", series), ("chosen_level", level)) if at}
        if chosen.sidecar and volume.metadata.get("labels") and (beside := read_sidecar(path)):
            told["provenance"] = beside
        return replace(volume, name=readable(volume.name), metadata={"stamp": stamp(path), **volume.metadata, **told})
    except (OSError, MemoryError) as error:
        reason = "it does not fit in memory" if isinstance(error, MemoryError) else (error.strerror or str(error))
        raise InputError(f'"{path.name}" could not be read: {reason}.') from error


def count_series(path: str | PathLike[str]) -> int:
    """Say how many images a file holds; no pixel is read.

    Raises
    ------
    InputError
        One sentence: what is wrong with the file.
    """
    path = Path(path)
    chosen = find_format(path)
    if chosen is None or not chosen.counter:
        return 1
    try:
        count: int = _load(chosen.counter)(path)
    except OSError as error:
        raise InputError(f'"{path.name}" could not be read: {error.strerror or error}.') from error
    return count


def write_labels(
    labels: Volume,
    path: str | PathLike[str],
    *,
    classes: Iterable[str] = (),
    colors: Iterable[str] = (),
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    image: Volume | None = None,
    only: Sequence[int | str] = (),
    smooth: int = 0,
) -> Path:
    """Save labels; the suffix of `path` decides the format.

    The file is written under a temporary name in the same folder and put in place when it is complete.

    Parameters
    ----------
    labels : Volume
        Whole numbers; the smallest type that holds them all is written.
    path : path-like
        ``.ome.tif``, ``.imagej.tif``, ``.ome.zarr``, ``.nii.gz``, ``.seg.nrrd``, ``.dcm``, ``.png``, ``.geojson``, ``.csv`` and others,
        or a format of an installed extension;
        ``image.ome.zarr/labels/name`` puts them into the image's own store.
    classes, colors : iterable of str
        Names of the classes, and ``#rrggbb`` for each but the background.
    provenance : mapping, optional
        How the labels came to be; must be fit for JSON.
    overwrite : bool
        Whether a file that is already there may be replaced.
    image : Volume, optional
        What the labels were made from, for formats that measure it (tables).
    only : sequence of int or str
        Meshes: the labels to save, by number, or by the name of a label or a class; all by default.
    smooth : int
        Meshes: how often surfaces are smoothed; 10 takes the stairs of the voxels away.

    Returns
    -------
    Path
        Where the labels are.

    Raises
    ------
    OutputError
        One sentence: why they could not be written there, what to do.
    """
    path = Path(path)
    if is_label_place(path):
        write_own_labels(
            labels, path, classes=tuple(classes), colors=tuple(colors), provenance=publishable(provenance), overwrite=overwrite
        )
        return path
    chosen, writer = _writer(path)
    check_axes(path, labels.axes)
    facts: dict[str, Any] = {"classes": tuple(classes), "colors": tuple(colors), "provenance": publishable(provenance)}
    replaced = check_sidecar(path, overwrite=overwrite) if chosen.sidecar else overwrite
    known = inspect.signature(writer).parameters
    wishes = {key: value for key, value in (("only", tuple(only)), ("smooth", smooth)) if value}
    if not set(wishes) <= set(known):
        raise OutputError(f'"{path.name}" holds all labels, as they are. Parts and smooth surfaces are saved as .stl, .obj or .ply.')
    more = {"image": image} if image is not None and "image" in known else {}
    with _put(path, chosen, overwrite=overwrite) as temporary:
        writer(labels, temporary, **facts, **more, **wishes)
    if chosen.sidecar:
        write_sidecar(path, **facts, overwrite=replaced)
    return path


def _put(path: Path, chosen: Format, *, overwrite: bool) -> AbstractContextManager[Path]:
    """Give a temporary name for a file, or for the header of a pair."""
    if chosen.companion:
        return put_pair_in_place(path, companion_path(path, chosen.companion), overwrite=overwrite)
    return put_in_place(path, overwrite=overwrite)


def has_more_files(path: str | PathLike[str]) -> bool:
    """Say whether labels saved under a name are several files: with a ``.json`` beside them, or with their voxels apart."""
    return len(parts_of(path)) > 1


def parts_of(path: str | PathLike[str]) -> tuple[Path, ...]:
    """Return all files that labels saved under a name are: the one of that name first, then what stands beside it."""
    path = Path(path)
    chosen = None if is_label_place(path) else find_format(path, purpose="write")
    if chosen is None:
        return (path,)
    voxels = (companion_path(path, chosen.companion),) if chosen.companion else ()
    return (path, *voxels, *((sidecar_path(path),) if chosen.sidecar else ()))


def label_suffixes() -> dict[str, str]:
    """Return every suffix under which labels can be saved, and the title of its format; of two formats the package's own."""
    found: dict[str, str] = {}
    for item in formats():
        for suffix in item.suffixes if item.writer else ():
            found.setdefault(suffix, item.title)
    return found


def write_scores(
    scores: NDArray[Any],
    volume: Volume,
    names: Sequence[str],
    path: str | PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Save raw scores as OME-TIFF (float32), one channel for each name.

    Parameters
    ----------
    scores : ndarray of float32
        Class first, then the axes of `volume` without C.
    volume : Volume
        The image that the scores belong to; gives spacing and units.
    names : sequence of str
        One for each channel.

    Raises
    ------
    OutputError
        One sentence: why they could not be written there, what to do.
    """
    path = Path(path)
    if not path.name.lower().endswith((".tif", ".tiff")):
        raise OutputError(f'Scores cannot be saved as "{path.name}". OME-TIFF (.ome.tif) is accepted.')
    axes, affine, units = volume.drop("C")
    grid = np.eye(len(affine) + 1)
    grid[1:, 1:] = affine
    image = Volume(scores, f"C{axes}", grid, ("pixel", *units), volume.name, tuple(names))
    with put_in_place(path, overwrite=overwrite) as temporary:
        _load("napari_tileseg.io.tiff_labels:write_scores_tiff")(image, temporary, provenance=publishable(provenance))
    return path


def write_uncertainty(
    uncertainty: NDArray[Any],
    volume: Volume,
    path: str | PathLike[str],
    *,
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Save how unsure a model was as NIfTI, or as OME-TIFF with the provenance (float32 both).

    Parameters
    ----------
    uncertainty : ndarray of float32
        On the axes of `volume` without C.
    volume : Volume
        The image that it belongs to; gives spacing and units.

    Raises
    ------
    OutputError
        One sentence: why it could not be written there, what to do.
    """
    path = Path(path)
    axes, affine, units = volume.drop("C")
    image = Volume(uncertainty, axes, affine, units, volume.name, metadata=volume.metadata)
    name = path.name.lower()
    if not name.endswith((".tif", ".tiff", ".nii", ".nii.gz")):
        raise OutputError(f'Uncertainty cannot be saved as "{path.name}". OME-TIFF (.ome.tif) and NIfTI (.nii.gz) are accepted.')
    with put_in_place(path, overwrite=overwrite) as temporary:
        if name.endswith((".nii", ".nii.gz")):
            _load("napari_tileseg.io.medical:write_nifti_map")(image, temporary)
        else:
            _load("napari_tileseg.io.tiff_labels:write_scores_tiff")(
                image, temporary, provenance=publishable(provenance), what="Uncertainty"
            )
    return path


def write_image(image: Volume, path: str | PathLike[str], *, overwrite: bool = False) -> Path:
    """Save an image as OME-TIFF (``.ome.tif``), so that it can be read again as it was.

    Raises
    ------
    OutputError
        One sentence: why it could not be written there, what to do.
    """
    path = Path(path)
    with put_in_place(path, overwrite=overwrite) as temporary:
        _load("napari_tileseg.io.tiff_labels:write_image_tiff")(image, temporary)
    return path


def check_writable(path: str | PathLike[str], *, overwrite: bool = True) -> Path:
    """Say before a run whether labels could be saved at `path`.

    Raises
    ------
    OutputError
        The sentence that `write_labels` would raise.
    """
    path = Path(path)
    if is_label_place(path):
        check_label_place(path, overwrite=overwrite)
        return path
    chosen, _ = _writer(path)
    if chosen.companion:
        check_pair(path, companion_path(path, chosen.companion), overwrite=overwrite)
    check_place(path, overwrite=overwrite)
    if chosen.sidecar:
        check_sidecar(path, overwrite=overwrite)
    return path


def check_fits(path: str | PathLike[str], image: Volume) -> None:
    """Say before a run whether the labels of an image could be saved in the format of `path`.

    Raises
    ------
    OutputError
        The sentence that `write_labels` would raise after it.
    """
    chosen = find_format(path, purpose="write")
    if chosen is not None and chosen.checker and not is_label_place(Path(path)):
        _load(chosen.checker)(image)


def check_axes(path: str | PathLike[str], axes: str) -> None:
    """Say before a run whether labels of some axes could be saved in the format of `path`.

    Raises
    ------
    OutputError
        The sentence that `write_labels` would raise after it.
    """
    chosen = find_format(path, purpose="write")
    if chosen is None or not chosen.accepts or is_label_place(Path(path)) or sorted(axes) in map(sorted, chosen.accepts):
        return
    accepted = " or ".join(chosen.accepts)
    raise OutputError(f"{chosen.title} holds labels with the axes {accepted}, and these have {axes}. Save them as .ome.tif.")


def _writer(path: Path) -> tuple[Format, Callable[..., None]]:
    chosen = find_format(path, purpose="write")
    if chosen is None:
        raise OutputError(f'Labels cannot be saved as "{path.name}". {_accepted("write")} are accepted.')
    return chosen, _load(chosen.writer)


def _accepted(purpose: str) -> str:
    """List the formats: ``"OME-TIFF (.ome.tif) and PNG (.png)"``."""
    names = [f"{item.title} ({item.suffixes[0]})" for item in formats() if _function(item, purpose)]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _load(reference: str) -> Callable[..., Any]:
    module, _, name = reference.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function
