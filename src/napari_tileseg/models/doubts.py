"""``assumptions``: what a model's card had to assume because its source does not say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["assumptions"]

_DOUBTFUL = {
    "axes": "axes",
    "channels": "channels",
    "classes": "classes",
    "window": "window",
    "normalization": "normalisation",
    "arguments": "network's arguments",
}
"""Fields of a card whose value changes labels, and how to call them."""


def assumptions(spec: ModelSpec) -> str | None:
    """Say which part of a model's card is assumed and can change the labels; None where nothing is."""
    doubtful = [words for name, words in _DOUBTFUL.items() if name in spec.unknown]
    if not doubtful:
        return None
    return (
        f"{spec.label} does not say its {' and '.join([', '.join(doubtful[:-1]), doubtful[-1]] if doubtful[1:] else doubtful)}, "
        "which were assumed. Say it once: tileseg models answer, or Say it in the Models dock."
    )
