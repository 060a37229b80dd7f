"""``Frame``: what a DICOM file says of one of its planes. Nothing that tells who the patient is is read."""

from __future__ import annotations

import contextlib
import logging
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.files import damaged, too_short

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["SEGMENTATIONS", "Frame", "frames_of", "is_dicom", "quiet", "series_of"]

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""SOP classes of segmentations: masks, and label maps."""

_SLIDES = "1.2.840.10008.5.1.4.1.1.77.1.6"

_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "ImageType", "InstanceNumber"),
    *("AcquisitionNumber", "AcquisitionTime", "TemporalPositionIdentifier", "TriggerTime", "TemporalResolution", "EchoTime"),
    *("DiffusionBValue", "FrameTime", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing"),
    *("NominalScannedPixelSpacing", "SequenceOfUltrasoundRegions", "SpacingBetweenSlices", "SliceThickness"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


@dataclass(frozen=True)
class Frame:
    """One plane of a file.

    Parameters
    ----------
    file : Path
    number : int
        Which plane of the file.
    of : int
        How many there are.
    uid, series, kind : str
        Identifiers of instance and series, and the SOP class.
    title : str
        What people call the series: its number and description.
    modality : str
    instance : int
    shape : tuple of int
        Rows and columns, and 3 for colours.
    bits : tuple of int
        Allocated, stored, the highest one.
    signed, real : bool
        Whether the stored numbers have a sign; whether they are floating point.
    photometric : str
    slope, intercept : float
    position, orientation : tuple of float
        Of the first pixel's centre, and of rows and columns, in LPS; empty if not known.
    spacing : tuple of float
        Distance of the rows, and of the columns, in mm; empty if not known.
    thick : float
        Step to the next plane as the file itself says; 0 if it does not.
    moment : tuple of float
        Temporal position, trigger time, acquisition.
    variant : tuple
        What tells images apart that show one place at one time: echo time, diffusion weighting, type.
    step : float
        Milliseconds to the next frame or volume; 0 if not known.
    """

    file: Path
    number: int
    of: int
    uid: str
    series: str
    kind: str
    title: str
    modality: str
    instance: int
    shape: tuple[int, ...]
    bits: tuple[int, int, int]
    signed: bool
    real: bool
    photometric: str
    slope: float
    intercept: float
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    thick: float
    moment: tuple[float, ...]
    variant: tuple[Any, ...]
    step: float


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what pydicom says about other programs' habits away: what matters is raised as one sentence."""
    logger = logging.getLogger("pydicom")
    was = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = was


def is_dicom(path: Path) -> bool:
    """Say whether a file begins as DICOM files do: 128 bytes of anything, then DICM."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def frames_of(path: Path) -> list[Frame]:
    """Read the header of a file; empty if it holds no image (a report, a plan, a list of files).

    Raises
    ------
    InputError
        If it is no DICOM file, is cut off, or holds an image of a kind that is not accepted.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=not is_dicom(path))
            if "SOPClassUID" not in header and "Rows" not in header:
                raise damaged(path, "DICOM")
            if "Rows" not in header or "Columns" not in header:
                return []
            return _frames(path, header)
    except InputError:
        raise
    except (InvalidDicomError, EOFError, ValueError, TypeError, KeyError, AttributeError, IndexError, NotImplementedError) as error:
        raise damaged(path, "DICOM") from error


def series_of(path: Path) -> str:
    """Return the identifier of the series that a file belongs to; empty where it cannot be told."""
    import pydicom

    try:
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(header.get("SeriesInstanceUID", ""))
    except Exception:  # whatever a damaged file makes of the reader
        return ""


