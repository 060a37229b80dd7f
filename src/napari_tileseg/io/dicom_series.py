"""``Series``: frames put together to an image, in the order in which they lie in the body; and which of them a folder holds."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.dicom_header import SEGMENTATIONS, Frame, frames_of, is_dicom, series_of
from napari_tileseg.io.files import check_readable, stamp
from napari_tileseg.io.space import check_grid

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DICOM_SUFFIXES", "Grid", "Series", "dicom_files", "files_stamp", "holds_dicom", "series_at", "series_in"]

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_FOREIGN = (
    ".nii",
    ".gz",
    ".nrrd",
    ".mha",
    ".mhd",
    ".tif",
    ".tiff",
    ".png",
    ".jpg",
    ".jpeg",
    ".json",
    ".txt",
    ".csv",
    ".xml",
    ".zip",
    ".svs",
)
"""Suffixes of files that are not looked into."""

_LOOKED_AT = 30
"""Files of a folder that are looked into to tell whether it holds DICOM."""

_SLACK = 0.02
"""Part of a step by which slices may lie apart from where they should."""


@dataclass(frozen=True)
class Grid:
    """How the frames of a series lie.

    Parameters
    ----------
    frames : tuple of tuple of (Frame or None)
        For each moment (or variant) one frame for each place; None for a slice that is missing.
    matrix : ndarray, shape (4, 4)
        Maps (x, y, z, 1) indices to LPS millimetres.
    placed : bool
        Whether the files tell the place in the body.
    """

    frames: tuple[tuple[Frame | None, ...], ...]
    matrix: NDArray[np.float64]
    placed: bool


@dataclass(frozen=True)
class Series:
    """The frames of one image, in no order.

    Parameters
    ----------
    frames : tuple of Frame
    """

    frames: tuple[Frame, ...]

    @property
    def first(self) -> Frame:
        return self.frames[0]

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(frame.file for frame in self.frames))

    @property
    def is_labels(self) -> bool:
        return self.first.kind in SEGMENTATIONS

    @property
    def title(self) -> str:
        """For people: ``"401: anat-T1w, 24 slices"``."""
        count = len(self.frames)
        many = "a segmentation" if self.is_labels else f"{count} {'slice' if self.first.of == 1 else 'frame'}{'s' * (count != 1)}"
        return ", ".join(part for part in (self.first.title or self.first.modality, many) if part)

    def grid(self, name: str, *, partial: bool = False) -> Grid:
        """Put the frames in order.

        Parameters
        ----------
        name : str
            Of the file or folder, for messages.
        partial : bool
            Accept that slices are missing, or lie unequally.

        Raises
        ------
        InputError
            If a slice is missing, if slices lie unequally, or if not every place has as many images.
        """
        if not all(frame.position and frame.orientation for frame in self.frames):
            return self._unplaced(name)
        rows, columns = np.array(self.first.orientation[:3]), np.array(self.first.orientation[3:])
        normal = np.cross(rows, columns)
        along = {frame: float(np.dot(frame.position, normal)) for frame in self.frames}
        stacks = _stacks(along)
        counts = {len(stack) for stack in stacks}
        if len(counts) > 1:
            raise InputError(
                f'"{name}" has {min(counts)} images of some slices, {max(counts)} of others. Copy the whole series again, and only that.'
            )
        ordered = [sorted(stack, key=_by_time) for stack in stacks]
        places = [along[stack[0]] for stack in ordered]
        gaps = _gaps(name, places, partial)
        start = np.array(ordered[0][0].position)
        step = normal * (self.first.thick or 1.0)
        if len(places) > 1:
            step = (np.array(ordered[-1][0].position) - start) / (len(places) - 1 + sum(gaps))
        matrix = np.eye(4)
        down, across = self.first.spacing or (1.0, 1.0)
        matrix[:3, :] = np.stack([rows * across, columns * down, step, start], axis=1)
        check_grid(self.first.file, matrix)
        full: list[list[Frame] | None] = []
        for stack, gap in zip(ordered, [*gaps, 0], strict=True):
            full += [stack, *([None] * gap)]
        moments = range(counts.pop())
        return Grid(tuple(tuple(None if stack is None else stack[moment] for stack in full) for moment in moments), matrix, True)

    def _unplaced(self, name: str) -> Grid:
        """Order frames without a place by their numbers; there is one pixel size at most."""
        matrix = np.eye(4)
        if spacing := self.first.spacing:
            matrix[0, 0], matrix[1, 1] = spacing[1], spacing[0]
            check_grid(self.first.file, matrix, "XY")
        frames = sorted(self.frames, key=lambda frame: (frame.instance, frame.file.name, frame.number))
        return Grid((tuple(frames),), matrix, False)


def _stacks(along: dict[Frame, float]) -> list[list[Frame]]:
    """Return the frames of each place, the places in order."""
    frames = sorted(along, key=lambda frame: along[frame])
    stacks = [[frames[0]]]
    for frame in frames[1:]:
        if along[frame] - along[stacks[-1][0]] < 1e-3:
            stacks[-1].append(frame)
        else:
            stacks.append([frame])
    return stacks


def _by_time(frame: Frame) -> tuple[object, ...]:
    return (*frame.variant, *frame.moment, frame.instance, frame.file.name, frame.number)


def _gaps(name: str, places: list[float], partial: bool) -> list[int]:
    """Return how many slices are missing behind each but the last."""
    if len(places) < 2:
        return []
    steps = np.diff(places)
    usual = float(np.median(steps))
    ratios = steps / usual
    slack = max(_SLACK, 0.05 / usual) if usual > 0.2 else 0.25
    wholes = np.round(ratios).astype(int)
    if np.all(np.abs(ratios - 1) <= slack):
        return [0] * len(steps)
    lost = [max(0, int(whole) - 1) for whole in wholes]
    if np.all(np.abs(ratios - wholes) <= 2 * slack) and wholes.min() >= 1:
        if partial:
            return lost
        where = int(np.argmax(lost))
        many = f"{sum(lost)} slices are" if sum(lost) > 1 else "a slice is"
        raise InputError(f'In "{name}" {many} missing, the first behind slice {where + 1} of {len(places)}. Copy the whole series again.')
    if partial:
        return [0] * len(steps)
    raise InputError(
        f'"{name}" has slices {steps.min():.4g} to {steps.max():.4g} mm apart; equal steps are accepted. '
        "Resample it in the program that made it, or copy the whole series again."
    )


def dicom_files(folder: Path) -> list[Path]:
    """Return the files of a folder that may be DICOM: by their suffix, or by their first bytes where the suffix says nothing."""
    found = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            if not entry.name.startswith(".") and entry.name != "DICOMDIR" and entry.is_file() and _may_be(entry.name):
                path = folder / entry.name
                if entry.name.lower().endswith(DICOM_SUFFIXES) or is_dicom(path):
                    found.append(path)
    return found


def files_stamp(files: Iterable[Path]) -> str:
    """Return a digest of names, sizes and times of change of files."""
    found = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.blake2b(repr(found).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def holds_dicom(folder: Path) -> bool:
    """Say whether there are DICOM files directly in a folder; a few are looked into."""
    try:
        with os.scandir(folder) as entries:
            looked = 0
            for entry in entries:
                if entry.name.startswith(".") or not _may_be(entry.name) or not entry.is_file():
                    continue
                looked += 1
                if entry.name.lower().endswith(DICOM_SUFFIXES) or is_dicom(folder / entry.name):
                    return True
                if looked >= _LOOKED_AT:
                    return False
    except OSError:
        return False
    return False


def _may_be(name: str) -> bool:
    return not name.lower().endswith(_FOREIGN) and name != "DICOMDIR"


def series_in(path: Path) -> tuple[Series, ...]:
    """Return the series in a folder, or the one that a file belongs to; the headers are read once.

    Raises
    ------
    InputError
        If the folder or file holds no image, or a header cannot be read.
    """
    if path.is_dir():
        found, bad = _series(path, stamp(path))
        if bad:
            raise InputError(bad[0][1])
        if not found:
            raise InputError(f'"{path.name}" holds DICOM files without images. Choose another folder.')
        return found
    check_readable(path)
    own = frames_of(path)
    if not own:
        raise InputError(f'"{path.name}" is DICOM without an image. Choose a file that holds one.')
    if own[0].of > 1 or own[0].kind in SEGMENTATIONS:
        return tuple(_grouped(own))
    siblings, bad = _series(path.parent, stamp(path.parent))
    if not any(path.name == file.name for item in siblings for file in item.files):  # another file has the same slice
        siblings, bad = _series(path.parent, stamp(path.parent), path.name)
    mine = tuple(item for item in siblings if any(frame.file.name == path.name for frame in item.frames))
    for series, reason in bad:  # those of other series are in nobody's way; of an unknown one they may be slices that are missing here
        if series == own[0].series or (not series and any(len(item.frames) > 1 for item in mine)):
            raise InputError(reason)
    return mine


def series_at(path: Path, number: int) -> tuple[Series, int]:
    """Return one series of a path, and how many there are.

    Raises
    ------
    InputError
        If there is none with that number.
    """
    found = series_in(path)
    if not 0 <= number < len(found):
        titles = "; ".join(f"{index} ({item.title})" for index, item in enumerate(found[:6]))
        raise InputError(f'"{path.name}" has {len(found)} series: {titles}. Choose series 0 to {len(found) - 1}, not {number}.')
    return found[number], len(found)


@functools.lru_cache(maxsize=8)
def _series(folder: Path, _stamp: str, first: str = "") -> tuple[tuple[Series, ...], tuple[tuple[str, str], ...]]:
    """Return the series of a folder; and of each file that cannot be used its series, as far as it can be told, and why.

    Of a slice that was copied twice the file whose name is `first` counts.
    """
    frames: list[Frame] = []
    seen: set[tuple[str, int]] = set()
    bad: list[tuple[str, str]] = []
    for file in sorted(dicom_files(folder), key=lambda file: file.name != first):
        try:
            check_readable(file)
            for frame in frames_of(file):
                if (frame.uid, frame.number) not in seen:  # the same slice copied twice is one slice
                    seen.add((frame.uid, frame.number))
                    frames.append(frame)
        except InputError as error:
            bad.append((series_of(file), str(error)))
    return tuple(_grouped(frames)), tuple(bad)


def _grouped(frames: list[Frame]) -> list[Series]:
    """Part frames by series, size and direction; a file of several frames, and a segmentation, is an image by itself."""
    groups: dict[tuple[object, ...], list[Frame]] = {}
    for frame in frames:
        own = frame.file if frame.of > 1 or frame.kind in SEGMENTATIONS else None
        turned = () if frame.kind in SEGMENTATIONS else tuple(round(part, 3) + 0.0 for part in frame.orientation)
        alone = frame.uid if own is None and not frame.position and frame.modality not in ("CT", "MR", "PT") else None
        groups.setdefault((frame.series, own, alone, frame.kind, frame.shape, turned), []).append(frame)
    return sorted((Series(tuple(group)) for group in groups.values()), key=_by_number)


def _by_number(series: Series) -> tuple[object, ...]:
    number = series.first.title.partition(":")[0]
    return (int(number) if number.isdigit() else 1 << 30, series.first.series, series.first.instance, series.first.file.name)
