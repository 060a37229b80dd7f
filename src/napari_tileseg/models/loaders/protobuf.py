"""The fields of a protobuf message, found in its bytes without unpacking what is not asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["fields", "packed", "text"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field of a message: a whole number, or the bytes of anything longer.

    Raises
    ------
    ModelError
        If a field reaches beyond the end of the data, or is of an unknown type.

    Source: protobuf.dev/programming-guides/encoding.
    """
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            yield number, value
            continue
        if kind == _BYTES:
            size, place = _varint(data, place)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ModelError("it holds a field of an unknown type")
        if number == 0 or size > len(data) - place:
            raise ModelError("a part of it reaches beyond its end")
        yield number, data[place : place + size]
        place += size


def packed(value: int | memoryview) -> list[int]:
    """Return the whole numbers of a repeated field, of which `value` is one or several together."""
    if isinstance(value, int):
        return [value]
    numbers, place = [], 0
    while place < len(value):
        number, place = _varint(value, place)
        numbers.append(number)
    return numbers


def text(value: int | memoryview) -> str:
    """Return a string."""
    return "" if isinstance(value, int) else bytes(value).decode("utf-8", "replace")


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    result = 0
    for index in range(_LONGEST_VARINT):
        if place + index >= len(data):
            break
        byte = data[place + index]
        result |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return result, place + index + 1
    raise ModelError("it ends in the middle of a number")
