"""``assess``: scores of a model on labelled images, through the same path that users' images take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.job import SegmentOptions
from napari_tileseg.pipeline import segment
from napari_tileseg.training.data import Pair, read_array
from napari_tileseg.training.metrics import average_precision, dice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from napari_tileseg.models.predictor import Predictor

__all__ = ["CHANGES", "Score", "assess", "grey", "inverted", "mean_scores"]


@dataclass(frozen=True)
class Score:
    """Scores of one image.

    Parameters
    ----------
    values : tuple of float
        AP at an overlap of 0.5 for instances; Dice of each foreground class otherwise.
    """

    name: str
    group: str
    values: tuple[float, ...]


def inverted(array: NDArray[Any]) -> NDArray[Any]:
    """Turn bright into dark within the range of the image."""
    result: NDArray[Any] = (array.max() - (array - array.min())).astype(array.dtype)
    return result


def grey(array: NDArray[Any]) -> NDArray[Any]:
    """Average the colours of an image of shape (Y, X, C); leave others as they are."""
    return array.mean(axis=-1).round().astype(array.dtype) if array.ndim == 3 else array


CHANGES: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {"as it is": lambda array: array, "inverted": inverted, "grey": grey}
"""What may be done to a 2D image before it is segmented."""


def assess(
    predictor: Predictor,
    pairs: Iterable[Pair],
    *,
    change: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
    options: SegmentOptions | None = None,
) -> Iterator[Score]:
    """Segment images and compare with their labels.

    Parameters
    ----------
    predictor : Predictor
        The model.
    pairs : iterable of Pair
        Images with labels.
    change : callable, optional
        Applied to each image before it is segmented.

    Yields
    ------
    Score
        One for each pair.
    """
    spec = predictor.spec
    for pair in pairs:
        image, reference = read_array(pair.image), read_array(pair.label)
        if change is not None:
            image = change(image)
        axes = spec.spatial_axes + ("C" if image.ndim > spec.spatial_ndim else "")
        found = np.asarray(segment(image, predictor, axes=axes, options=options or SegmentOptions(device="cpu")).labels)
        if spec.output == "instances":
            values = average_precision(found, reference, (0.5,))
        else:
            values = dice(found, reference, range(1, len(spec.classes)))
        yield Score(pair.name, pair.group, tuple(float(value) for value in values))


def mean_scores(scores: Iterable[Score]) -> dict[str, tuple[int, NDArray[np.float64]]]:
    """Average over all images and over those of each group.

    Returns
    -------
    dict
        Group (``"all"`` first) to number of images and mean of each value.
    """
    listed = list(scores)
    groups = {"all": listed}
    for score in listed:
        groups.setdefault(score.group, []).append(score)
    return {name: (len(members), np.mean([member.values for member in members], axis=0)) for name, members in groups.items()}
