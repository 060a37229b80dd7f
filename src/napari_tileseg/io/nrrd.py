"""NRRD files, attached (``.nrrd``) or with their voxels in another file (``.nhdr``), and the segmentations of 3D Slicer."""

from __future__ import annotations

import bz2
import gzip
import re
import warnings
import zlib
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Any

import nrrd
import numpy as np

from napari_tileseg.errors import InputError
from napari_tileseg.io.files import broken_off, check_readable, damaged, too_short
from napari_tileseg.io.lazy import LazyArray, native
from napari_tileseg.io.mapped import delete_after, unpacked
from napari_tileseg.io.segments import KEY, named_by_hand, read_segments, unescaped
from napari_tileseg.io.space import axes_affine, check_grid, decode_note
from napari_tileseg.io.units import unit_name
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_nrrd"]

_WHOLE_BYTES = 2**27
"""Volumes up to this size (128 MB) are read into memory at once."""

_LONGEST_LINE = 2**24

_TYPES = {
    "int8": ("signed char", "int8", "int8_t"),
    "uint8": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "int16": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "uint16": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "int32": ("int", "signed int", "int32", "int32_t"),
    "uint32": ("uint", "unsigned int", "uint32", "uint32_t"),
    "int64": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "uint64": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "float32": ("float",),
    "float64": ("double",),
}
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names}

_TO_LPS = {
    "left-posterior-superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
}
"""Signs that turn the world of each anatomical space; the words, or their first letters."""

_SPACES = {**_TO_LPS, **{"".join(word[0] for word in name.split("-")): signs for name, signs in _TO_LPS.items()}}
_CHANNELS = ("color", "vector", "scalar", "normal", "gradient", "quaternion", "point", "list", "matrix")
_TIMES = ("time", "t", "frame", "frames")


def read_nrrd(path: Path, *, series: int = 0, level: int = 0, lazy: bool = False) -> Volume:
    """Read a NRRD image; its axes are reversed, its world is LPS (RAS and LAS are turned).

    Axes with a direction in space are X, Y and Z in the order of the file; of the others those that say so are time,
    the rest channels. Lengths are millimetres in anatomical spaces that name no unit. Files of labels with the metadata of
    3D Slicer's segments keep names and colours; segments that overlap become channels.

    Parameters
    ----------
    path : Path
        ``.nrrd``, ``.nhdr`` or ``.seg.nrrd``.
    series, level : int
        Must be 0.
    lazy : bool
        Leave small images in their file too, where they are not compressed.

    Returns
    -------
    Volume
        In memory up to 128 MB, else read where it is indexed.

    Raises
    ------
    InputError
        If the file is missing, no NRRD, cut off, or its header contradicts itself.
    """
    check_readable(path)
    if series or level:
        raise InputError(f'"{path.name}" holds one image. Choose series 0 and level 0.')
    try:
        with path.open("rb") as stream:
            header = _header(path, stream)
            stored = _Stored.of(path, header)
            data = _data(path, stream, header, stored, lazy=lazy)
        return _volume(path, header, stored, data)
    except (EOFError, zlib.error) as error:
        raise broken_off(path) from error
    except (nrrd.NRRDError, ValueError, KeyError, IndexError, TypeError, gzip.BadGzipFile) as error:
        raise damaged(path, "NRRD") from error


def _header(path: Path, stream: IO[bytes]) -> Mapping[str, Any]:
    """Parse the header; the stream stands behind it then.

    The library reads ASCII; other letters (in names of segments) are passed through it as code numbers.
    """
    if stream.read(4) != b"NRRD":
        raise damaged(path, "NRRD")
    stream.seek(0)
    lines: list[str] = []
    while (line := stream.readline(_LONGEST_LINE)).strip():
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        lines.append(re.sub(r"[^\x00-\x7f]", lambda letter: f"\x1a{ord(letter[0]):06x}", text))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a field that is named twice; the last one counts
        header: Mapping[str, Any] = nrrd.read_header(lines)
    return {_letters(key): _letters(value) if isinstance(value, str) else value for key, value in header.items()}


def _letters(text: str) -> str:
    return re.sub(r"\x1a([0-9a-f]{6})", lambda code: chr(int(code[1], 16)), text)


