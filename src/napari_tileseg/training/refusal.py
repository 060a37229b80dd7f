"""``refusal``: why a model cannot be trained further, if it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.models.resampling import Resampling

if TYPE_CHECKING:
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["LEARNT", "OBJECTS", "refusal"]

OBJECTS = "watershed"
"""The decoder of a new model that finds objects."""

LEARNT = (OBJECTS, "stardist", "cellpose")
"""Decoders whose scores are learnt; `napari_tileseg.training.object_targets` says what from."""


def refusal(spec: ModelSpec) -> str:
    """Return the rest of a sentence that begins with "... cannot be trained further:"; empty where the model can be."""
    if not spec.architecture:
        return "it brings no network that is known here"
    if spec.previous is not None:
        return "it is the second of a cascade"
    if spec.output == "instances" and spec.decoder not in LEARNT:
        return "it finds objects in a way that is not learnt here"
    if spec.output not in ("softmax", "sigmoid", "instances"):
        return "it gives its answers in a form that is not learnt here"
    usual = spec.resampling == Resampling() or spec.decoder in LEARNT
    plain = usual and not spec.orientation and spec.crop == "none"
    if not plain or spec.normalization.kind in ("steps", "channels"):
        return "it prepares its images in a way that training does not know"
    return ""
