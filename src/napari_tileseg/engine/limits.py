"""``Limits``: least and greatest values of a prepared image, or of one slice of it; measured when they are asked for, and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.engine.prepare import blocks_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.protocols import Source

    Pair = tuple[NDArray[np.float64], NDArray[np.float64]]

__all__ = ["Limits"]


class Limits:
    """Of sources that count together: the planes of a stack, or one volume.

    Parameters
    ----------
    sources : sequence of Source
        What the limits of the whole are those of; read once, in blocks.
    own : Source
        What the limits of a slice are those of.
    check : callable
        Called before every block; may raise to stop.
    """

    def __init__(self, sources: Sequence[Source], own: Source, check: Callable[[], None] = lambda: None) -> None:
        self._sources, self._own, self._check = sources, own, check
        self._found: dict[tuple[int | None, int], Pair] = {}

    def __call__(self, axis: int | None, place: int) -> Pair:
        """Return least and greatest value of each channel: of a slice of `own` along an axis of space, or (None) of all sources."""
        key = (axis, place)
        if key not in self._found:
            if axis is None:
                self._found[key] = self._measured(self._sources, lambda spans: spans)
            else:
                self._found[key] = self._measured(
                    [self._own], lambda spans: tuple((place, place + 1) if at == axis else span for at, span in enumerate(spans))
                )
        return self._found[key]

    def _measured(self, sources: Sequence[Source], part: Callable[[tuple[tuple[int, int], ...]], tuple[tuple[int, int], ...]]) -> Pair:
        channels = sources[0].shape[0]
        low, high = np.full(channels, np.inf), np.full(channels, -np.inf)
        for source in sources:
            for region in blocks_of(source.shape, part(tuple((0, size) for size in source.shape[1:]))):
                self._check()
                values = source.read(region).reshape(channels, -1)
                np.minimum(low, values.min(axis=1), out=low)
                np.maximum(high, values.max(axis=1), out=high)
        return low, high
