"""Compressed TIFFs in few huge pieces: unpacked once into a file that can be read anywhere, in little memory."""

from __future__ import annotations

import contextlib
import math
import shutil
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.io.cache import scratch_folder
from napari_tileseg.io.mapped import delete_after

if TYPE_CHECKING:
    from collections.abc import Iterator

    import tifffile
    from numpy.typing import NDArray

__all__ = ["in_huge_pieces", "unpack"]

_HUGE_BYTES = 2**26
"""A piece (strip or tile) above this size is not unpacked again for every box that touches it."""

_READ_BYTES = 2**20
_DEFLATE = (8, 32946)
"""Both numbers of deflate among TIFF's compressions."""


def in_huge_pieces(series: tifffile.TiffPageSeries) -> bool:
    """Say whether one strip or tile of an image is too large to be unpacked again and again."""
    page = series.keyframe
    return math.prod(page.chunks) * np.dtype(page.dtype).itemsize > _HUGE_BYTES


def unpack(series: tifffile.TiffPageSeries) -> NDArray[Any]:
    """Return the image as a map of a scratch file, which goes away with it.

    Deflate, by far the most common of such files, streams through a few megabytes; of other compressions one piece at a time is
    in memory.

    Raises
    ------
    OSError, zlib.error, ValueError
        If the disk is full, or the data is damaged.
    """
    folder = scratch_folder()
    try:
        array: np.memmap[Any, Any] = np.lib.format.open_memmap(
            folder / "image.npy", mode="w+", dtype=np.dtype(series.dtype).newbyteorder("="), shape=tuple(series.shape)
        )
        if _streams(series):
            planes = array.reshape(len(series.pages), *series.keyframe.shape)
            for plane, page in zip(planes, series.pages, strict=True):
                _unpack_page(page, plane)
        else:
            series.asarray(out=array)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    delete_after(array, lambda: shutil.rmtree(folder, ignore_errors=True))
    return array


def _streams(series: tifffile.TiffPageSeries) -> bool:
    page = series.keyframe
    return bool(
        page.compression in _DEFLATE
        and page.predictor in (1, 2)
        and not page.is_tiled
        and page.planarconfig == 1
        and page.fillorder == 1
        and page.bitspersample == 8 * np.dtype(page.dtype).itemsize
        and page.photometric in (0, 1, 2)
        and None not in series.pages
    )


def _unpack_page(page: Any, plane: NDArray[Any]) -> None:
    """Unpack the strips of a page, each from its first row to its last."""
    key = page.keyframe
    rows = plane.reshape(key.imagelength, key.imagewidth, -1)
    stored = np.dtype(key.dtype).newbyteorder(page.parent.byteorder)
    width = rows.shape[1] * rows.shape[2] * stored.itemsize
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        first = index * key.rowsperstrip
        last = min(first + key.rowsperstrip, len(rows))
        waiting = b""
        for piece in _inflated(page.parent.filehandle, offset, count):
            waiting += piece
            whole = min(len(waiting) // width, last - first)
            if not whole:
                continue
            values = np.frombuffer(waiting[: whole * width], stored).reshape(whole, *rows.shape[1:])
            # Predictor 2 stores differences to the pixel on the left; sums wrap around as the differences did.
            rows[first : first + whole] = np.cumsum(values, axis=1, dtype=plane.dtype) if key.predictor == 2 else values
            waiting = waiting[whole * width :]
            first += whole
        if first < last:
            raise ValueError(f"{last - first} rows of strip {index} are missing")


def _inflated(handle: Any, offset: int, count: int) -> Iterator[bytes]:
    """Yield the content of a deflated strip, a few megabytes at a time."""
    engine = zlib.decompressobj()
    place, end = offset, offset + count
    while place < end and not engine.eof:
        handle.seek(place)
        data = handle.read(min(_READ_BYTES, end - place))
        place += len(data)
        if not data:
            return
        while data and not engine.eof:
            yield engine.decompress(data, 4 * _READ_BYTES)
            data = engine.unconsumed_tail
    with contextlib.suppress(zlib.error):
        yield engine.flush()
