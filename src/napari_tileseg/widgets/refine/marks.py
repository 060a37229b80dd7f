"""``Marks``: the line that is being drawn and the seeds that were clicked, shown over the labels while a tool is held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Vectors

from napari_tileseg.widgets.regions import zoom_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from napari.layers import Labels, Layer
    from numpy.typing import NDArray

__all__ = ["Marks"]

_NAME = "refine marks"
_COLOR = "#ffffff"
_ARM = 4.0
"""Length of one arm of a seed's cross, in pixels of the screen."""


class Marks:
    """A layer of a few strokes; it comes with the first mark that is needed and goes when the tool is put away.

    Parameters
    ----------
    viewer : napari.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self.layer: Vectors | None = None

    def open(self, labels: Labels) -> None:
        """Lay an empty layer over the labels; the labels stay the active layer."""
        self.close()
        selection = self._viewer.layers.selection
        chosen = set(selection)
        self.layer = Vectors(
            np.zeros((0, 2, labels.ndim), np.float32),
            ndim=labels.ndim,
            name=_NAME,
            edge_width=1,
            edge_color=_COLOR,
            vector_style="line",
            **_place(labels),
        )
        self._viewer.layers.append(self.layer)
        selection.active = labels
        selection.update(chosen)

    def draw(self, lines: Sequence[NDArray[Any]] = (), seeds: Sequence[NDArray[Any]] = ()) -> None:
        """Show lines, each (n, ndim), and seeds, each (ndim,), all in pixels of the labels."""
        if self.layer is None:
            return
        zoom = zoom_of(self._viewer)
        arm = _ARM / zoom / float(np.min(np.abs(self.layer.scale)))
        strokes = [np.stack([line[:-1], line[1:] - line[:-1]], axis=1) for line in lines if len(line) > 1]
        offset = self._viewer.dims.ndim - self.layer.ndim  # other layers may have more axes: scores have their classes
        axes = [axis - offset for axis in self._viewer.dims.displayed[-2:]]
        strokes += [_cross(np.asarray(seed, dtype=np.float32), arm, axes) for seed in seeds]
        width = 2 / zoom / float(np.min(np.abs(self.layer.scale)))
        if self.layer.edge_width != width:
            self.layer.edge_width = width  # napari makes all strokes anew for it
        self.layer.data = np.concatenate(strokes) if strokes else np.zeros((0, 2, self.layer.ndim), np.float32)

    def close(self) -> None:
        """Take the marks away."""
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def owns(self, layer: Layer | None) -> bool:
        return layer is not None and layer is self.layer


def _cross(seed: NDArray[Any], arm: float, axes: Sequence[int]) -> NDArray[Any]:
    strokes = np.zeros((len(axes), 2, len(seed)), np.float32)
    strokes[:, 0] = seed
    for number, axis in enumerate(axes):
        strokes[number, 0, axis] -= arm
        strokes[number, 1, axis] = 2 * arm
    return strokes


def _place(labels: Labels) -> dict[str, Any]:
    names = ("scale", "translate", "rotate", "shear", "units", "axis_labels")
    return {**{name: getattr(labels, name) for name in names}, "affine": labels.affine.affine_matrix}