def _frames(path: Path, header: Any) -> list[Frame]:
    kind = str(header.get("SOPClassUID", ""))
    if kind == _SLIDES:
        raise InputError(f'"{path.name}" is a slide in DICOM. Save it as OME-TIFF or .svs.')
    count = int(header.get("NumberOfFrames") or 1)
    samples = int(header.get("SamplesPerPixel") or 1)
    allocated = int(header.get("BitsAllocated") or 16)
    shape = (
        int(header.Rows),
        int(header.Columns),
        *((3,) if samples == 3 or "PALETTE" in str(header.get("PhotometricInterpretation")) else ()),
    )
    halved = str(header.get("PhotometricInterpretation")) == "YBR_FULL_422"  # two pixels share their colour
    _check_size(path, header, count * shape[0] * shape[1] * (2 if halved else samples) * allocated // 8)
    if "ModalityLUTSequence" in header:
        raise InputError(f'"{path.name}" maps its values by a table, which is not accepted. Save it again with plain values.')
    stored = int(header.get("BitsStored") or allocated)
    known: dict[str, Any] = {
        "file": path,
        "of": count,
        "uid": str(header.get("SOPInstanceUID", path.name)),
        "series": str(header.get("SeriesInstanceUID", "")),
        "kind": kind,
        "title": ": ".join(str(part) for part in (header.get("SeriesNumber"), header.get("SeriesDescription")) if part not in (None, "")),
        "modality": str(header.get("Modality", "")),
        "instance": int(header.get("InstanceNumber") or 0),
        "shape": shape,
        "bits": (allocated, stored, int(header.get("HighBit", stored - 1))),
        "signed": bool(header.get("PixelRepresentation", 0)),
        "real": allocated >= 32 and "BitsStored" not in header,
        "photometric": str(header.get("PhotometricInterpretation", "MONOCHROME2")),
    }
    shared = _first(header, "SharedFunctionalGroupsSequence")
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    return [
        _frame(number, known, [source for source in (_nth(groups, number), shared, header) if source is not None])
        for number in range(count)
    ]


def _nth(groups: list[Any], number: int) -> Any:
    return groups[number] if number < len(groups) else None


def _check_size(path: Path, header: Any, least: int) -> None:
    """Raise if a file is too short for its pixels."""
    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    packed = syntax is not None and (syntax.is_compressed or syntax.is_deflated)
    if least <= 0:
        raise InputError(f'"{path.name}" holds an image without pixels. Choose another one.')
    if not packed and path.stat().st_size < least:
        raise too_short(path, least, exact=False)


def _frame(number: int, known: dict[str, Any], sources: list[Any]) -> Frame:
    """Gather what is said of one plane: in its own group, in the shared one, or in the header."""

    def find(name: str, group: str = "") -> Any:
        for source in sources:
            inner = _first(source, group) if group else None
            for place in (inner, source):
                value = place.get(name) if place is not None else None
                if value is not None and value != "":
                    return value
        return None

    header = sources[-1]
    spacing = _numbers(find("PixelSpacing", "PixelMeasuresSequence"), 2) or _flat_spacing(header)
    kinds = find("FrameType", "MRImageFrameTypeSequence") or find("FrameType", "CTImageFrameTypeSequence") or header.get("ImageType") or ()
    temporal = find("TemporalPositionIndex", "FrameContentSequence") or find("TemporalPositionIdentifier")
    trigger = find("NominalCardiacTriggerDelayTime", "CardiacSynchronizationSequence") or find("TriggerTime")
    echo = find("EffectiveEchoTime", "MREchoSequence") or find("EchoTime")
    weight = find("DiffusionBValue", "MRDiffusionSequence")
    thick = find("SpacingBetweenSlices", "PixelMeasuresSequence") or find("SliceThickness", "PixelMeasuresSequence")
    return Frame(
        number=number,
        slope=_number(find("RescaleSlope", "PixelValueTransformationSequence"), 1.0),
        intercept=_number(find("RescaleIntercept", "PixelValueTransformationSequence")),
        position=_numbers(find("ImagePositionPatient", "PlanePositionSequence"), 3),
        orientation=_numbers(find("ImageOrientationPatient", "PlaneOrientationSequence"), 6),
        spacing=spacing,
        thick=abs(_number(thick)),
        moment=(_number(temporal), _number(trigger), _number(header.get("AcquisitionNumber")), _number(header.get("AcquisitionTime"))),
        variant=(_number(echo), _number(weight), "/".join(str(word) for word in list(kinds)[2:])),
        step=_number(header.get("FrameTime")) or _number(header.get("TemporalResolution")),
        **known,
    )


def _first(source: Any, name: str) -> Any:
    """Return the first item of a sequence; None if there is none."""
    items = source.get(name) if source is not None else None
    return items[0] if items else None


def _number(value: Any, default: float = 0.0) -> float:
    with contextlib.suppress(TypeError, ValueError):
        number = float(value)
        return number if np.isfinite(number) else default
    return default


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    with contextlib.suppress(TypeError, ValueError):
        numbers = tuple(float(value) for value in values)
        return numbers if len(numbers) == count else ()
    return ()


def _flat_spacing(header: Any) -> tuple[float, ...]:
    """Return the size of pixels of images without a place in the body: X-rays, scans, ultrasound."""
    for name in ("ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if spacing := _numbers(header.get(name), 2):
            return spacing
    region = _first(header, "SequenceOfUltrasoundRegions")
    if region is not None and region.get("PhysicalUnitsXDirection") == 3 and region.get("PhysicalUnitsYDirection") == 3:  # centimetres
        return (10 * abs(_number(region.get("PhysicalDeltaY"))), 10 * abs(_number(region.get("PhysicalDeltaX"))))
    return ()
