"""``ZarrLabels``: labels on the disk, filled slab by slab; the coarser levels of their pyramid fill meanwhile.

::

    labels[y:y + 70] = block             a slab, as a NumPy array would take it
       |
       +-> level 0   [ row of chunks ]   held until it is full, then each of its chunks is written once
       +-> level 1   [ row of chunks ]   every second pixel of the slab
       +-> level 2   [ row of chunks ]   every fourth

One row of chunks for each level is all that is in memory: twice that of the finest level at most.
"""

from __future__ import annotations

import json
import shutil
import weakref
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.folders import cache_folder
from napari_tileseg.io.cache import scratch_folder
from napari_tileseg.io.lazy import LazyArray, box_of
from napari_tileseg.io.output import refused, take_place
from napari_tileseg.io.zarr_layout import Layout
from napari_tileseg.io.zarr_level import Level
from napari_tileseg.moving import move, patiently

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import zarr
    from numpy.typing import NDArray

    from napari_tileseg.io.zarr_layout import Box

__all__ = ["ZarrLabels"]

_STATE = "tileseg-unfinished.json"
"""File in an unfinished store: its layout, and how many rows of it are on the disk."""

_LAYOUT = "napari-tileseg-layout"
"""Attribute of the group."""

_SCHEMA = 1


