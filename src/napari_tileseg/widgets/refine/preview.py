"""``Preview``: labels that are only looked at, in place of a layer that stays as it is until somebody decides."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_tileseg.refine.blocks import shifted
from napari_tileseg.widgets.layers import layer_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box

__all__ = ["Preview", "is_preview"]

_MARK = "tileseg_preview"


def is_preview(layer: Layer) -> bool:
    """Whether a layer is no labels of the user's, but a look at what they would be."""
    return bool(layer.metadata.get(_MARK))


class Preview:
    """A layer over a part of another one, which is hidden meanwhile.

    Making a layer takes napari long, so one is kept: what is shown is written into it, and it lies where it is needed.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self._labels: Labels | None = None
        self.layer: Labels | None = None
        self._frame: Box = ()
        self._last: Box = ()

    @property
    def shown(self) -> bool:
        """Whether it is looked at."""
        return self.layer is not None and self.layer.visible

    def prepare(self, labels: Labels, box: Box) -> None:
        """Make the layer, or move it to where something is to be shown; it is not seen yet.

        Parameters
        ----------
        labels : Labels
            Of one scale.
        box : Box
            One slice for each of their axes.
        """
        if self.layer is not None and (labels is not self._labels or self.layer not in self._viewer.layers):
            self.close()
        if self.layer is not None and _within(box, self._frame):
            return
        values = _copied(labels, box)
        matrix = layer_matrix(labels)
        matrix[:-1, -1] += matrix[:-1, :-1] @ np.array([part.start for part in box], dtype=np.float64)
        if self.layer is not None and self.layer.data.shape == values.shape and self.layer.data.dtype == values.dtype:
            np.copyto(self.layer.data, values)
            self.layer.affine = matrix
        else:
            self.close()
            self._make(labels, values, matrix)
        self._labels, self._frame, self._last = labels, box, box

    def show(self, labels: Labels, values: NDArray[Any], start: Sequence[int]) -> None:
        """Show values in place of a part of some labels.

        Parameters
        ----------
        labels : Labels
            Of one scale.
        values : ndarray of int
            Of as many axes.
        start : sequence of int
            Index of their first pixel in the labels.
        """
        box = tuple(slice(int(at), int(at) + size) for at, size in zip(start, values.shape, strict=True))
        if self.layer is not None and values.max(initial=0) > np.iinfo(self.layer.data.dtype).max:
            self.close()
        self.prepare(labels, box)
        layer = self.layer
        assert layer is not None  # it was made
        if values.max(initial=0) > np.iinfo(layer.data.dtype).max:  # more objects than there were
            layer.data = layer.data.astype(np.int32)
        if box != self._last:  # around it are the labels as they are
            np.copyto(layer.data, np.asarray(labels.data[self._frame]), casting="unsafe")
        layer.data[shifted(box, [part.start for part in self._frame])] = values
        self._last = box
        if layer.visible:
            layer.refresh(extent=False, highlight=False, thumbnail=False)
            return
        layer.refresh(extent=False, highlight=False, thumbnail=False)
        layer.visible = True
        labels.visible = False

    def rest(self) -> None:
        """Show the labels themselves again; the layer stays, unseen, as it may be wanted soon."""
        if self.shown and self.layer is not None:
            self.layer.visible = False
            self._last = ()
        if self._labels is not None and self.layer is not None:
            self._labels.visible = True

    def close(self) -> None:
        """Show the labels themselves again, without the layer."""
        layer, self.layer = self.layer, None
        labels, self._labels = self._labels, None
        seen = layer is not None and layer.visible
        if layer is not None and layer in self._viewer.layers:
            with contextlib.suppress(ValueError, KeyError):
                active = self._viewer.layers.selection.active
                self._viewer.layers.remove(layer)
                if active is not None and active in self._viewer.layers:
                    self._viewer.layers.selection.active = active
        if labels is not None and seen:
            labels.visible = True

    def _make(self, labels: Labels, values: NDArray[Any], matrix: NDArray[np.float64]) -> None:
        layer = Labels(
            values,
            name=f"{labels.name} (preview)",
            affine=matrix,
            units=labels.units,
            axis_labels=labels.axis_labels,
            opacity=labels.opacity,
            blending=labels.blending,
            metadata={_MARK: True},
            visible=False,
        )
        layer.colormap = labels.colormap
        layer.contour = labels.contour
        layer.editable = False
        active = self._viewer.layers.selection.active
        self._viewer.layers.insert(self._viewer.layers.index(labels) + 1, layer)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active
        self.layer = layer


def _within(box: Box, frame: Box) -> bool:
    return all(outer.start <= part.start and part.stop <= outer.stop for part, outer in zip(box, frame, strict=True))


def _copied(labels: Labels, box: Box) -> NDArray[Any]:
    """Copy labels in the smallest type that napari draws without a conversion of each pixel."""
    values = np.array(labels.data[box])
    highest, lowest = int(values.max(initial=0)), int(values.min(initial=0))
    fitting = next((dtype for dtype in (np.uint8, np.uint16) if lowest >= 0 and highest <= np.iinfo(dtype).max), np.int32)
    return values.astype(np.uint16 if fitting is np.uint8 and labels.data.dtype.itemsize > 2 else fitting)
