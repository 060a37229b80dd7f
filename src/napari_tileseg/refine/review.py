"""Where to look first: orders of objects, from tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas

__all__ = ["by_disagreement", "by_outlier", "by_size", "by_uncertainty", "disagreement", "mean_uncertainty"]


def by_uncertainty(values: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
    """Return row numbers, the most uncertain first (NaN last)."""
    raise NotImplementedError


def by_size(sizes: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
    """Return row numbers, the most unusual size (in robust deviations of its logarithm) first."""
    raise NotImplementedError


def by_outlier(table: Mapping[str, Any], columns: Sequence[str]) -> NDArray[Any]:
    """Return row numbers, those first whose shape (columns of a table) is most unlike the others."""
    raise NotImplementedError


def by_disagreement(values: Sequence[float] | NDArray[Any]) -> NDArray[Any]:
    """Return row numbers, the least agreement first."""
    raise NotImplementedError


def mean_uncertainty(canvas: Canvas, uncertainty: Any, *, at: tuple[int, ...] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ids and the mean of an array of uncertainty over each."""
    raise NotImplementedError


def disagreement(canvas: Canvas, other: Any, *, at: tuple[int, ...] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ids and, of each, the best overlap (intersection over union) with an object of other labels."""
    raise NotImplementedError