@dataclass(frozen=True)
class _Stored:
    """How the voxels lie in the file, fastest axis first.

    Parameters
    ----------
    sizes : tuple of int
    letters : str
        One for each axis.
    dtype : dtype
        With the file's byte order.
    guessed : str
        Letters that the file does not tell.
    """

    sizes: tuple[int, ...]
    letters: str
    dtype: np.dtype[Any]
    guessed: str = ""

    @property
    def bytes(self) -> int:
        return int(np.prod(self.sizes, dtype=object)) * self.dtype.itemsize

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes[::-1]

    @classmethod
    def of(cls, path: Path, header: Mapping[str, Any]) -> _Stored:
        sizes = tuple(int(size) for size in header["sizes"])
        if int(header["dimension"]) != len(sizes):
            raise damaged(path, "NRRD")
        if min(sizes) < 1:
            raise InputError(f'"{path.name}" holds an image without voxels. Choose another one.')
        kind = str(header["type"]).lower()
        if kind not in _DTYPES:
            raise InputError(f'"{path.name}" holds values of type "{kind}". Whole and real numbers are accepted.')
        dtype = np.dtype(_DTYPES[kind])
        if dtype.itemsize > 1 and header.get("encoding", "raw").lower() not in ("ascii", "text", "txt"):
            dtype = dtype.newbyteorder(">" if str(header["endian"]).lower() == "big" else "<")
        letters, guessed = _letters_of(path, header, len(sizes))
        return cls(sizes, letters, dtype, guessed)


def _letters_of(path: Path, header: Mapping[str, Any], count: int) -> tuple[str, str]:
    """Return one letter for each stored axis, and those of them that are guesses."""
    kinds = [str(kind).lower() for kind in header.get("kinds") or ["???"] * count]
    words = [str(word).lower() for word in header.get("labels") or [""] * count]
    directions = _directions(header)
    spatial = [index for index in range(count) if directions is not None and np.isfinite(directions[index]).all()]
    if directions is None:
        other = [index for index in range(count) if kinds[index] == "time" or _is_channel(kinds[index]) or words[index] in _TIMES]
        spatial = [index for index in range(count) if index not in other][:3]
    if not 2 <= len(spatial) <= 3:
        raise InputError(f'"{path.name}" has {len(spatial)} axes of space. Two and three are accepted.')
    letters, guessed = ["?"] * count, ""
    for letter, index in zip("XYZ", spatial, strict=False):
        letters[index] = letter
    for index in range(count):
        if letters[index] == "?":
            known = "T" if kinds[index] == "time" or words[index] in _TIMES else "C" if _is_channel(kinds[index]) else ""
            letters[index] = known if known and known not in letters else next((free for free in "TC" if free not in letters), "?")
            guessed += letters[index] if not known else ""
    if "?" in letters:
        raise InputError(f'"{path.name}" has {count} axes. Up to five are accepted: x, y, z, time and channel.')
    return "".join(letters), guessed


def _is_channel(kind: str) -> bool:
    return kind == "complex" or any(word in kind for word in _CHANNELS)


