"""Where finished labels go: ``GridSink`` puts those of one sample into the array of the whole result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.engine.parts import frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.parts import Part, Region
    from napari_tileseg.engine.protocols import Sink
    from napari_tileseg.engine.tally import Tally

__all__ = ["GridSink", "MovedSink"]


class GridSink:
    """Writes slabs of one part into arrays on the image's grid; what lies outside the wanted boxes is dropped.

    Parameters
    ----------
    axis_map : AxisMap
        Orders the axes.
    part : Part
        Where the sample's box lies.
    labels : ndarray
        Of `AxisMap.result_shape` and `AxisMap.result_dtype`.
    scores : ndarray of float32 or None
        Of shape (K, *grid).
    uncertainty : ndarray of float32, optional
        Of shape (*grid).
    lost : callable, optional
        Gives the boxes of a sample's region, in pixels of the image, that could not be read; no labels are written there.
    tally : Tally, optional
        Sums up the scores of the wanted boxes.
    """

    def __init__(
        self,
        axis_map: AxisMap,
        part: Part,
        labels: NDArray[Any],
        scores: NDArray[np.float32] | None,
        uncertainty: NDArray[np.float32] | None = None,
        lost: Callable[[dict[str, int], Region], Iterable[Region]] = lambda position, region: (),
        tally: Tally | None = None,
    ) -> None:
        self._map = axis_map
        self._part = part
        self._labels = labels
        self._scores = scores
        self._uncertainty = uncertainty
        self._lost = lost
        self._tally = tally

    def of(self, part: Part) -> GridSink:
        """Return a sink for a smaller box of the same sample."""
        return GridSink(self._map, part, self._labels, self._scores, self._uncertainty, self._lost, self._tally)

    def write(self, region: tuple[slice, ...], labels: NDArray[Any]) -> None:
        """Put labels, shape (*region) or (K, *region), where they belong."""
        box = tuple((span.start + by, span.stop + by) for span, by in zip(region, self._part.start, strict=True))
        for lost in self._lost(self._part.position, box):
            labels = labels.copy()
            inside = tuple(slice(start - low, stop - low) for (start, stop), (low, _) in zip(lost, box, strict=True))
            labels[(slice(None),) * (labels.ndim - len(region)) + inside] = 0
        self._put(self._labels, region, labels, leading=labels.ndim - len(region))

    def write_scores(self, region: tuple[slice, ...], scores: NDArray[np.float32]) -> None:
        """Put raw scores, shape (K, *region), where they belong."""
        if self._scores is not None:
            self._put(self._scores, region, scores, leading=1)
        if self._tally is not None:
            for _, wanted in self._cut(region, scores, leading=1):
                self._tally.add(wanted)

    def write_uncertainty(self, region: tuple[slice, ...], uncertainty: NDArray[np.float32]) -> None:
        """Put uncertainty, shape (*region), where it belongs."""
        if self._uncertainty is not None:
            self._put(self._uncertainty, region, uncertainty, leading=0)

    def grid_region(self, region: Region) -> Region | None:
        """Return the frame around what is wanted of a slab, along the axes of the result; None if nothing of it is."""
        clipped = list(self._clip(region))
        if not clipped:
            return None
        spans = dict(zip(self._map.spatial, frame(clipped), strict=True))
        full = {"C": (0, self._map.classes), **spans, **{axis: (index, index + 1) for axis, index in self._part.position.items()}}
        return tuple(full[axis] for axis in self._map.result_axes)

    def _clip(self, region: Region) -> Iterator[Region]:
        """Yield what a slab has in common with each of the wanted boxes."""
        moved = [(start + by, stop + by) for (start, stop), by in zip(region, self._part.start, strict=True)]
        for box in self._part.wanted:
            spans = tuple((max(start, low), min(stop, high)) for (start, stop), (low, high) in zip(moved, box, strict=True))
            if all(start < stop for start, stop in spans):
                yield spans

    def _cut(self, region: tuple[slice, ...], values: NDArray[Any], leading: int) -> Iterator[tuple[Region, NDArray[Any]]]:
        """Yield where each wanted piece of a slab lies, and its values."""
        for spans in self._clip(tuple((span.start, span.stop) for span in region)):
            inside = tuple(
                slice(start - by - span.start, stop - by - span.start)
                for (start, stop), by, span in zip(spans, self._part.start, region, strict=True)
            )
            yield spans, values[(slice(None),) * leading + inside]

    def _put(self, target: NDArray[Any], region: tuple[slice, ...], values: NDArray[Any], leading: int) -> None:
        order = [self._map.spatial.index(axis) for axis in self._map.grid_axes if axis in self._map.spatial]
        for spans, block in self._cut(region, values, leading):
            lookup: dict[str, Any] = {axis: slice(*span) for axis, span in zip(self._map.spatial, spans, strict=True)}
            lookup.update(self._part.position)
            turned = block.transpose([*range(leading), *(leading + place for place in order)])
            target[(slice(None),) * leading + tuple(lookup[axis] for axis in self._map.grid_axes)] = turned


class MovedSink:
    """Takes what is told in the coordinates of a part, and passes it on in those of the whole.

    Parameters
    ----------
    inner : Sink
        Of the whole.
    origin : tuple of int
        Where the part begins.
    """

    def __init__(self, inner: Sink, origin: tuple[int, ...]) -> None:
        self._inner, self._origin = inner, origin

    def write(self, region: tuple[slice, ...], labels: NDArray[Any]) -> None:
        """Pass labels on."""
        self._inner.write(self._moved(region), labels)

    def write_scores(self, region: tuple[slice, ...], scores: NDArray[np.float32]) -> None:
        """Pass scores on."""
        self._inner.write_scores(self._moved(region), scores)

    def write_uncertainty(self, region: tuple[slice, ...], uncertainty: NDArray[np.float32]) -> None:
        """Pass uncertainty on."""
        self._inner.write_uncertainty(self._moved(region), uncertainty)

    def _moved(self, region: tuple[slice, ...]) -> tuple[slice, ...]:
        return tuple(slice(span.start + by, span.stop + by) for span, by in zip(region, self._origin, strict=True))
