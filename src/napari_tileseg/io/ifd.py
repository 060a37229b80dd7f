"""The chain of directories of a TIFF file, followed just far enough to see whether the file is whole."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["chain_end"]

_MOST = 10**6


def chain_end(path: Path) -> int | None:
    """Return how many bytes the file must have for its directories to be there; None if it is no TIFF.

    The header points at the first directory, each directory at the next one (TIFF 6.0, section 2; BigTIFF
    has eight bytes where TIFF has four). In a file that was cut off one of them lies beyond the end.
    """
    with path.open("rb") as stream:
        order = {b"II": "<", b"MM": ">"}.get(stream.read(2))
        version = stream.read(2)
        if order is None or len(version) < 2:
            return None
        number = struct.unpack(f"{order}H", version)[0]
        if number == 43:
            stream.seek(8)
            return _follow(stream, path.stat().st_size, f"{order}Q", f"{order}Q", 20)
        if number == 42:
            return _follow(stream, path.stat().st_size, f"{order}I", f"{order}H", 12)
    return None


def _follow(stream: BinaryIO, size: int, pointer: str, count: str, entry: int) -> int:
    """Walk from pointer to pointer; `entry` is the length of one field of a directory."""
    position, end = stream.tell(), 0
    seen: set[int] = set()
    while len(seen) < _MOST:
        offset = _number(stream, position, pointer)
        if offset is None:
            return max(end, position + struct.calcsize(pointer))
        if offset == 0 or offset in seen:
            return end
        seen.add(offset)
        fields = _number(stream, offset, count)
        if fields is None:
            return max(end, offset + struct.calcsize(count))
        position = offset + struct.calcsize(count) + fields * entry
        end = max(end, position + struct.calcsize(pointer))
        if end > size:
            return end
    return end


def _number(stream: BinaryIO, position: int, form: str) -> int | None:
    stream.seek(position)
    data = stream.read(struct.calcsize(form))
    return int(struct.unpack(form, data)[0]) if len(data) == struct.calcsize(form) else None
