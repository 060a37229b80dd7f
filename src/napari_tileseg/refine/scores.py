"""Scores again without the model: kept scores are decoded with another threshold and minimum size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.again import blend
from napari_tileseg.refine.blocks import shape_of
from napari_tileseg.refine.canvas import Place
from napari_tileseg.refine.draft import Draft
from napari_tileseg.refine.recolor import counted
from napari_tileseg.refine.specks import specks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit

__all__ = ["Instances", "Kind", "decode", "redecoded"]

Instances = Callable[["NDArray[Any]", float, float], "NDArray[Any]"]
"""Takes raw scores (K, ...), a threshold and the fewest pixels of an object; returns objects (...)."""

Kind = Literal["softmax", "sigmoid", "regions", "instances", "anomaly"]
"""What scores are scores of, as in a model's card."""


_PIECE = 1 << 16
"""Pixels that are compared at once."""


def decode(
    scores: NDArray[Any],
    kind: Kind,
    *,
    threshold: float = 0.5,
    min_size: float = 0,
    instances: Instances | None = None,
    values: Sequence[int] = (),
) -> NDArray[Any]:
    """Turn raw scores into labels.

    Parameters
    ----------
    scores : ndarray of float, shape (K, ...)
        As the network gave them, before any softmax or sigmoid.
    kind : {"softmax", "sigmoid", "regions", "instances", "anomaly"}
    threshold : float
        0 to 1. Sigmoid: least probability of a class. Regions: what the probability of a region must be above.
        Softmax: the background must be less likely than the class by the odds of the threshold; 0.5 is the
        most likely class of all, and with two classes it is the least probability of the second one.
    min_size : float
        Connected parts of a class that have fewer pixels go.
    instances : callable, optional
        Decodes scores of objects, or of what is abnormal; needed for these.
    values : sequence of int
        The class that each region stands for; needed for these. Of several regions that a pixel is in the last one counts.

    Returns
    -------
    ndarray
        Labels (...), uint8 or uint16; for "sigmoid" masks, bool, shape (K, ...); what `instances` gives.

    Raises
    ------
    OptionsError
        If the threshold is not from 0 to 1, or the size below 0.
    """
    if not 0 <= threshold <= 1:
        raise OptionsError(f"A threshold of {threshold} is not accepted: give a number from 0 to 1.")
    if not min_size >= 0:
        raise OptionsError(f"A size of {min_size} is not accepted: give a number of pixels from 0 up.")
    if kind in ("instances", "anomaly"):
        if instances is None:
            raise InputError("Scores of objects are decoded by the model's own decoder, which was not given.")
        return instances(scores, threshold, min_size)
    if kind == "sigmoid":
        masks = np.stack([of_class >= _limit(threshold, scores.dtype) for of_class in scores])
        for mask in masks if min_size > 1 else ():
            mask &= ~specks(mask, min_size)
        return masks
    labels = _last_region(scores, values, threshold) if kind == "regions" else _most_likely(scores, threshold)
    if min_size > 1:
        for value in sorted(set(values)) or range(1, len(scores)):
            labels *= ~specks(labels == value, min_size)
    return labels


def redecoded(
    canvas: Canvas,
    box: Box,
    scores: NDArray[Any],
    kind: Kind,
    *,
    threshold: float = 0.5,
    min_size: float = 0,
    instances: Instances | None = None,
    values: Sequence[int] = (),
    number: int = 0,
) -> Edit:
    """Return the step that puts decoded scores of a box into the labels.

    Parameters
    ----------
    canvas : Canvas
    box : Box
        One slice for each axis of the labels: all, a region, the visible slice.
    scores : ndarray of float, shape (K, ...)
        Of that box; axes of length 1 may be missing.
    kind, threshold, min_size, instances, values
        As for `decode`.
    number : int
        Which class's mask the labels are, of scores of the kind "sigmoid".
    """
    found = decode(
        scores if kind != "sigmoid" else scores[number : number + 1],
        kind,
        threshold=threshold,
        min_size=min_size,
        instances=instances,
        values=values,
    )
    if kind == "instances":
        edit = blend(canvas, box, found)
        count = len(np.unique(found[found > 0]))
        return type(edit)("threshold", edit.deltas, f"{counted(count).capitalize()} at threshold {threshold:g}.")
    draft, place = Draft(canvas), Place((None,) * canvas.ndim)
    old = draft.read(place, box)
    new = found[0] if kind == "sigmoid" else found
    if new.size != old.size:
        raise InputError(f"The scores have shape {scores.shape}, the box {shape_of(box)}.")
    pixels = draft.write(place, box, old, new.astype(canvas.dtype).reshape(old.shape))
    return draft.edit("threshold", f"Changed {pixels} pixels at threshold {threshold:g}.")


def _limit(threshold: float, dtype: np.dtype[Any]) -> Any:
    """Return the raw score at which the sigmoid is the threshold."""
    if threshold in (0.0, 1.0):
        return dtype.type(-math.inf if threshold == 0 else math.inf)
    return dtype.type(math.log(threshold / (1 - threshold)))


def _most_likely(scores: NDArray[Any], threshold: float) -> NDArray[Any]:
    """Return the class with the largest score, after the threshold's odds were added to the background's.

    A running maximum, several times faster than ``argmax`` over a leading axis, for as many rows at once as the cache holds.
    """
    labels = np.zeros(scores.shape[1:], np.uint8 if len(scores) <= 256 else np.uint16)
    limit, rows = _limit(threshold, scores.dtype), len(labels)
    step = max(_PIECE * rows // max(labels.size, 1), 1)
    best = np.empty((min(step, rows), *labels.shape[1:]), scores.dtype)
    larger = np.empty(best.shape, np.bool_)
    for start in range(0, rows, step):
        piece, out = scores[:, start : start + step], labels[start : start + step]
        highest, wins = best[: len(out)], larger[: len(out)]
        np.add(piece[0], limit, out=highest)
        for value in range(1, len(scores)):
            np.greater(piece[value], highest, out=wins)
            # Numbers only grow, so the larger of two labels is the later one.
            np.maximum(out, wins.view(np.uint8) * labels.dtype.type(value), out=out)
            if value + 1 < len(scores):
                np.maximum(highest, piece[value], out=highest)
    return labels


def _last_region(scores: NDArray[Any], values: Sequence[int], threshold: float) -> NDArray[Any]:
    """Return the class of the last region that each pixel belongs to."""
    labels = np.zeros(scores.shape[1:], np.uint8 if max(values, default=0) < 256 else np.uint16)
    for of_region, value in zip(scores, values, strict=True):
        np.copyto(labels, labels.dtype.type(value), where=of_region > _limit(threshold, scores.dtype))
    return labels
