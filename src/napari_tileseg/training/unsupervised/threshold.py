"""``residuals``: how strange a model finds what is normal; the engine itself computes it on images that were held out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_tileseg.engine.run import never, run
from napari_tileseg.job import SegmentOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.protocols import Predictor
    from napari_tileseg.training.unsupervised.tiles import Part

__all__ = ["residuals"]

_SIDE = 512
_MOST = 24


class _Scores:
    """A sink that keeps the scores."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.values = np.zeros(shape, np.float32)

    def write(self, region: tuple[slice, ...], labels: NDArray[Any]) -> None:
        """Drop labels: there is no threshold yet."""

    def write_scores(self, region: tuple[slice, ...], scores: NDArray[np.float32]) -> None:
        self.values[region] = scores[0]

    def write_uncertainty(self, region: tuple[slice, ...], uncertainty: NDArray[np.float32]) -> None:
        """Drop it: nobody has asked for it."""


class _Cut:
    """A box of a part, as the engine reads it."""

    def __init__(self, part: Part, top: int, left: int, size: tuple[int, int]) -> None:
        self._part, self._top, self._left = part, top, left
        self.shape = (part.source.shape[0], *size)

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        rows, columns = region
        start = self._part.row[0] + self._top
        return self._part.source.read(
            (slice(rows.start + start, rows.stop + start), slice(columns.start + self._left, columns.stop + self._left))
        )


def residuals(
    parts: Sequence[Part], predictor: Predictor, *, median: int, seed: int, cancel: Callable[[], bool] = never
) -> NDArray[np.float32]:
    """Return the scores of normal pixels, smoothed as they are before they are compared with the threshold.

    Of large images a box of 512 x 512 pixels is looked at, and of many parts 24, drawn at random.

    Parameters
    ----------
    parts : sequence of Part
        Held out.
    predictor : Predictor
        The model; its threshold does not matter.
    median : int
        Width of the filter.

    Returns
    -------
    ndarray of float32, shape (pixels,)
    """
    generator = np.random.default_rng([seed, 3])
    chosen = [parts[index] for index in sorted(generator.permutation(len(parts))[:_MOST])]
    found = []
    for source in _cuts(chosen, generator):
        sink = _Scores(source.shape[1:])
        for _ in run(source, predictor, sink, options=SegmentOptions(scores=True), cancel=cancel):
            pass
        found.append(ndimage.median_filter(sink.values, median, mode="reflect").ravel())
    return np.concatenate(found)


def _cuts(parts: Sequence[Part], generator: np.random.Generator) -> Iterator[_Cut]:
    for part in parts:
        size = tuple(min(_SIDE, side) for side in part.shape)
        top, left = (int(generator.integers(side - most + 1)) for side, most in zip(part.shape, size, strict=True))
        yield _Cut(part, top, left, (size[0], size[1]))
