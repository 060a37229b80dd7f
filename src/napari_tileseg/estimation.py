"""``estimate``: what a run will need, from geometry alone, and how long it will take, from a probe or an earlier run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.levels import choose_view
from napari_tileseg.engine.memory import estimate as estimate_memory
from napari_tileseg.engine.orientation import facing
from napari_tileseg.engine.parts import Region, plan_parts
from napari_tileseg.engine.recipe import resolve as resolve_recipe
from napari_tileseg.engine.scan import plan_scan
from napari_tileseg.engine.spacing import spacing_note, spacing_ratios
from napari_tileseg.engine.timings import expected_seconds
from napari_tileseg.image import as_volume, check_dtype
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.registry import find_spec
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_tileseg.volume import Volume

__all__ = ["Estimate", "estimate"]


@dataclass(frozen=True)
class Estimate:
    """What a run will need.

    Parameters
    ----------
    tiles : int
        Number of windows in all planes, frames or volumes.
    window : tuple of int
        Their size.
    host_bytes, device_bytes : int
        Memory beyond the program's and the network's own.
    disk_bytes : int
        Size of the result before compression.
    sentence : str
        How the axes are used.
    notes : tuple of str
        What the user should know before the run.
    seconds : float or None
        How long the tiles will take; None where the model was neither probed nor run on this computer before.
    """

    tiles: int
    window: tuple[int, ...]
    host_bytes: int
    device_bytes: int
    disk_bytes: int
    sentence: str
    notes: tuple[str, ...] = ()
    seconds: float | None = None


def estimate(
    volume: Volume | str | Path,
    model: str | Path | ModelSpec,
    *,
    options: SegmentOptions | None = None,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    region: Region | None = None,
    probe: bool = False,
) -> Estimate:
    """Say what a run will need; no pixel is read.

    Parameters
    ----------
    volume, model, options, axes, channels, region
        As for `napari_tileseg.segment`.
    probe : bool
        Load the model and time one tile of it. Otherwise no model is loaded, and the time is that of the last run or probe on
        this computer, if there was one.

    Raises
    ------
    InputError, AxesError, OptionsError, ModelError
        The same sentences as the run itself would raise.
    """
    options = options or SegmentOptions()
    spec = model if isinstance(model, ModelSpec) else find_spec(str(model))
    image = as_volume(volume, axes=axes, spec=spec)
    asked = options
    if (turned := facing(image, spec)) is not None:
        spec, options = turned.spec(spec), turned.options(options)
    axis_map = map_axes(image.axes, image.shape, spec, channels=channels)
    check_dtype(image)
    recipe = resolve_recipe(spec, options)
    ratios = spacing_ratios(image, spec) if options.rescale else None
    parts = list(plan_parts(axis_map, region, recipe.window, ratios))
    view = choose_view(image, spec, axis_map.spatial, rescale=options.rescale)
    grid, _ = view.grids(*view.snapped(parts[0], axis_map.spatial))
    _, plan = plan_scan(grid.model, spec, options)
    needs = estimate_memory(plan, spec, batch=options.batch or 1, scores=options.scores or bool(options.uncertainty))
    note = spacing_note(image, spec, rescale=options.rescale)
    labels = math.prod(axis_map.result_shape) * axis_map.result_dtype.itemsize
    scores = 4 * len(spec.score_names) * math.prod(axis_map.grid_shape) if options.scores else 0
    tiles = len(plan) * len(parts)
    before = estimate(image, spec.previous.model, options=asked, channels=channels) if spec.previous is not None else None
    seconds = _probed(model, asked) if probe and not isinstance(model, ModelSpec) else None
    if seconds is None:
        fast = options.precision == "auto"
        seconds = expected_seconds(spec, recipe.window, options.device, tta=options.tta, fast=fast)
    return Estimate(
        tiles=tiles + (before.tiles if before else 0),
        window=recipe.window,
        host_bytes=needs.host_bytes,
        device_bytes=needs.device_bytes,
        disk_bytes=labels + scores + (4 * math.prod(axis_map.grid_shape) if options.uncertainty else 0),
        sentence=axis_map.sentence,
        notes=(note,) if note else (),
        seconds=None if seconds is None or (before and before.seconds is None) else seconds * tiles + _seconds(before),
    )


def _seconds(before: Estimate | None) -> float:
    return before.seconds or 0.0 if before else 0.0


def _probed(model: str | Path, options: SegmentOptions) -> float:
    """Return seconds for one tile of a model that is loaded for that alone."""
    from napari_tileseg.engine.precision import probe
    from napari_tileseg.models.predictor import load_model

    return probe(load_model(str(model), device=options.device), options)
