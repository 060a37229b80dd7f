"""``copy_of``: labels that can only be read, copied into memory, where they can be corrected."""

from __future__ import annotations

import numpy as np
from napari.layers import Labels

from napari_tileseg.errors import OptionsError
from napari_tileseg.widgets.layers import layer_matrix

__all__ = ["copy_of"]

_MOST_BYTES = 1 << 32
"""Size of the largest copy."""


def copy_of(labels: Labels) -> Labels:
    """Return a layer with a copy of some labels at full resolution, of the same names, colours and marks.

    Raises
    ------
    OptionsError
        If they are too large.
    """
    finest = labels.data[0] if labels.multiscale else labels.data
    size = int(np.prod(finest.shape, dtype=np.int64)) * np.dtype(finest.dtype).itemsize
    if size > _MOST_BYTES:
        raise OptionsError(f"The labels have {size / 1e9:.1f} GB, too many for a copy in memory. Copy their file, and open the copy.")
    copy = Labels(
        np.array(finest),
        name=f"{labels.name}_copy",
        affine=layer_matrix(labels),
        units=labels.units,
        axis_labels=labels.axis_labels,
        features=labels.features,
        metadata=dict(labels.metadata),
    )
    copy.colormap = labels.colormap
    return copy
