"""``refusal``: why a model cannot be trained further, if it cannot."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["LEARNT", "OBJECTS", "refusal"]

OBJECTS = "watershed"
"""The decoder of a new model that finds objects."""

LEARNT = (OBJECTS, "stardist", "cellpose")
"""Decoders whose scores are learnt; `napari_tileseg.training.object_targets` says what from."""


def refusal(spec: ModelSpec) -> str:
    """Return the rest of a sentence that begins with "... cannot be trained further:"; empty where the model can be."""
    if spec.previous is not None:
        return "it is the second of a cascade, and sees the labels of the first"
    if spec.members and not spec.architecture:
        return "it is several models together, of which one can be"
    if not spec.architecture:
        return "it brings no network that is known here"
    if spec.output == "instances" and spec.decoder not in LEARNT:
        return "it finds objects in a way that is not learnt here"
    if spec.output not in ("softmax", "sigmoid", "regions", "instances"):
        return "it gives its answers in a form that is not learnt here"
    if spec.output == "regions" and not spec.region_labels:
        return "it does not say which labels lie inside of its regions"
    return ""
