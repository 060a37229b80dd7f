"""``ZarrArray``: labels in a Zarr store that this program need not have written, which are corrected where they lie."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.io.checks import checks_in, properties_with
from napari_tileseg.io.lazy import LazyArray, index_ranges
from napari_tileseg.moving import patiently

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["OWN", "ZarrArray", "check_elsewhere"]

OWN = "napari-tileseg"
"""Attribute of the group of labels: what NGFF has no place for."""


class ZarrArray(LazyArray):
    """One array of a store, on the axes that are shown; it is read and written a box at a time.

    Besides integers and slices it is indexed with one array of indices for each axis, as napari's brush does.

    Parameters
    ----------
    root : Path
        Folder of the store.
    array : zarr.Array
        Opened for reading.
    kept : sequence of int
        The axes that are shown; the others are of length 1.
    fixed : mapping of int to int, optional
        Index along axes that are not shown, where it is not 0.

    Attributes
    ----------
    read_only : bool
        Whether the system lets nobody write there.
    """

    def __init__(self, root: Path, array: Any, kept: Sequence[int], fixed: Mapping[int, int] | None = None) -> None:
        # Not by LazyArray's own __init__: a reader that is a method of the object would keep it from being freed at once.
        self.shape = tuple(array.shape[index] for index in kept)
        self.dtype = np.dtype(array.dtype).newbyteorder("=")
        chunks = getattr(array, "chunks", None)
        self.chunks: tuple[int, ...] | None = tuple(int(chunks[index]) for index in kept) if chunks else None
        together = getattr(array, "shards", None) or chunks
        self._along = int(together[kept[0]]) if together else 1
        self.root = root
        self._array = array
        self._kept, self._fixed = tuple(kept), dict(fixed or {})
        self._open: Any = None

    @property
    def read_only(self) -> bool:
        folder = self.root / self._array.path
        return not os.access(folder, os.W_OK | os.X_OK)

    def at(self, axis: int, index: int) -> ZarrArray:
        """Return one entry of an axis, as an array without that axis."""
        kept = self._kept[:axis] + self._kept[axis + 1 :]
        return ZarrArray(self.root, self._array, kept, {**self._fixed, self._kept[axis]: index})

    def __getitem__(self, key: Any, /) -> Any:
        if not _points(key):
            return super().__getitem__(key)
        box, inside = _around(key, self.shape)
        return self._read(box)[inside] if inside[0].size else np.empty(inside[0].shape, self.dtype)

    def __setitem__(self, key: Any, value: Any) -> None:
        writer = self._writer()
        if _points(key):
            box, inside = _around(key, self.shape)
            if not inside[0].size:
                return
            block = self._read(box)
            block[inside] = value
            patiently(lambda: writer.__setitem__(self._stored(box), block.reshape(self._full(block.shape))))
            return
        ranges, dropped = index_ranges(key, self.shape)
        if any(span.step != 1 for span in ranges):
            raise IndexError("Labels on the disk are assigned in whole boxes, without steps, or pixel by pixel.")
        shape = [len(span) for span in ranges]
        if 0 in shape:
            return
        block = np.empty(shape, self.dtype)
        block[tuple(0 if single else slice(None) for single in dropped)] = value
        around = self._stored([slice(span.start, span.stop) for span in ranges])
        patiently(lambda: writer.__setitem__(around, block.reshape(self._full(shape))))

    def note(self, provenance: Mapping[str, Any]) -> None:
        """Write how the labels came to be, with what was said of objects, into the group around the array.

        Raises
        ------
        OutputError
            If the system refuses.
        """
        import zarr

        try:
            path = self._array.path.rpartition("/")[0]
            group = zarr.open_group(self.root, path=path, mode="r+")
            facts: dict[str, Any] = dict(group.attrs)
            own = facts.get(OWN)
            changed = {OWN: {**(own if isinstance(own, dict) else {}), "provenance": dict(provenance)}}
            around = facts["ome"] if isinstance(facts.get("ome"), dict) else facts
            if isinstance(around.get("image-label"), dict):
                looks = properties_with(around["image-label"], checks_in(dict(provenance)))
                changed |= {"ome": {**around, "image-label": looks}} if around is not facts else {"image-label": looks}
            group.update_attributes(changed)
        except (OSError, ValueError, KeyError) as error:
            raise OutputError(f'What was done could not be noted in "{self.root.name}": {error}. The labels are in it.') from error

    def _writer(self) -> Any:
        if self._open is None:
            import zarr

            if self.read_only:
                raise PermissionError(13, "nothing may be written there")
            self._open = zarr.open_array(self.root, path=self._array.path, mode="r+")
        return self._open

    def _stored(self, box: Sequence[slice]) -> tuple[slice, ...]:
        """Return a box of the shown axes as one of all."""
        at = [self._fixed.get(axis, 0) for axis in range(self._array.ndim)]
        full = [slice(start, start + 1) for start in at]
        for axis, span in zip(self._kept, box, strict=True):
            full[axis] = span
        return tuple(full)

    def _full(self, shape: Sequence[int]) -> tuple[int, ...]:
        full = [1] * self._array.ndim
        for axis, size in zip(self._kept, shape, strict=True):
            full[axis] = size
        return tuple(full)

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        block = np.asarray(self._array[self._stored(box)])
        return block.reshape([span.stop - span.start for span in box])


def check_elsewhere(data: Any, path: Path) -> None:
    """Raise if labels would be saved where they lie: what is done to them is there already, and they are read from there.

    Raises
    ------
    OutputError
        One sentence.
    """
    if isinstance(data, ZarrArray) and data.root.resolve() == path.resolve():
        raise OutputError(f'These labels lie in "{path.name}", and what you do to them is there already. Choose another name for a copy.')


def _points(key: Any) -> bool:
    """Say whether an index names pixels one by one."""
    return isinstance(key, tuple) and bool(key) and all(isinstance(part, np.ndarray | list) for part in key)


def _around(key: Sequence[Any], shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[NDArray[np.intp], ...]]:
    """Return the box around pixels, and where they lie in it."""
    parts = [np.asarray(part, dtype=np.intp) for part in key]
    if len(parts) != len(shape):
        raise IndexError(f"{len(parts)} indices were given for {len(shape)} axes.")
    if not parts[0].size:
        return tuple(slice(0, 0) for _ in shape), tuple(parts)
    box = tuple(slice(int(part.min()), int(part.max()) + 1) for part in parts)
    if any(span.start < 0 or span.stop > size for span, size in zip(box, shape, strict=True)):
        raise IndexError(f"Some pixels lie outside of labels of shape {tuple(shape)}.")
    return box, tuple(part - span.start for part, span in zip(parts, box, strict=True))
