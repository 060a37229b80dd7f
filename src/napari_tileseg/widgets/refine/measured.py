"""``image_under``: the image that lies under a layer of labels, pixel by pixel, so that a table can tell its intensities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.volume import Volume
from napari_tileseg.widgets.layers import stack
from napari_tileseg.widgets.refine.subject import channels_of, image_beside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Labels, Layer

__all__ = ["image_under"]


def image_under(labels: Labels, layers: Sequence[Layer], volume: Volume) -> Volume | None:
    """Return the image that labels most likely belong to, with its channels; None where no layer is of their grid.

    Parameters
    ----------
    labels : napari.layers.Labels
    layers : sequence of Layer
        All layers of the viewer.
    volume : Volume
        The labels, on the axes of their layer.
    """
    channels = channels_of(image_beside(labels, layers), labels, layers)
    parts = [Volume(data, volume.axes, volume.affine, volume.units, name) for name, data in channels.items()]
    if not parts or parts[0].shape != volume.shape:
        return None
    return parts[0] if list(channels) == [""] else stack(parts, labels.name)
