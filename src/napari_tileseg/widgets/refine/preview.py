"""``Preview``: labels that are only looked at, in place of a layer that stays as it is until somebody decides."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_tileseg.widgets.layers import layer_matrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from napari.layers import Layer
    from numpy.typing import NDArray

__all__ = ["Preview", "is_preview"]

_MARK = "tileseg_preview"


def is_preview(layer: Layer) -> bool:
    """Whether a layer is no labels of the user's, but a look at what they would be."""
    return bool(layer.metadata.get(_MARK))


class Preview:
    """A layer over a part of another one, which is hidden meanwhile.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self._labels: Labels | None = None
        self.layer: Labels | None = None
        self._start: tuple[int, ...] = ()

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
        here = tuple(int(at) for at in start)
        if self.layer is not None and (labels is not self._labels or self.layer not in self._viewer.layers):
            self.close()
        if self.layer is not None and here == self._start and self.layer.data.shape == values.shape:
            np.copyto(self.layer.data, values, casting="unsafe")
            self.layer.refresh(extent=False, highlight=False, thumbnail=False)
            return
        self.close()
        matrix = layer_matrix(labels)
        matrix[:-1, -1] += matrix[:-1, :-1] @ np.array(here, dtype=np.float64)
        layer = Labels(
            values.astype(np.int32),
            name=f"{labels.name} (preview)",
            affine=matrix,
            units=labels.units,
            axis_labels=labels.axis_labels,
            opacity=labels.opacity,
            blending=labels.blending,
            metadata={_MARK: True},
        )
        layer.colormap = labels.colormap
        layer.contour = labels.contour
        layer.editable = False
        active = self._viewer.layers.selection.active
        self._viewer.layers.insert(self._viewer.layers.index(labels) + 1, layer)
        if active is not None and active in self._viewer.layers:
            self._viewer.layers.selection.active = active
        self.layer, self._labels, self._start = layer, labels, here
        labels.visible = False

    def close(self) -> None:
        """Show the labels themselves again."""
        layer, self.layer = self.layer, None
        labels, self._labels = self._labels, None
        if layer is not None and layer in self._viewer.layers:
            with contextlib.suppress(ValueError, KeyError):
                active = self._viewer.layers.selection.active
                self._viewer.layers.remove(layer)
                if active is not None and active in self._viewer.layers:
                    self._viewer.layers.selection.active = active
        if labels is not None:
            labels.visible = True
