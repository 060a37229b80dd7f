"""Whether this run may compute in a faster way: decided on its own tiles, by the labels that come out."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_tileseg.engine.abnormal import whole
from napari_tileseg.engine.backends import AUTOCAST, backends, release, starts_slowly
from napari_tileseg.engine.decode import argmax, label_type, masks, regions
from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.engine.feed import read_padded
from napari_tileseg.engine.memory import default_batch
from napari_tileseg.engine.predict import Network
from napari_tileseg.engine.recipe import resolve
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.engine.timings import EXACT, RUN, remember, timing_key
from napari_tileseg.engine.ways import Ways, compute, measure
from napari_tileseg.errors import PredictorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.engine.protocols import Predictor, Source
    from napari_tileseg.engine.tiles import TilePlan
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["Verdict", "agreement", "contrast_tiles", "decide", "object_agreement", "probe", "remember_run"]

LEAST = 0.995
"""Least Dice of the worst class (of the foreground, for instances) for which a fast way is taken."""

LEAST_OBJECTS = 0.99
"""Least share of objects that are found again."""

MATCH = 0.9
"""IoU from which on an object counts as found again."""


@dataclass(frozen=True)
class Verdict:
    """Whether to compute fast, and why.

    Parameters
    ----------
    fast : bool
        Whether another way than exact arithmetic is taken.
    reason : str
        A sentence; told to the user where the run stays exact.
    backend : str
        The way, one of `napari_tileseg.engine.backends.backends`.
    batch : int
        How many tiles at once it was timed with; a run may take more.
    """

    fast: bool
    reason: str = ""
    backend: str = AUTOCAST
    batch: int = 1


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


def object_agreement(exact: NDArray[Any], fast: NDArray[Any], *, least: float = MATCH) -> float | None:
    """Return the share of objects that both found, ``2 TP / (2 TP + FP + FN)``; None without objects.

    Parameters
    ----------
    exact, fast : ndarray of int
        Object ids of the same pixels, 0 for the background.
    least : float
        Objects match from this IoU on; above 0.5, so that none matches twice.
    """
    sizes_exact, sizes_fast = np.bincount(exact.ravel()), np.bincount(fast.ravel())
    objects = int(np.count_nonzero(sizes_exact[1:])) + int(np.count_nonzero(sizes_fast[1:]))
    if not objects:
        return None
    both = (exact > 0) & (fast > 0)
    pairs, shared = np.unique(np.stack([exact[both], fast[both]]), axis=1, return_counts=True)
    union = sizes_exact[pairs[0]] + sizes_fast[pairs[1]] - shared
    return 2 * int(np.count_nonzero(shared >= least * union)) / objects


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
    tiles: int | None = None,
    timer: Callable[[], float] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Verdict:
    """Try exact arithmetic and the faster ways on the tiles of one image that have the most contrast.

    How fast each way is gets remembered for the model and this computer; whether labels agree is looked at in every run.

    Parameters
    ----------
    source : Source
        The image.
    predictor : Predictor
        The model.
    options : SegmentOptions
        As for the run.
    tiles : int, optional
        How many the verdict will serve; those of this image by default. For a few, the check would take longer than it saves.
    timer : callable, optional
        The clock; by default processor time on a CPU, which other programs disturb less, wall time elsewhere.
    check : callable
        Called before each forward pass; may raise.

    Returns
    -------
    Verdict
    """
    spec = predictor.spec
    if spec.output == "labels":
        return Verdict(False, f"{spec.label} gives labels, whose agreement is not looked at, so the run stays exact.")
    plan = resolve(spec, options).plan(source.shape[1:])
    network = Network(predictor, plan.output, tta=options.tta, check=check)
    chosen = contrast_tiles(source, plan)
    timer = timer or (time.process_time if predictor.device == "cpu" else time.perf_counter)
    key = timing_key(spec, plan.window, predictor.device, threads=torch.get_num_threads(), tta=options.tta)
    at_once = min(options.batch or default_batch(plan, predictor.device, fast=True), plan.tiles_per_row)
    total = tiles or len(plan)
    try:
        try:
            ways = Ways(network, predictor, chosen[0], key, timer, batch=at_once)
        except PredictorError:
            if at_once == 1 or options.batch:
                raise
            at_once = 1  # there are networks that were exported for a single tile
            ways = Ways(network, predictor, chosen[0], key, timer)
        return replace(_chosen(ways, network, chosen, spec, options, total), batch=at_once)
    finally:
        release(predictor)  # ways that were only tried hold memory of the device


def _chosen(
    ways: Ways, network: Network, tiles: list[tuple[Tile, NDArray[np.float32]]], spec: ModelSpec, options: SegmentOptions, total: int
) -> Verdict:
    """Return the fastest way that keeps the labels of some tiles, for a run of so many in total."""
    exact, values = ways.seconds[EXACT], list(range(1, len(spec.foreground_classes) + 1))
    refused, expected = "", None
    for name in ways.faster(total):
        seconds = ways.seconds[name]
        if expected is None:
            if total * (exact - seconds) <= len(tiles) * (exact + seconds):
                return Verdict(False, f"With {total} tiles, a check of the labels takes longer than it saves, so the run stays exact.")
            expected = _decoded(network, tiles, spec, options)
        found = _decoded(network, tiles, spec, options, backend=name)
        score, least = _score(expected, found, values, instances=spec.output == "instances")
        if score is None:
            return Verdict(False, "The tiles that were tried hold nothing to compare, so the run stays exact.")
        if score >= least:
            return Verdict(True, f"{name}: {exact / seconds:.1f} times as fast, agreement {score:.4f} on {len(tiles)} tiles.", name)
        refused = refused or f"{name} changes labels (agreement {score:.3f}, {least} is needed), so the run stays exact."
    return Verdict(False, refused or f"{ways.first} is no faster than exact arithmetic on this device, so the run stays exact.")


def probe(predictor: Predictor, options: SegmentOptions) -> float:
    """Return seconds for one tile, measured on a tile of noise, and remember them; the first, which warms up, does not count."""
    recipe = resolve(predictor.spec, options)
    plan = recipe.plan(recipe.window)
    noise = np.random.default_rng(0).random((predictor.spec.inputs, *recipe.window), dtype=np.float32)
    network = Network(predictor, plan.output, tta=options.tta)
    names = [name for name in backends(predictor) if not starts_slowly(name)] if options.precision == "auto" else []
    seconds = measure(network, (Tile((0,) * len(recipe.window), recipe.window), noise), names, rounds=1)
    key = timing_key(predictor.spec, recipe.window, predictor.device, threads=torch.get_num_threads(), tta=options.tta)
    remember(key, {RUN + name: value for name, value in seconds.items()})
    return min(seconds.values())


def remember_run(predictor: Predictor, options: SegmentOptions, verdict: Verdict | None, seconds: float) -> None:
    """Keep how many seconds one tile took in a run, with all that was done beside the network, for the next estimate."""
    window = resolve(predictor.spec, options).window
    key = timing_key(predictor.spec, window, predictor.device, threads=torch.get_num_threads(), tta=options.tta)
    remember(key, {RUN + (verdict.backend if verdict and verdict.fast else EXACT): seconds})


def _decoded(
    network: Network, tiles: list[tuple[Tile, NDArray[np.float32]]], spec: ModelSpec, options: SegmentOptions, *, backend: str = EXACT
) -> NDArray[Any]:
    """Return the labels of some tiles, each decoded by itself, stacked along a new first axis."""
    found = []
    for tile, pixels in tiles:
        scores = compute(network, torch.from_numpy(pixels)[None], tile, backend)
        # Outside of inference mode only a copy may be written to.
        found.append(_labels(scores.to(torch.float32, copy=True), spec, options))
    return np.stack(found)


def _score(exact: NDArray[Any], fast: NDArray[Any], classes: list[int], *, instances: bool) -> tuple[float | None, float]:
    """Return the agreement that is nearest to its limit, or below it, and that limit."""
    if not instances:
        return agreement(exact, fast, classes), LEAST
    foreground = agreement(exact > 0, fast > 0, [1])
    # Objects of all tiles together: ids of each are its own.
    first, second = exact.astype(np.int64), fast.astype(np.int64)
    for index in range(1, len(first)):
        first[index][first[index] > 0] += int(first[index - 1].max(initial=0))
        second[index][second[index] > 0] += int(second[index - 1].max(initial=0))
    objects = object_agreement(first, second)
    if objects is None or foreground is None:
        return None, LEAST
    return (foreground, LEAST) if foreground - LEAST < objects - LEAST_OBJECTS else (objects, LEAST_OBJECTS)


def _labels(scores: torch.Tensor, spec: ModelSpec, options: SegmentOptions) -> NDArray[Any]:
    """Decode one tile by itself; masks get the number of their class, from 1."""
    if spec.output == "instances":
        decoder = find_decoder(spec.decoder)
        return decoder.decode(scores.cpu().numpy(), spec.decoder_parameters, threshold=options.threshold, min_size=options.min_size)
    if spec.output == "anomaly":
        return whole(scores.cpu().numpy(), spec.decoder_parameters, threshold=options.threshold, min_size=options.min_size)
    if spec.output == "sigmoid":
        several = masks(scores, options.threshold).cpu().numpy()
        return several * np.arange(1, len(several) + 1).reshape(-1, *(1,) * (several.ndim - 1))
    labels = torch.empty(scores.shape[1:], dtype=label_type(len(spec.classes)), device=scores.device)
    found = regions(scores, spec.region_values, options.threshold, labels) if spec.output == "regions" else argmax(scores, labels)
    return found.cpu().numpy()
