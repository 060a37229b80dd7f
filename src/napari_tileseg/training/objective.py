"""``Objective``: any loss, called with raw scores and a batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from napari_tileseg.training.losses import OBJECT_LOSSES, get_loss, get_object_loss
from napari_tileseg.training.prepare import IGNORED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import torch

    from napari_tileseg.training.sampling import Batch

__all__ = ["Objective", "brought", "crop_to"]


class Objective(nn.Module):
    """A loss of classes, or that of objects; what the network does not return at the border, or nobody has labelled, does not count.

    Parameters
    ----------
    name : str
        A name that `get_loss` or `get_object_loss` takes.
    arguments : mapping
        Its own.
    masks : bool
        Whether labels are a mask for each class, which may overlap; what nobody knows of one counts for the others all the same.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any], *, masks: bool = False) -> None:
        super().__init__()
        self.instances = name in OBJECT_LOSSES
        self.loss = (
            get_object_loss(name, **arguments)
            if self.instances
            else get_loss(name, **{"ignore_index": IGNORED, **({"multi_label": True} if masks else {}), **arguments})
        )

    def forward(self, scores: Tensor, batch: Batch) -> Tensor:
        """Compare raw scores (B, K, *spatial) with a batch that is as large, or larger at all borders."""
        labels, maps = crop_to(batch.labels, scores), crop_to(batch.maps, scores)
        labels, maps, zoom = (brought(tensor, scores.device) for tensor in (labels, maps, batch.zoom))
        value: Tensor
        if self.instances:
            value = self.loss(scores, replace(batch, labels=labels, maps=maps, zoom=zoom))
        else:
            value = self.loss(scores, labels)
        return value


def brought(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on a device; only NVIDIA's have copied it, or kept it, when a copy that nobody waits for returns."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def crop_to(tensor: Tensor, scores: Tensor) -> Tensor:
    """Return the middle of a tensor, as large in space as the scores."""
    spatial = scores.shape[2:]
    leading = tensor.ndim - len(spatial)
    for axis, size in enumerate(spatial, start=leading):
        if tensor.shape[axis] != size:
            tensor = tensor.narrow(axis, (tensor.shape[axis] - size) // 2, size)
    return tensor
