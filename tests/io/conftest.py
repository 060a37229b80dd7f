"""Scans as scanners write them, made for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = (0.8, 0.6, 0.0)
COLUMNS = (-0.48, 0.64, 0.6)
"""Directions of an oblique scan."""

NORMAL = np.cross(ROWS, COLUMNS)
ORIGIN = (-31.5, 12.25, 7.125)
SPACING = (0.75, 0.5)
STEP = 2.5


def blank(path: Path, pixels: Any, uid: str, kind: str = CTImageStorage) -> FileDataset:
    """Return a file of a patient with everything but its place."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = kind
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = kind, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Doe^Jane", "4711", "19660101", "F"
    data.PatientWeight, data.StudyDescription = "75", "secret"
    data.StudyInstanceUID = generate_uid(entropy_srcs=["study", uid])
    data.SeriesInstanceUID, data.FrameOfReferenceUID = uid, generate_uid(entropy_srcs=["frame", uid])
    data.StudyID, data.StudyDate, data.StudyTime, data.AccessionNumber, data.ReferringPhysicianName = "1", "20200101", "120000", "", ""
    data.Modality, data.SeriesNumber, data.SeriesDescription = "CT", 3, "abdomen"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    data["PixelData"].VR = "OB" if data.BitsAllocated == 8 else "OW"
    return data


@pytest.fixture
def scan(tmp_path: Path) -> Callable[..., Path]:
    """Write an oblique series, its files in no order; returns the folder."""

    def write(
        voxels: Any,
        name: str = "scan",
        *,
        places: Any = None,
        change: Callable[[FileDataset, int], None] | None = None,
        uid: str = "",
        suffix: str = ".dcm",
        tilt: tuple[float, ...] = (0.0, 0.0, 0.0),
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        uid = uid or generate_uid()
        order = np.random.default_rng(1).permutation(len(voxels))
        for index, plane in enumerate(voxels):
            place = index if places is None else places[index]
            path = folder / f"{uid[-4:]}_{order[index]:03d}{suffix}"
            data = blank(path, plane, uid)
            data.ImagePositionPatient = (np.array(ORIGIN) + place * (STEP * NORMAL + np.array(tilt))).round(9).tolist()
            data.ImageOrientationPatient = [*ROWS, *COLUMNS]
            data.PixelSpacing = list(SPACING)
            data.SliceThickness = STEP
            data.InstanceNumber = int(order[index]) + 1
            if change is not None:
                change(data, index)
            data.save_as(path)
        return folder

    return write


@pytest.fixture
def enhanced(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of several frames, the last slice first."""

    def write(voxels: Any, name: str = "enhanced.dcm", *, slope: float = 1.0, intercept: float = 0.0) -> Path:
        path = tmp_path / name
        data = blank(path, voxels[::-1], generate_uid(), EnhancedCTImageStorage)
        data.NumberOfFrames = len(voxels)
        shared = Dataset()
        measures, orientation, values = Dataset(), Dataset(), Dataset()
        measures.PixelSpacing, measures.SliceThickness = list(SPACING), STEP
        orientation.ImageOrientationPatient = [*ROWS, *COLUMNS]
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, intercept, "HU"
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
        shared.PixelValueTransformationSequence = Sequence([values])
        data.SharedFunctionalGroupsSequence = Sequence([shared])
        groups = []
        for index in reversed(range(len(voxels))):
            group, position = Dataset(), Dataset()
            position.ImagePositionPatient = (np.array(ORIGIN) + index * STEP * NORMAL).round(9).tolist()
            group.PlanePositionSequence = Sequence([position])
            groups.append(group)
        data.PerFrameFunctionalGroupsSequence = Sequence(groups)
        data.save_as(path)
        return path

    return write


@pytest.fixture
def retag() -> Callable[..., None]:
    """Change a file that is there."""

    def change(path: Path, **tags: Any) -> None:
        data = pydicom.dcmread(path)
        for name, value in tags.items():
            setattr(data, name, value)
        data.save_as(path)

    return change
