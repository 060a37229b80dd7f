"""From a volume to what the network sees: one sample, its channels, normalised; read only where a tile lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.damage import Damage
from napari_tileseg.engine.normalize import Accumulator, Statistics, measure_channels, measure_passes, normalize
from napari_tileseg.errors import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.crop import Inside
    from napari_tileseg.engine.parts import Region
    from napari_tileseg.engine.protocols import Source
    from napari_tileseg.models.spec import Normalization
    from napari_tileseg.volume import Volume

__all__ = ["NormalizedSource", "PreparedSource", "SampleReader", "blocks_of", "frame_readers", "measure_frame"]

_BLOCK = 1 << 22
"""Values read at once by the pass that measures the image."""


class SampleReader:
    """Reads raw intensities of one plane, frame or volume, channels first.

    Parameters
    ----------
    volume : Volume
        The image.
    axis_map : AxisMap
        How its axes meet the model's.
    position : mapping of str to int
        Index along each axis that is run one by one.
    damage : Damage, optional
        What to do about places that cannot be read; the run stops there by default.
    """

    def __init__(self, volume: Volume, axis_map: AxisMap, position: Mapping[str, int], damage: Damage | None = None) -> None:
        self._volume = volume
        self._damage = damage or Damage(volume.name)
        self._map = axis_map
        self._position = position
        self._unique = list(dict.fromkeys(axis_map.channels))
        self._repeats = [self._unique.index(channel) for channel in axis_map.channels]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) with each channel of the image once."""
        return (len(self._unique), *self._map.spatial_shape)

    @property
    def model_channels(self) -> list[int]:
        """For each input channel of the model the channel of `read` that feeds it."""
        return self._repeats

    def read(self, region: tuple[slice, ...]) -> NDArray[Any]:
        """Return intensities of a region of space as stored, shape (C, *spatial); 0 where it cannot be read.

        Raises
        ------
        UnreadableError
            If a part of it cannot be read and the run is to stop there.
        """
        box = tuple((span.start, span.stop) for span in region)
        block: NDArray[Any] | None = None
        for part, values in self.pieces(region):
            if part == box:
                return values
            if block is None:
                block = np.zeros((self.shape[0], *(stop - start for start, stop in box)), self._volume.dtype.newbyteorder("="))
            block[(slice(None), *_within(part, box))] = values
        return np.zeros((self.shape[0], *(stop - start for start, stop in box)), self._volume.dtype) if block is None else block

    def pieces(self, region: tuple[slice, ...]) -> Iterator[tuple[Region, NDArray[Any]]]:
        """Yield a region of space as `read` does, in parts that can be read."""
        return self._damage.pieces(self._read, region, self._position, self._map.spatial)

    def lost(self, region: tuple[slice, ...]) -> Iterator[tuple[slice, ...]]:
        """Yield the parts of a region that could not be read, in coordinates that start with it."""
        box = tuple((span.start, span.stop) for span in region)
        for part in self._damage.lost(self._position, box):
            yield _within(part, box)

    def _read(self, region: tuple[slice, ...]) -> NDArray[Any]:
        spans = dict(zip(self._map.spatial, region, strict=True))
        if "C" not in self._map.axes:
            return self._oriented(self._index(spans, None))[None]
        first, last = self._unique[0], self._unique[-1]
        if first is not None and last is not None and self._unique == list(range(first, last + 1)):
            block = self._oriented(self._index(spans, slice(first, last + 1)), channel=True)
            return block
        return np.stack([self._oriented(self._index(spans, channel)) for channel in self._unique])

    def _index(self, spans: Mapping[str, slice], channel: int | slice | None) -> NDArray[Any]:
        lookup: dict[str, Any] = {**self._position, **spans, "C": channel}
        return np.asarray(self._volume.data[tuple(lookup[axis] for axis in self._map.axes)])

    def _oriented(self, block: NDArray[Any], *, channel: bool = False) -> NDArray[Any]:
        """Order axes as (C,) + spatial; the block has them in the image's order."""
        have = [axis for axis in self._map.axes if axis in self._map.spatial or (channel and axis == "C")]
        want = (["C"] if channel else []) + list(self._map.spatial)
        return block.transpose([have.index(axis) for axis in want])


