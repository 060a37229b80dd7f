"""``Segmentation``: the result of a run, on the grid of its input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Segmentation"]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What `segment` returns.

    Parameters
    ----------
    labels : ndarray or ZarrLabels
        On the input's grid without C; an array on the disk, indexed alike, where it is large or went to an OME-Zarr.
        uint8 or uint16 class indices (softmax), int32 object ids (instances), or uint8 masks with the class first (sigmoid).
    axes : str
        Letters of `labels`; C stands for the class.
    volume : Volume
        The input.
    classes : tuple of str
        Names; index 0 is the background except for sigmoid models.
    colors : tuple of str
        ``#rrggbb`` of each class without the background; may be empty.
    counts : mapping of str to int
        Objects found, or pixels of each class, by class name.
    anomaly : mapping of str to float
        Of models of what is normal: ``"mean"`` and ``"percentile_99"`` of the map of what is segmented, by which images can be sorted; the
        same whether or not the run was interrupted. Empty for all others, and where a part of the map is not known.
    scores : ndarray of float32 or None
        Raw network output, class first, then the axes of the input without C; only if asked for.
    uncertainty : ndarray of float32 or None
        From 0 (sure) to 1, on the grid of the input without C; only if asked for.
    provenance : mapping
        What was run on what, JSON-able; without paths, user names and times.
    warnings : tuple of str
        Sentences.
    seconds : float
        Wall time of the run.
    windows : int
        Windows that this run computed.
    """

    labels: Any
    axes: str
    volume: Volume
    classes: tuple[str, ...]
    colors: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    anomaly: Mapping[str, float] = field(default_factory=dict)
    scores: NDArray[np.float32] | None = None
    uncertainty: NDArray[np.float32] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    windows: int = 0

    def labels_volume(self) -> Volume:
        """Return the labels as a volume with the input's place in the world."""
        return label_volume(self.labels, self.axes, self.volume)


def label_volume(labels: Any, axes: str, volume: Volume) -> Volume:
    """Put labels with the given axes into the world of the image they were made from."""
    import numpy as np

    grid_axes, affine, units = volume.drop("C")
    if axes != grid_axes:  # overlapping classes: one mask per class, first
        affine = np.block([[np.ones((1, 1)), np.zeros((1, len(affine)))], [np.zeros((len(affine), 1)), affine]])
        units = ("pixel", *units)
    return Volume(labels, axes, affine, units, volume.name, metadata=volume.metadata)
