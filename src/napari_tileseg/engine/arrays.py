"""Sources, sinks and predictors made of plain arrays and functions: for whole images that fit into memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_tileseg.engine.run import run
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

__all__ = ["ArraySink", "ArraySource", "FunctionPredictor", "sliding_scores"]


@dataclass(frozen=True)
class ArraySource:
    """A normalised image in memory, shape (C, *spatial)."""

    array: NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        return np.asarray(self.array[(slice(None), *region)], dtype=np.float32)


class ArraySink:
    """Labels, and scores if any come, in memory.

    Parameters
    ----------
    shape : tuple of int
        Spatial size of the image.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self.labels: NDArray[Any] | None = None
        self.scores: NDArray[np.float32] | None = None
        self.uncertainty: NDArray[np.float32] | None = None

    def write(self, region: tuple[slice, ...], labels: NDArray[Any]) -> None:
        leading = labels.shape[: labels.ndim - len(self._shape)]
        if self.labels is None:
            self.labels = np.zeros((*leading, *self._shape), dtype=labels.dtype)
        self.labels[(slice(None),) * len(leading) + region] = labels

    def write_scores(self, region: tuple[slice, ...], scores: NDArray[np.float32]) -> None:
        if self.scores is None:
            self.scores = np.zeros((len(scores), *self._shape), dtype=np.float32)
        self.scores[(slice(None), *region)] = scores

    def write_uncertainty(self, region: tuple[slice, ...], uncertainty: NDArray[np.float32]) -> None:
        if self.uncertainty is None:
            self.uncertainty = np.zeros(self._shape, dtype=np.float32)
        self.uncertainty[region] = uncertainty


@dataclass(frozen=True)
class FunctionPredictor:
    """Any function from a batch to raw scores, with a card."""

    spec: ModelSpec
    function: Callable[[torch.Tensor], torch.Tensor]
    device: str = "cpu"

    def __call__(self, batch: torch.Tensor, /) -> torch.Tensor:
        return self.function(batch)


def sliding_scores(
    array: NDArray[Any],
    function: Callable[[torch.Tensor], torch.Tensor],
    window: tuple[int, ...],
    *,
    heads: int,
    overlap: float = 0.5,
    blending: Literal["gaussian", "constant", "nnunet", "crop"] = "gaussian",
    sigma: float = 0.125,
    steps: Literal["fixed", "even", "aligned"] = "fixed",
    output_offset: tuple[int, ...] | None = None,
    multiple_of: int = 1,
    batch: int = 1,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return the raw scores of a whole image that fits into memory.

    Parameters
    ----------
    array : ndarray, shape (C, *spatial)
        Normalised image with two or three spatial axes.
    function : callable
        Batch (N, C, *window) to raw scores (N, heads, *output).
    window : tuple of int
        Size of a tile.
    heads : int
        Number of score channels.
    overlap, blending, sigma, steps, output_offset, multiple_of
        The tiling recipe, see `plan_tiles`.
    batch : int
        Tiles at once.
    device : str
        Where `function` expects the batch.

    Returns
    -------
    ndarray of float32, shape (heads, *spatial)
    """
    spec = ModelSpec(
        name="function",
        axes="CYX" if array.ndim == 3 else "CZYX",
        channels=[f"channel {index + 1}" for index in range(len(array))],
        classes=[str(index) for index in range(heads)],
        window=window,
        overlap=overlap,
        blending=blending,
        sigma=sigma,
        steps=steps,
        output_offset=output_offset,
        multiple_of=multiple_of,
        remainder=window[0] % multiple_of,
    )
    sink = ArraySink(array.shape[1:])
    predictor = FunctionPredictor(spec, function, device)
    for _ in run(ArraySource(array), predictor, sink, options=SegmentOptions(scores=True, batch=batch)):
        pass
    assert sink.scores is not None  # every run writes its scores
    return sink.scores