class ZarrLabels(LazyArray):
    """Labels in a Zarr group with one array for each level (``"0"`` is the finest), indexed like the labels of a run.

    Make one with `create`, `scratch`, `open_unfinished` or `open`. Slabs should come in order: along the first axis of space
    of one sample after the other. Any other order gives the same labels, only slower.

    Attributes
    ----------
    layout : Layout
        Chunks and levels.
    path : Path
        Where the store is now: an unfinished one stands under a temporary name beside `target`.
    target : Path
        Where `finish` puts it.
    """

    def __init__(
        self, path: Path, target: Path, layout: Layout, *, durable: int = 0, finished: bool = False, temporary: bool = False
    ) -> None:
        # Not by LazyArray's own __init__: a reader that is a method of the object would keep it from being freed at once.
        self.shape = layout.shape
        self.dtype = np.dtype(layout.dtype)
        if temporary:
            weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        self.layout = layout
        self.path = path
        self.target = target
        self._finished = finished
        self._received = self._durable = durable
        self._levels: tuple[Level, ...] = ()
        self._open()

    @classmethod
    def create(
        cls,
        path: str | Path,
        shape: tuple[int, ...],
        dtype: Any,
        axes: str,
        *,
        spatial: str = "",
        spacing: Mapping[str, float] | None = None,
        version: int = 3,
    ) -> ZarrLabels:
        """Begin a store that `finish` will put at `path`; an unfinished one for the same path is thrown away.

        Parameters
        ----------
        path : path-like
            Ends in ``.zarr``.
        shape, dtype, axes
            Of the labels, as `AxisMap` gives them.
        spatial : str, optional
            Letters of one sample, ``"YX"`` or ``"ZYX"`` (`AxisMap.spatial`).
        spacing : mapping of str to float, optional
            Length of a step along each axis.
        version : {3, 2}
            Of Zarr: that of the store around it, where it goes into one.

        Raises
        ------
        OutputError
            If it cannot be made there.
        """
        target = Path(path)
        place = cls.unfinished_path(target)
        layout = Layout.plan(shape, dtype, axes, spatial=spatial, spacing=spacing)
        try:
            if place.exists():
                shutil.rmtree(place)
            _make(place, layout, version)
        except OSError as error:
            raise refused(target, error) from error
        return cls(place, target, layout)

    @classmethod
    def scratch(
        cls,
        shape: tuple[int, ...],
        dtype: Any,
        axes: str,
        *,
        spatial: str = "",
        spacing: Mapping[str, float] | None = None,
        pyramid: bool = True,
    ) -> ZarrLabels:
        """Make a store in the cache folder that goes away with this object, or with the program at the latest.

        Without a `pyramid` it holds the finest level only, and may hold scores.

        Raises
        ------
        OutputError
            If it cannot be made there.
        """
        layout = Layout.plan(shape, dtype, axes, spatial=spatial, spacing=spacing, pyramid=pyramid)
        try:
            place = scratch_folder()
            _make(place, layout)
        except OSError as error:
            raise refused(cache_folder() / "labels", error) from error
        return cls(place, place, layout, temporary=True)

    @classmethod
    def open_unfinished(cls, path: str | Path) -> ZarrLabels:
        """Go on with a store that was begun for `path` and not finished; rows below `durable_rows` are in it.

        Raises
        ------
        OutputError
            If there is none, or its notes cannot be read.
        """
        target = Path(path)
        place = cls.unfinished_path(target)
        try:
            state = json.loads((place / _STATE).read_text(encoding="utf-8"))
            if state["schema"] != _SCHEMA:
                raise ValueError(f"schema {state['schema']}")
            store = cls(place, target, _layout(state["layout"]), durable=int(state["durable_rows"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f'There is no unfinished result for "{target.name}" that could be continued. Start the run again.') from error
        store._refill()
        return store

    @classmethod
    def open(cls, path: str | Path) -> ZarrLabels:
        """Open a finished store for changes; call `rebuild` after them.

        Raises
        ------
        OutputError
            If this package did not write it, or it cannot be read.
        """
        import zarr

        place = Path(path)
        try:
            facts: Any = zarr.open_group(place, mode="r").attrs[_LAYOUT]
            return cls(place, place, _layout(facts), finished=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(f'"{place.name}" cannot be changed in place: it was not written by this program. Save a copy.') from error

    @staticmethod
    def unfinished_path(path: str | Path) -> Path:
        """Return where the unfinished store for a path stands."""
        path = Path(path)
        return path.with_name(f".{path.name}.unfinished")

    @staticmethod
    def put_part(place: Path, box: Box, labels: NDArray[Any]) -> None:
        """Write a box of the finest level of a store that another process has begun; `rebuild` there makes the coarser levels.

        Parameters
        ----------
        place : Path
            Where the unfinished store stands (`path`).
        box : tuple of (start, stop)
            Along the labels' axes. Where several processes write at once, each needs whole chunks.
        labels : ndarray
            Of that box.

        Raises
        ------
        OutputError
            If the disk is full or gone.
        """
        import zarr

        try:
            group: Any = zarr.open_group(place, mode="r+")
            order = _layout(group.attrs[_LAYOUT]).order
            patiently(lambda: group["0"].__setitem__(tuple(slice(*box[axis]) for axis in order), labels.transpose(order)))
        except OSError as error:
            raise refused(place, error) from error

    @property
    def durable_rows(self) -> int:
        """Rows that are on the disk, counted as `AxisMap.rows_until` does: samples in order, rows along the first axis of space.

        Nothing that a crash of the program can do takes them back: chunks are replaced at once or not at all.
        """
        return self._durable

    @property
    def finished(self) -> bool:
        """Whether the store stands at its final place."""
        return self._finished

    @property
    def arrays(self) -> tuple[zarr.Array[Any], ...]:
        """The levels as they are stored (axes ``layout.stored_axes``), the finest first; rows in memory are not in them yet."""
        return tuple(level.array for level in self._levels)

    def pyramid(self) -> list[LazyArray]:
        """Return the levels, the finest first, each indexed by the labels' own axes; what is on the disk, read when indexed."""
        return [_LevelView(self, index) for index in range(len(self._levels))]

    @property
    def depth(self) -> int:
        """Entries of the first axis that are best read at once."""
        return self.layout.chunks[self.layout.order.index(0)]

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the labels a row of chunks at a time, each with all axes of the labels."""
        back = np.argsort(self.layout.order)
        for _, box in self.layout.pieces(tuple((0, size) for size in self.layout.stored_shape)):
            yield self[tuple(slice(*box[place]) for place in back)]

    def __setitem__(self, key: Any, value: Any) -> None:
        box, drop, steps = box_of(key, self.shape)
        if any(step != 1 for step in steps):
            raise IndexError("Labels on the disk are assigned in whole boxes, without steps.")
        if any(start == stop for start, stop in box):
            return
        shape = tuple(stop - start for start, stop in box)
        given = np.asarray(value)
        full = np.broadcast_to(given if given.ndim == 0 else given.reshape(_kept(given.shape, drop)), shape)
        order = self.layout.order
        stored = tuple(box[place] for place in order)
        block = full.transpose(order)
        for position, piece in self.layout.pieces(stored):
            inside = tuple(slice(low - start, high - start) for (low, high), (start, _) in zip(piece, stored, strict=True))
            self._put(position, piece, block[inside])

    def flush(self) -> None:
        """Bring everything that was assigned to the disk; rows of chunks that are not full stay in memory too.

        Raises
        ------
        OutputError
            If the disk is full or gone; what was durable stays so.
        """
        try:
            for level in reversed(self._levels):  # the finest last: what it holds, the coarser ones can be made from
                level.write()
            self._note(self._received)
        except OSError as error:
            raise refused(self.target, error) from error

    def finish(self, attributes: Mapping[str, Any] | None = None, *, path: str | Path | None = None) -> Path:
        """Write what is left and put the store at its place, whole.

        Parameters
        ----------
        attributes : mapping, optional
            Of the group, fit for JSON (`napari_tileseg.io.ome_zarr_labels.attributes`).
        path : path-like, optional
            Another place than `target`, in the same folder.

        Returns
        -------
        Path
            Where it is. The object goes on as the array that stands there.

        Raises
        ------
        OutputError
            If the system refuses; the unfinished store stays where it is.
        """
        import zarr

        self.flush()
        target = Path(path) if path is not None else self.target
        try:
            if attributes:
                zarr.open_group(self.path, mode="r+").update_attributes(dict(attributes))
            (self.path / _STATE).unlink(missing_ok=True)
            if target != self.path:
                take_place(self.path, target)
        except OSError as error:
            raise refused(target, error) from error
        self.path = self.target = target
        self._finished = True
        self._open()
        return target

    def discard(self) -> None:
        """Delete an unfinished store; one that is finished stays."""
        if not self._finished:
            self._levels = ()
            shutil.rmtree(self.path, ignore_errors=True)

    def rebuild(self, box: Box | None = None) -> None:
        """Make the coarser levels anew from the finest one, inside a box of the labels' axes (the whole by default)."""
        self.flush()
        given = box or tuple((0, size) for size in self.shape)
        stored = tuple(given[place] for place in self.layout.order)
        for index in range(1, len(self._levels)):
            self._rebuild(index, self._scaled(index, stored))
        for level in self._levels:
            level.forget()

    def _open(self) -> None:
        import zarr

        group = zarr.open_group(self.path, mode="r+")
        old = self._finished or self._durable > 0
        arrays = (group[str(index)] for index in range(len(self.layout.factors)))
        self._levels = tuple(Level(array, self.layout, index, reread=old) for index, array in enumerate(arrays))

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        finest = self._levels[0]
        if finest.dirty:
            self.flush()
        order = self.layout.order
        part = np.asarray(finest.array[tuple(box[place] for place in order)])
        return part.transpose(np.argsort(order))

    def _put(self, position: tuple[int, ...], piece: Box, block: NDArray[Any]) -> None:
        row = piece[self.layout.row_axis][1]
        received = self.layout.ordinal(position) * self.layout.rows + row
        try:
            for level in reversed(self._levels):
                level.put(position, piece, block)
            self._received = received
            if not self._levels[0].dirty:
                self._note(received)
        except OSError as error:
            raise refused(self.target, error) from error

    def _note(self, rows: int) -> None:
        """Remember what is on the disk; the note is replaced at once, so that a crash leaves the old one or the new one."""
        self._durable = max(self._durable, rows)
        if self._finished:
            return
        _write_state(self.path, self.layout, self._durable)

    def _refill(self) -> None:
        """Make the rows of the coarser levels that were in memory when the program ended; the finest level has them."""
        layout = self.layout
        ordinal, row = divmod(self._durable, layout.rows)
        if not row:
            return
        position = layout.position(ordinal)
        for index in range(1, len(self._levels)):
            by, depth = layout.factors[index][layout.row_axis], layout.chunks[layout.row_axis]
            stop = -(-row // by)
            box = [(0, size) for size in layout.level_shape(index)]
            box[layout.row_axis] = (stop // depth * depth if stop % depth else max(0, stop - depth), stop)
            for axis, place in zip(layout.sample_axes, position, strict=True):
                box[axis] = (place, place + 1)
            self._rebuild(index, tuple(box))

    def _scaled(self, index: int, stored: Box) -> Box:
        """Return the pixels of a level that a box of the finest one touches."""
        return tuple((start // by, -(-stop // by)) for (start, stop), by in zip(stored, self.layout.factors[index], strict=True))

    def _rebuild(self, index: int, box: Box) -> None:
        """Take every second pixel of the next finer level, a row of chunks at a time."""
        fine, coarse = self._levels[index - 1].array, self._levels[index].array
        pairs = zip(self.layout.factors[index - 1], self.layout.factors[index], strict=True)
        by = [lower // upper for upper, lower in pairs]
        depth = self.layout.chunks[self.layout.row_axis]
        start, stop = box[self.layout.row_axis]
        for first in range(start, stop, depth):
            part = list(box)
            part[self.layout.row_axis] = (first, min(first + depth, stop))
            wide = tuple(
                slice(low * step, min((high - 1) * step + 1, size)) for (low, high), step, size in zip(part, by, fine.shape, strict=True)
            )
            thin = tuple(slice(None, None, step) for step in by)
            found = np.asarray(fine[wide])[thin]
            patiently(partial(coarse.__setitem__, tuple(slice(*span) for span in part), found))


class _LevelView(LazyArray):
    """One level on the axes of the labels; it keeps its store alive."""

    def __init__(self, store: ZarrLabels, index: int) -> None:
        self.store = store
        self._index = index
        shape = store.layout.level_shape(index)
        self.shape = tuple(shape[place] for place in np.argsort(store.layout.order))
        self.dtype = store.dtype

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        order = self.store.layout.order
        part = np.asarray(self.store.arrays[self._index][tuple(box[place] for place in order)])
        return part.transpose(np.argsort(order))


def _make(place: Path, layout: Layout, version: int = 3) -> None:
    import zarr

    group = zarr.create_group(place, zarr_format=3 if version == 3 else 2, overwrite=False, attributes={_LAYOUT: asdict(layout)})
    kind = _array_kind(layout, version)
    for index in range(len(layout.factors)):
        group.create_array(
            str(index),
            shape=layout.level_shape(index),
            dtype=layout.dtype,
            chunks=tuple(min(pair) for pair in zip(layout.chunks, layout.level_shape(index), strict=True)),
            fill_value=0,
            **kind,
        )
    _write_state(place, layout, 0)


def _array_kind(layout: Layout, version: int) -> dict[str, Any]:
    """Return what arrays of a version of Zarr are made with; version 2 has no names of axes, and NGFF 0.4 wants ``/`` in keys."""
    if version == 3:
        from zarr.codecs import BloscCodec

        codec = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=np.dtype(layout.dtype).itemsize)
        return {"compressors": codec, "dimension_names": [axis.lower() for axis in layout.stored_axes]}
    from numcodecs import Blosc  # type: ignore[import-untyped]

    return {"compressors": Blosc(cname="zstd", clevel=3, shuffle=Blosc.SHUFFLE), "chunk_key_encoding": {"name": "v2", "separator": "/"}}


def _layout(facts: Mapping[str, Any]) -> Layout:
    """Make the layout that `asdict` has taken apart."""
    fields: dict[str, Any] = {key: _tuples(value) for key, value in facts.items()}
    return Layout(**fields)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _write_state(place: Path, layout: Layout, durable: int) -> None:
    text = json.dumps({"schema": _SCHEMA, "layout": asdict(layout), "durable_rows": durable})
    temporary = place / f".{_STATE}"
    temporary.write_text(text, encoding="utf-8")
    move(temporary, place / _STATE)


def _kept(shape: tuple[int, ...], drop: tuple[bool, ...]) -> tuple[int, ...]:
    """Put axes of length 1 back where an index was one number, as far as the values have axes."""
    sizes = list(reversed(shape))
    full = [1 if dropped else (sizes.pop(0) if sizes else 1) for dropped in reversed(drop)]
    if sizes:
        raise ValueError(f"Values of shape {shape} have more axes than the place they are assigned to.")
    return tuple(reversed(full))