def _directions(header: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Return the direction of each axis as a row, without numbers for those that have none; None if the file has no space."""
    given = header.get("space directions")
    if given is None:
        return None
    rows = [np.full(0, np.nan) if row is None else np.asarray(row, dtype=np.float64) for row in given]
    width = max(len(row) for row in rows)
    return np.array([row if len(row) == width else np.full(width, np.nan) for row in rows])


def _data(path: Path, stream: IO[bytes], header: Mapping[str, Any], stored: _Stored, *, lazy: bool) -> Any:
    """Return the voxels, slowest axis first."""
    place = header.get("data file", header.get("datafile"))
    if place is None:
        return _voxels(path, stream, header, stored, lazy=lazy)
    if str(place).split()[0] == "LIST" or "%" in str(place):
        raise InputError(f'"{path.name}" keeps its voxels in several files. Save it as one .nrrd file.')
    file = path.parent / str(place)
    check_readable(file)
    with file.open("rb") as apart:
        return _voxels(file, apart, header, stored, lazy=lazy)


def _voxels(path: Path, stream: IO[bytes], header: Mapping[str, Any], stored: _Stored, *, lazy: bool) -> Any:
    encoding = str(header.get("encoding", "raw")).lower()
    for _ in range(int(header.get("line skip", header.get("lineskip", 0)))):
        stream.readline()
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    if encoding == "raw":
        size = path.stat().st_size
        start = size - stored.bytes if skip == -1 else stream.tell() + skip
        if start < 0 or start + stored.bytes > size:
            raise too_short(path, max(start, 0) + stored.bytes)
        mapped = np.memmap(path, stored.dtype, "r", start, stored.shape)
        return _lazy(mapped, stored) if lazy or stored.bytes > _WHOLE_BYTES else native(np.array(mapped))
    if encoding in ("gzip", "gz"):
        packed: Any = gzip.GzipFile(fileobj=stream)
    elif encoding in ("bzip2", "bz2"):
        packed = bz2.BZ2File(stream)
    elif encoding in ("ascii", "text", "txt"):
        numbers = np.array(stream.read().split()).astype(stored.dtype)
        return numbers.reshape(stored.shape)
    else:
        raise InputError(f'"{path.name}" is encoded as "{encoding}"; raw, gzip, bzip2 and text are accepted. Save it with gzip.')
    if skip > 0:
        packed.read(skip)
    if stored.bytes > _WHOLE_BYTES:
        file, delete = unpacked(packed)
        if file.stat().st_size < stored.bytes:
            delete()
            raise EOFError
        mapped = np.memmap(file, stored.dtype, "r", 0, stored.shape)
        delete_after(mapped, delete)
        return _lazy(mapped, stored)
    content = packed.read(stored.bytes)
    if len(content) < stored.bytes:
        raise EOFError
    return native(np.frombuffer(content, stored.dtype).reshape(stored.shape).copy())


def _lazy(mapped: NDArray[Any], stored: _Stored) -> LazyArray:
    return LazyArray(stored.shape, stored.dtype, lambda box: np.asarray(mapped[box]))


def _volume(path: Path, header: Mapping[str, Any], stored: _Stored, data: Any) -> Volume:
    axes = stored.letters[::-1]
    if not 2 <= len(axes) <= 5:
        raise InputError(f'"{path.name}" has {len(axes)} {"axis" if len(axes) == 1 else "axes"}. Two to five are accepted.')
    affine, length = _grid(path, header, stored)
    units = tuple(length if axis in "XYZ" else _time_unit(header, stored) if axis == "T" else "pixel" for axis in axes)
    name = re.sub(r"(\.seg)?\.(nrrd|nhdr)$", "", path.name, flags=re.IGNORECASE)
    colours = "C" in axes and stored.sizes[stored.letters.index("C")] == 3 and "color" in str(header.get("kinds"))
    metadata = {"format": "nrrd", **({"guessed_axes": stored.guessed} if stored.guessed else {})}
    volume = Volume(data, axes, affine, units, name, ("red", "green", "blue") if colours else (), metadata)
    found = read_segments(volume, header)
    if KEY not in header:
        return found
    note = unescaped(str(header[KEY]))
    return decode_note(found, note) if found is volume else named_by_hand(found, decode_note(_unnamed(found), note))


def _unnamed(volume: Volume) -> Volume:
    return replace(volume, metadata={key: value for key, value in volume.metadata.items() if key not in ("classes", "colors")})


def _grid(path: Path, header: Mapping[str, Any], stored: _Stored) -> tuple[NDArray[np.float64], str]:
    """Return the affine in the order of the volume's axes, and the unit of its lengths."""
    spatial = [stored.letters.index(letter) for letter in "XYZ" if letter in stored.letters]
    matrix = np.eye(4)
    directions = _directions(header)
    spacings = np.asarray(header.get("spacings", [np.nan] * len(stored.sizes)), dtype=np.float64)
    if directions is not None:
        linear = directions[spatial].T
        if len(linear) not in (len(spatial), 3):
            raise InputError(f'"{path.name}" lies in a space of {len(linear)} dimensions. Two and three are accepted.')
        check_grid(
            path, np.vstack([np.hstack([linear, np.zeros((len(linear), 1))]), np.zeros((1, len(spatial) + 1))]), "XYZ"[: len(spatial)]
        )
        if len(linear) == len(spatial):
            matrix[: len(linear), : len(spatial)] = linear
            origin = header.get("space origin")
            matrix[: len(linear), 3] = 0 if origin is None else origin
        else:  # a plane in space: a volume without Z keeps the size of its pixels only
            matrix[:2, :2] = np.diag(np.linalg.norm(linear, axis=0))
        matrix[:3] *= np.array([_SPACES.get(str(header.get("space", "")).lower(), (1, 1, 1))]).T
        if not np.isfinite(matrix).all():
            check_grid(path, matrix)
    else:
        steps = spacings[spatial]
        for row, step in enumerate(steps):
            if np.isfinite(step):
                check_grid(path, np.diag([step if step > 0 else 0.0, 1.0]), "XYZ"[row])
                matrix[row, row] = step
    start = np.asarray(header.get("axis mins", header.get("axismins", [0.0] * len(stored.sizes))), dtype=np.float64)
    time = (1.0, 0.0)
    if "T" in stored.letters:
        index = stored.letters.index("T")
        time = (float(spacings[index]) if spacings[index] > 0 else 1.0, float(np.nan_to_num(start[index])))
    return axes_affine(stored.letters[::-1], matrix, time=time), _length(header, spatial)


def _length(header: Mapping[str, Any], spatial: list[int]) -> str:
    given = header.get("space units") or [unit for index, unit in enumerate(header.get("units") or []) if index in spatial]
    units = {unit_name(str(unit)) for unit in given}
    if len(units) == 1:
        return units.pop()
    return "millimeter" if not units and str(header.get("space", "")).lower() in _SPACES else "pixel"


def _time_unit(header: Mapping[str, Any], stored: _Stored) -> str:
    units = list(header.get("units") or [])
    return unit_name(str(units[stored.letters.index("T")])) if len(units) == len(stored.sizes) else "pixel"
