"""Whether this run may compute in bfloat16: decided on its own tiles, by the labels that come out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_tileseg.engine.decode import argmax, masks
from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.engine.feed import read_padded
from napari_tileseg.engine.predict import Network
from napari_tileseg.engine.recipe import resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.engine.protocols import Predictor, Source
    from napari_tileseg.engine.tiles import Tile, TilePlan
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["Verdict", "agreement", "compare", "contrast_tiles", "decide", "object_agreement"]

LEAST = 0.995
"""Least agreement, of the worst class, for which the fast way is taken."""


@dataclass(frozen=True)
class Verdict:
    """Whether to compute fast, and the sentence to tell where not."""

    fast: bool
    reason: str = ""


def agreement(exact: NDArray[Any], fast: NDArray[Any], classes: list[int]) -> float | None:
    """Return the Dice of the class that agrees worst; None where no class is found at all.

    Parameters
    ----------
    exact, fast : ndarray
        Labels of the same pixels.
    classes : list of int
        Values to compare; leave the background out.
    """
    values = []
    for value in classes:
        first, second = exact == value, fast == value
        total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
        if total:
            values.append(2 * int(np.count_nonzero(first & second)) / total)
    return min(values, default=None)


def object_agreement(exact: NDArray[Any], fast: NDArray[Any]) -> float | None:
    """Return the share of objects found by both, ``2 TP / (2 TP + FP + FN)`` at IoU above 0.5; None without objects."""
    sizes_exact, sizes_fast = np.bincount(exact.ravel()), np.bincount(fast.ravel())
    objects = int(np.count_nonzero(sizes_exact[1:])) + int(np.count_nonzero(sizes_fast[1:]))
    if not objects:
        return None
    both = (exact > 0) & (fast > 0)
    pairs, shared = np.unique(np.stack([exact[both], fast[both]]), axis=1, return_counts=True)
    union = sizes_exact[pairs[0]] + sizes_fast[pairs[1]] - shared
    return 2 * int(np.count_nonzero(2 * shared > union)) / objects  # above one half, no object matches twice


def contrast_tiles(source: Source, plan: TilePlan, *, count: int = 4, candidates: int = 16) -> list[tuple[Tile, NDArray[np.float32]]]:
    """Return the windows with the largest standard deviation among some that are spread over the plan."""
    total = len(plan)
    chosen = sorted({index * (total - 1) // max(min(candidates, total) - 1, 1) for index in range(min(candidates, total))})
    best: list[tuple[float, Tile, NDArray[np.float32]]] = []
    for index in chosen:
        row, column = divmod(index, plan.tiles_per_row)
        tile = next(placed.seen for number, placed in enumerate(plan.tiles(row)) if number == column)
        pixels = read_padded(source, tile, mirrored=plan.mirrored)
        best = sorted([*best, (float(pixels.std()), tile, pixels)], key=lambda item: -item[0])[:count]
    return [(tile, pixels) for _, tile, pixels in best]


def decide(
    source: Source,
    predictor: Predictor,
    options: SegmentOptions,
    *,
    timer: Callable[[], float] = time.perf_counter,
    check: Callable[[], None] = lambda: None,
) -> Verdict:
    """Try both ways on the tiles of one image that have the most contrast.

    Parameters
    ----------
    source : Source
        The image.
    predictor : Predictor
        The model.
    options : SegmentOptions
        As for the run.
    timer : callable
        The clock.
    check : callable
        Called before each forward pass; may raise.

    Returns
    -------
    Verdict
    """
    spec = predictor.spec
    plan = resolve(spec, options).plan(source.shape[1:])
    network = Network(predictor, plan.output, tta=options.tta, check=check)
    tiles = contrast_tiles(source, plan)
    values = list(range(1, len(spec.foreground_classes) + 1))
    instances = spec.output == "instances"
    return compare(network, tiles, lambda scores: _labels(scores, spec, options), classes=values, instances=instances, timer=timer)


def _labels(scores: torch.Tensor, spec: ModelSpec, options: SegmentOptions) -> NDArray[Any]:
    """Decode one tile by itself; masks get the number of their class, from 1."""
    if spec.output == "instances":
        decoder = find_decoder(spec.decoder)
        return decoder.decode(scores.cpu().numpy(), spec.decoder_parameters, threshold=options.threshold, min_size=options.min_size)
    if spec.output == "sigmoid":
        found = masks(scores, options.threshold).cpu().numpy()
        return found * np.arange(1, len(found) + 1).reshape(-1, *(1,) * (found.ndim - 1))
    labels: NDArray[Any] = argmax(scores).cpu().numpy()
    return labels


def compare(
    network: Network,
    tiles: list[tuple[Tile, NDArray[np.float32]]],
    labels: Callable[[torch.Tensor], NDArray[Any]],
    *,
    classes: list[int],
    instances: bool = False,
    timer: Callable[[], float] = time.perf_counter,
) -> Verdict:
    """Compute some tiles both ways and say whether the fast one may be used.

    Parameters
    ----------
    network : Network
        What to call; left in exact mode.
    tiles : list of (Tile, ndarray)
        From `contrast_tiles`.
    labels : callable
        Scores of one tile to labels; multi-label masks may have a leading class axis.
    classes : list of int
        Values of the labels that count; the background does not.
    instances : bool
        Whether labels are object ids: then the foreground and the objects themselves are compared.
    timer : callable
        The clock.

    Returns
    -------
    Verdict
    """
    results: dict[bool, list[NDArray[Any]]] = {False: [], True: []}
    seconds = {False: 0.0, True: 0.0}
    try:
        for number, (tile, pixels) in enumerate([tiles[0], *tiles]):  # the first is computed twice: warming up is not speed
            batch = torch.from_numpy(pixels)[None]
            for fast in (False, True):
                network.fast = fast
                start = timer()
                scores = network(batch, [tile])[0]
                elapsed = timer() - start
                if number:
                    seconds[fast] += elapsed
                    results[fast].append(labels(scores.clone()))  # outside of inference mode only a copy may be written to
    finally:
        network.fast = False
    exact, fast_ = np.stack(results[False]), np.stack(results[True])
    score = agreement(exact > 0, fast_ > 0, [1]) if instances else agreement(exact, fast_, classes)
    if instances and score is not None:
        matched = [value for pair in zip(exact, fast_, strict=True) if (value := object_agreement(*pair)) is not None]
        score = min(score, float(np.mean(matched)))
    if score is None:
        return Verdict(False, "The tiles that were tried hold nothing to compare, so the run stays exact.")
    if score < LEAST:
        return Verdict(False, f"bfloat16 changes labels (agreement {score:.3f}, {LEAST} is needed), so the run stays exact.")
    if seconds[True] >= seconds[False]:
        return Verdict(False, "bfloat16 is no faster than exact arithmetic on this device, so the run stays exact.")
    return Verdict(True)