class PreparedSource:
    """One sample as the engine reads it: normalised float32, channels as the model wants them.

    Parameters
    ----------
    reader : SampleReader
        Raw intensities.
    statistics : Statistics
        Of the whole image (of this time point).
    normalization : Normalization
        The model's rule.
    origin, stop : tuple of int
        The part of the sample to run on; the whole one by default.
    inside : callable, optional
        Gives the mask of a region of the sample, for rules that change nothing outside; None: all is inside.
    """

    def __init__(
        self,
        reader: SampleReader,
        statistics: Statistics,
        normalization: Normalization,
        *,
        origin: tuple[int, ...] | None = None,
        stop: tuple[int, ...] | None = None,
        inside: Callable[[tuple[slice, ...]], NDArray[np.bool_] | None] = lambda region: None,
    ) -> None:
        self._inside = inside
        self._reader = reader
        self._statistics = statistics
        self._rule = normalization
        self._origin = origin or (0,) * (len(reader.shape) - 1)
        self._stop = stop or reader.shape[1:]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial) of the part that is run, C as the model wants it."""
        return (len(self._reader.model_channels), *(stop - start for start, stop in zip(self._origin, self._stop, strict=True)))

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return normalised intensities of a region of the part, shape (C, *region)."""
        moved = tuple(slice(span.start + start, span.stop + start) for span, start in zip(region, self._origin, strict=True))
        repeats = self._reader.model_channels
        raw = self._reader.read(moved)
        repeated = repeats != list(range(len(raw)))
        early = repeated and self._rule.kind in ("steps", "channels")  # whose numbers are those of the model's channels
        block = normalize(raw[repeats] if early else raw, self._statistics, self._rule)
        if (inside := self._inside(moved)) is not None:
            for values, rule in zip(block, self._rule.channels, strict=True):
                if rule.masked:
                    values[~inside] = 0  # as it was
        for part in self._reader.lost(moved):
            block[(slice(None), *part)] = 0
        return block[repeats] if repeated and not early else block


class NormalizedSource:
    """A source whose values are normalised as they are read: for images that are resampled first.

    Parameters
    ----------
    source : Source
        Intensities as stored, in float32.
    statistics : Statistics
        Of the whole of it.
    normalization : Normalization
        The model's rule.
    """

    def __init__(self, source: Source, statistics: Statistics, normalization: Normalization) -> None:
        self._source, self._statistics, self._rule = source, statistics, normalization

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *spatial)."""
        return self._source.shape

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        """Return normalised intensities of a region, shape (C, *region)."""
        return normalize(self._source.read(region), self._statistics, self._rule)


def _within(part: Region, box: Region) -> tuple[slice, ...]:
    return tuple(slice(start - low, stop - low) for (start, stop), (low, _) in zip(part, box, strict=True))


def measure_frame(
    volume: Volume,
    axis_map: AxisMap,
    normalization: Normalization,
    frame: int | None,
    *,
    damage: Damage | None = None,
    check: Callable[[], None] = lambda: None,
    inside: Inside | None = None,
) -> Statistics:
    """Measure an image, or one time point of it, in one pass over blocks.

    The planes of a stack share one measurement, so that an empty plane stays empty; time points are measured
    one by one, because light and bleaching change between them.

    Parameters
    ----------
    frame : int or None
        Index along T; None where there is no T.
    damage : Damage, optional
        What to do about places that cannot be read; they are not measured.
    check : callable
        Called before every block; may raise to stop.
    inside : Inside, optional
        Measure no more than that.
    """
    if not normalization.measured and normalization.kind != "channels":
        channels = 1 if normalization.joint else len(set(axis_map.channels))
        # Nothing depends on the image: no pass, and NaN are handled where tiles are normalised.
        return Accumulator(normalization, channels, volume.dtype).finish()
    if not normalization.measured:
        return measure_channels((), normalization, volume.dtype)
    readers = frame_readers(volume, axis_map, frame, damage)
    early = normalization.kind in ("steps", "channels")
    repeats = readers[0].model_channels if early else list(range(readers[0].shape[0]))

    def blocks() -> Iterator[tuple[NDArray[Any], NDArray[np.bool_] | None]]:
        empty = True
        for index, reader in enumerate(readers):
            if inside is not None and not inside.holds(index):
                continue
            for region in blocks_of(reader.shape, inside.box[1:] if inside is not None else None):
                check()
                for box, block in reader.pieces(region):
                    empty = False
                    mask = inside.of(index, tuple(slice(*span) for span in box)) if inside is not None else None
                    yield (block if repeats == list(range(len(block))) else block[repeats]), mask
        if empty:
            raise UnreadableError(f'Nothing of "{volume.name}" can be read. Copy the file again.')

    if normalization.kind == "channels":
        return measure_channels(blocks(), normalization, volume.dtype)
    return measure_passes(lambda: (block for block, _ in blocks()), normalization, len(repeats), volume.dtype)


def frame_readers(volume: Volume, axis_map: AxisMap, frame: int | None, damage: Damage | None = None) -> list[SampleReader]:
    """Return a reader for each sample of an image, or of one time point of it."""
    return [
        SampleReader(volume, axis_map, position, damage)
        for position in axis_map.samples()
        if frame is None or position.get("T", frame) == frame
    ]


def blocks_of(shape: tuple[int, ...], box: Region | None = None) -> Iterator[tuple[slice, ...]]:
    """Cut (C, *spatial), or a box of its space, into runs along the first axis of space of about `_BLOCK` values."""
    spans = box or tuple((0, size) for size in shape[1:])
    row = shape[0] * int(np.prod([stop - start for start, stop in spans[1:]]))
    step = max(1, _BLOCK // row)
    rest = tuple(slice(*span) for span in spans[1:])
    first, last = spans[0]
    for start in range(first, last, step):
        yield (slice(start, min(start + step, last)), *rest)
