"""DICOM segmentations, with highdicom where it is installed: read as labels, written beside the series they were made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg import __version__
from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.io.dicom_header import quiet
from napari_tileseg.io.dicom_series import series_at
from napari_tileseg.io.files import damaged
from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import smallest_dtype, survey
from napari_tileseg.io.segments import segments_of
from napari_tileseg.io.space import axes_affine, check_grid, xyz_affine, xyz_unit
from napari_tileseg.io.units import is_length, length_factor
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_tileseg.io.dicom_series import Grid
    from napari_tileseg.io.segments import Segment

__all__ = ["check_segmentation", "read_segmentation", "write_segmentation"]

_MASKS = 64
"""More segments than these are written as one map of labels: each mask is a bit for every pixel of the series."""

_DEMANDED = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
"""What every DICOM file says of the patient."""

_NAMED = 1000
"""Segments up to so many are classes; more are objects, whose names say nothing."""

_NAME = 64
"""Letters that the standard gives to a segment's label."""


def _library(name: str, kind: type[InputError] | type[OutputError]) -> Any:
    try:
        import highdicom
    except ImportError as error:
        raise kind(f'"{name}" needs highdicom. Install it: pip install "napari-tileseg[medical]".') from error
    return highdicom


def read_segmentation(path: Path, metadata: Mapping[str, Any]) -> Volume:
    """Read a segmentation as labels: ``"ZYX"``, or ``"CZYX"`` with a mask for each segment where these overlap.

    Parameters
    ----------
    path : Path
    metadata : mapping
        What is known already; names and colours are added.

    Raises
    ------
    InputError
        If highdicom is not installed, or the file is damaged or holds no volume.
    """
    highdicom = _library(path.name, InputError)
    try:
        with quiet():
            found = highdicom.seg.segread(path)
            apart = False
            try:
                volume = found.get_volume(combine_segments=True)
            except RuntimeError:  # segments overlap
                found = highdicom.seg.segread(path)  # the refusal leaves the first one locked
                volume, apart = found.get_volume(combine_segments=False), True
            described = [found.get_segment_description(number) for number in found.segment_numbers]
    except (EOFError, OSError, ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise damaged(path, "DICOM segmentation") from error
    matrix = np.array(volume.affine, dtype=np.float64)[:, [2, 1, 0, 3]]
    check_grid(path, matrix)
    array = np.asarray(volume.array)
    if np.linalg.det(matrix[:3, :3]) < 0:  # the planes in the order in which `Series.grid` has those of images
        matrix[:3, 3] += (len(array) - 1) * matrix[:3, 2]
        matrix[:3, 2] *= -1
        array = array[::-1]
    data, axes = (np.moveaxis(array, -1, 0), "CZYX") if apart else (array, "ZYX")
    names = [str(item.segment_label) for item in described]
    numbers = [int(item.segment_number) for item in described]
    colors = [_color(highdicom, item) for item in described]
    known: dict[str, Any] = {**metadata, "labels": True}
    if apart:
        known["classes"] = names
    elif max(numbers) <= _NAMED:
        by_number = dict(zip(numbers, names, strict=True))
        known["classes"] = ["background", *(by_number.get(number, f"label {number}") for number in range(1, max(numbers) + 1))]
    if all(colors) and (apart or numbers == list(range(1, len(numbers) + 1))):
        known["colors"] = colors
    units = ("pixel",) * apart + ("millimeter",) * 3
    return Volume(np.ascontiguousarray(data), axes, axes_affine(axes, matrix), units, path.stem, metadata=known)


def _color(highdicom: Any, described: Any) -> str:
    value = described.get("RecommendedDisplayCIELabValue")
    if value is None:
        return ""
    return "#" + "".join(f"{part:02x}" for part in highdicom.color.CIELabColor.from_dicom_value(list(value)).to_rgb())


def write_segmentation(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write labels as DICOM segmentation of the series they were made from.

    The file says of patient and study what the series says, as the standard demands; of how the labels came to be it says the name and
    version of the model.

    Parameters
    ----------
    labels : Volume
        ``labels.metadata["dicom"]`` says where the series is.
    path : Path
        Does not exist yet.

    Raises
    ------
    OutputError
        If highdicom is not installed, the labels were not made from DICOM, their series is not there any more, they change with
        time, or the grid has no place in the body.
    """
    highdicom = _library(path.suffix, OutputError)
    grid = check_segmentation(labels)
    canonical = ordered(labels, "CZYX")
    found = survey(canonical)
    if found.lowest < 0:
        raise OutputError("A DICOM segmentation holds labels from 0 up; some of these are negative. Save them as .nrrd.")
    smallest_dtype(found, ("uint8", "uint16"), "a DICOM segmentation")
    segments = segments_of(canonical, classes, colors)
    if not segments:
        raise OutputError("A DICOM segmentation needs a segment; these labels are empty and have no classes. Save them as .nrrd.")
    frames = [frame for frame in grid.frames[0] if frame is not None]
    import pydicom

    with quiet():
        headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in dict.fromkeys(frame.file for frame in frames)]
        volume = _placed(highdicom, canonical, grid, headers[0])
        masks, kind = _masks(volume, segments, "C" in canonical.axes)
        seed = [found.digest, frames[0].series, *(segment.name for segment in segments)]
        try:
            written = highdicom.seg.Segmentation(
                source_images=headers,
                pixel_array=masks,
                segmentation_type=kind,
                segment_descriptions=_described(highdicom, segments, provenance or {}),
                series_instance_uid=pydicom.uid.generate_uid(entropy_srcs=[*seed, "series"]),
                series_number=_series_number(headers[0]),
                sop_instance_uid=pydicom.uid.generate_uid(entropy_srcs=[*seed, "instance"]),
                instance_number=1,
                manufacturer="napari-tileseg",
                manufacturer_model_name="napari-tileseg",
                software_versions=__version__,
                device_serial_number="none",
                content_label="SEGMENTATION",
                omit_empty_frames=False,
            )
        except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
            raise OutputError(f"The labels cannot be a segmentation of their DICOM series: {reason}. Save them as .nrrd.") from error
        _forget(written)
        written.save_as(path)


def check_segmentation(image: Volume) -> Grid:
    """Return the grid of the series behind an image, or raise if its labels could be no DICOM segmentation.

    Raises
    ------
    OutputError
    """
    _library(".dcm", OutputError)
    grid = _source(image)
    if "T" in image.axes or "Z" not in image.axes:
        raise OutputError("A DICOM segmentation holds one volume; these labels have other axes. Save them as .nrrd or .ome.tif.")
    linear = grid.matrix[:3, :3] / np.linalg.norm(grid.matrix[:3, :3], axis=0)
    if not np.allclose(linear.T @ linear, np.eye(3), atol=1e-4):
        raise OutputError("DICOM holds no sheared segmentation, such as that of a tilted scanner. Save the labels as .nrrd.")
    return grid


def _forget(written: Any) -> None:
    """Take out what highdicom copies of patient and study beyond what the standard demands."""
    for element in list(written):
        if element.tag.group == 0x0010 and element.keyword not in _DEMANDED:
            del written[element.tag]
    if "StudyDescription" in written:
        del written.StudyDescription


def _source(labels: Volume) -> Grid:
    """Return the grid of the series that labels were made from."""
    told = labels.metadata.get("dicom")
    if not isinstance(told, dict):
        raise OutputError("A DICOM segmentation belongs to a DICOM series, and these labels were not made from one. Save them as .nrrd.")
    given = Path(str(told["given"]))
    try:
        series, _ = series_at(given, int(told["place"]))
        grid = series.grid(given.name, partial=True)
    except (InputError, OSError) as error:
        raise OutputError(f'The DICOM series of these labels cannot be read any more: "{given.name}". Save them as .nrrd.') from error
    if not grid.placed:
        raise OutputError("The DICOM images of these labels tell no place in the body, which a segmentation needs. Save them as .nrrd.")
    return grid


def _placed(highdicom: Any, labels: Volume, grid: Grid, header: Any) -> Any:
    """Return the labels on the very planes of their series, where they lie on these."""
    matrix, unit = xyz_affine(labels), xyz_unit(labels)
    matrix[:3] *= length_factor(unit, "millimeter") if is_length(unit) else 1.0
    frame_of = str(header.get("FrameOfReferenceUID", "")) or None
    apart = "C" in labels.axes
    array = np.asarray(labels.data[...]).astype(np.uint16 if not apart else np.uint8)
    channels = {"SegmentNumber": list(range(1, len(array) + 1))} if apart else None
    try:
        volume = highdicom.Volume(
            array=np.moveaxis(array, 0, -1) if apart else array,
            affine=matrix[:, [2, 1, 0, 3]],
            coordinate_system="PATIENT",
            frame_of_reference_uid=frame_of,
            channels=channels,
        )
    except ValueError as error:
        raise OutputError("DICOM holds no sheared segmentation, such as that of a tilted scanner. Save the labels as .nrrd.") from error
    first = next(frame for frame in grid.frames[0] if frame is not None)
    shape = (len(grid.frames[0]), *first.shape[:2])
    try:
        source = highdicom.VolumeGeometry(
            affine=grid.matrix[:, [2, 1, 0, 3]], spatial_shape=shape, coordinate_system="PATIENT", frame_of_reference_uid=frame_of
        )
        return volume.match_geometry(source, tol=1e-3)
    except (RuntimeError, ValueError):
        return volume  # on a grid of their own, which the standard allows


def _masks(volume: Any, segments: list[Segment], apart: bool) -> tuple[Any, str]:
    """Return what highdicom takes: labels numbered as the segments are, and the type of the segmentation."""
    if apart:
        return volume, "BINARY"
    numbers = np.zeros(max(segment.label for segment in segments) + 1, np.uint16)
    for number, segment in enumerate(segments, 1):
        numbers[segment.label] = number
    return volume.with_array(numbers[volume.array]), "BINARY" if len(segments) <= _MASKS else "LABELMAP"


def _described(highdicom: Any, segments: list[Segment], provenance: Mapping[str, Any]) -> list[Any]:
    from pydicom.sr.codedict import codes

    model = dict(provenance.get("model") or {})
    machine = None
    if model.get("name"):
        machine = highdicom.AlgorithmIdentificationSequence(
            name=str(model["name"])[:_NAME],
            version=str(model.get("version") or __version__)[:_NAME],
            family=codes.DCM.ArtificialIntelligence,
        )
    return [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.name[:_NAME],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type="AUTOMATIC" if machine is not None else "MANUAL",
            algorithm_identification=machine,
            display_color=highdicom.color.CIELabColor.from_rgb(*bytes.fromhex(segment.color.lstrip("#")[:6])),
        )
        for number, segment in enumerate(segments, 1)
    ]


def _series_number(header: Any) -> int:
    """Return a number that no other series of the scanner has, most likely."""
    return int(header.get("SeriesNumber") or 0) % 1000 + 9000
