"""``estimate``: what a run will need, from geometry alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.levels import choose_view
from napari_tileseg.engine.memory import estimate as estimate_memory
from napari_tileseg.engine.parts import Region, plan_parts
from napari_tileseg.engine.recipe import resolve as resolve_recipe
from napari_tileseg.engine.scan import plan_scan
from napari_tileseg.engine.spacing import spacing_note, spacing_ratios
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
    """

    tiles: int
    window: tuple[int, ...]
    host_bytes: int
    device_bytes: int
    disk_bytes: int
    sentence: str
    notes: tuple[str, ...] = ()


def estimate(
    volume: Volume | str | Path,
    model: str | Path | ModelSpec,
    *,
    options: SegmentOptions | None = None,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    region: Region | None = None,
) -> Estimate:
    """Say what a run will need; no model is loaded and no pixel is read.

    Parameters
    ----------
    volume, model, options, axes, channels, region
        As for `napari_tileseg.segment`.

    Raises
    ------
    InputError, AxesError, OptionsError, ModelError
        The same sentences as the run itself would raise.
    """
    options = options or SegmentOptions()
    spec = model if isinstance(model, ModelSpec) else find_spec(str(model))
    image = as_volume(volume, axes=axes, spec=spec)
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
    return Estimate(
        tiles=len(plan) * len(parts),
        window=recipe.window,
        host_bytes=needs.host_bytes,
        device_bytes=needs.device_bytes,
        disk_bytes=labels + scores + (4 * math.prod(axis_map.grid_shape) if options.uncertainty else 0),
        sentence=axis_map.sentence,
        notes=(note,) if note else (),
    )
