"""``refusal``: why a model cannot be trained further, if it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.models.resampling import Resampling

if TYPE_CHECKING:
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["OBJECTS", "refusal"]

OBJECTS = "watershed"
"""The decoder whose scores are learnt here; flows (Cellpose) and distances to edges (StarDist) are not."""


def refusal(spec: ModelSpec) -> str:
    """Return the rest of a sentence that begins with "... cannot be trained further:"; empty where the model can be."""
    if not spec.architecture:
        return "it brings no network that is known here"
    if spec.previous is not None:
        return "it is the second of a cascade"
    if spec.output == "instances" and spec.decoder != OBJECTS:
        return "it finds objects in a way that is not learnt here"
    if spec.output not in ("softmax", "sigmoid", "instances"):
        return "it gives its answers in a form that is not learnt here"
    plain = spec.resampling == Resampling() and not spec.orientation and spec.crop == "none"
    if not plain or spec.normalization.kind in ("steps", "channels"):
        return "it prepares its images in a way that training does not know"
    return ""
