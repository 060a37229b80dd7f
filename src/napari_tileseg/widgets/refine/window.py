"""``PyramidWindow``: what is in view of labels of several scales, as a layer of one scale that can be painted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_tileseg.errors import OptionsError, OutputError
from napari_tileseg.io.checks import with_checks
from napari_tileseg.io.zarr_edit import ZarrArray
from napari_tileseg.widgets.layers import layer_matrix
from napari_tileseg.widgets.refine.subject import writable
from napari_tileseg.widgets.regions import canvas_of, seen

if TYPE_CHECKING:
    import napari
    from numpy.typing import NDArray

__all__ = ["PyramidWindow"]

_MOST_BYTES = 1 << 28
"""Size of the largest window: painting and undoing keep copies of it."""


class PyramidWindow:
    """Part of labels of several scales whose arrays can be written to.

    Parameters
    ----------
    viewer : napari.Viewer
    labels : napari.layers.Labels

    Raises
    ------
    OptionsError
        If nothing of the labels is in view, too much is, or they can only be read.
    """

    def __init__(self, viewer: napari.viewer.Viewer, labels: Labels, box: tuple[slice, ...] | None = None) -> None:
        self.labels = labels
        finest = labels.data[0]
        if not all(writable(level) for level in labels.data):
            raise OptionsError("These labels can only be read. Save them under another name, and open that.")
        self.box = box or _in_view(viewer, labels)
        size = math.prod(part.stop - part.start for part in self.box) * np.dtype(finest.dtype).itemsize
        if size > _MOST_BYTES:
            raise OptionsError(f"The region has {size / 1e9:.1f} GB; {_MOST_BYTES / 1e9:.1f} GB can be edited at once. Zoom in first.")
        start = np.array([part.start for part in self.box], dtype=np.float64)
        matrix = layer_matrix(labels)
        matrix[:-1, -1] += matrix[:-1, :-1] @ start
        self.layer = Labels(
            np.array(finest[self.box]),
            name=f"{labels.name}_region",
            affine=matrix,
            units=labels.units,
            axis_labels=labels.axis_labels,
            features=labels.features,
            metadata=dict(labels.metadata),
        )
        self.layer.colormap = labels.colormap

    def put_back(self) -> None:
        """Write the region into every level.

        Raises
        ------
        OutputError
            If the disk refuses.
        """
        data = np.asarray(self.layer.data)
        finest = self.labels.data[0]
        try:
            finest[self.box] = data
            for level in self.labels.data[1:]:
                _thin(finest, level, self.box)
        except OSError as error:
            raise OutputError(f'"{self.labels.name}" could not be written: {error.strerror or error}. The region is still open.') from error
        self._tell()
        self.labels.refresh(extent=False)

    def _tell(self) -> None:
        """Give the labels what is known of the region: edits by tool, what was said of objects; a store of labels keeps it."""
        labels, finest = self.labels, self.labels.data[0]
        told = {name: self.layer.metadata[name] for name in ("tileseg",) if name in self.layer.metadata}
        labels.metadata = {**labels.metadata, **told}
        labels.features = self.layer.features
        if isinstance(finest, ZarrArray):
            finest.note(with_checks(labels.metadata.get("tileseg"), labels.features))


def _in_view(viewer: napari.viewer.Viewer, labels: Labels) -> tuple[slice, ...]:
    """Return the box of the finest level that the canvas shows; one step along axes that are not shown but time."""
    dims = viewer.dims
    shape = labels.data[0].shape
    corners: NDArray[Any] = np.array([np.zeros(labels.ndim), np.array(shape) - 1]).astype(np.intp)
    canvas = canvas_of(viewer)
    if canvas is not None:
        corners = seen(labels, dims.displayed, canvas)
    box = []
    shown = [axis - (dims.ndim - labels.ndim) for axis in dims.displayed]
    here = labels.world_to_data(dims.point[-labels.ndim :])
    for axis, size in enumerate(shape):
        if axis in shown:
            box.append(slice(max(0, int(corners[0][axis])), min(size, int(corners[1][axis]) + 1)))
        else:
            at = min(max(round(float(here[axis])), 0), size - 1)
            box.append(slice(at, at + 1))
    if any(part.stop <= part.start for part in box):
        raise OptionsError("Nothing of the labels is in view. Move the view first.")
    return tuple(box)


def _thin(finest: Any, level: Any, box: tuple[slice, ...]) -> None:
    """Make a coarser level anew where a box of the finest one lies: the pixel at each step, as labels must not be averaged."""
    steps = [_step(fine, coarse) for fine, coarse in zip(finest.shape, level.shape, strict=True)]
    spans = []
    for part, step, size in zip(box, steps, level.shape, strict=True):
        spans.append((int(part.start / step), min(size, math.ceil(part.stop / step))))
    picks = [
        np.minimum((np.arange(low, high) * step).astype(np.intp), fine - 1)
        for (low, high), step, fine in zip(spans, steps, finest.shape, strict=True)
    ]
    if any(not len(pick) for pick in picks):
        return
    whole = tuple(slice(int(pick[0]), int(pick[-1]) + 1) for pick in picks)
    block = np.asarray(finest[whole])
    taken = block[np.ix_(*(pick - pick[0] for pick in picks))]
    level[tuple(slice(*span) for span in spans)] = taken


def _step(fine: int, coarse: int) -> float:
    """Return how many pixels of the finest level one of a coarser level stands for: a whole number, if lengths were rounded."""
    whole = max(round(fine / coarse), 1)
    return whole if coarse in (fine // whole, -(-fine // whole)) else fine / coarse
