"""Scores again without the model: kept scores are decoded with another threshold and minimum size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit

__all__ = ["Redecode", "decode"]

Redecode = "Callable[[NDArray[Any], float, float], NDArray[Any]]"


def decode(
    scores: NDArray[Any],
    kind: Literal["softmax", "sigmoid", "instances"],
    *,
    threshold: float = 0.5,
    min_size: float = 0,
    instances: Callable[[NDArray[Any], float, float], NDArray[Any]] | None = None,
) -> NDArray[Any]:
    """Turn raw scores (K, ...) into labels (...); of "sigmoid" into masks (K, ...). `min_size` is in pixels."""
    raise NotImplementedError


def redecoded(
    canvas: Canvas,
    box: Box,
    scores: NDArray[Any],
    kind: Literal["softmax", "sigmoid", "instances"],
    *,
    threshold: float = 0.5,
    min_size: float = 0,
    instances: Callable[[NDArray[Any], float, float], NDArray[Any]] | None = None,
) -> Edit:
    """Return the step that puts the decoded scores of a box into the labels."""
    raise NotImplementedError
