"""``estimate``: what a run will need, from geometry alone, and how long it will take, from a probe or an earlier run."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.layout import largest, lay_parts, seen
from napari_tileseg.engine.memory import estimate as estimate_memory
from napari_tileseg.engine.orientation import facing
from napari_tileseg.engine.recipe import resolve as resolve_recipe
from napari_tileseg.engine.spacing import spacing_note
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.engine.timings import expected_seconds
from napari_tileseg.image import as_volume, check_dtype
from napari_tileseg.job import SegmentOptions, regions_of
from napari_tileseg.models.registry import find_spec
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.layout import Layout
    from napari_tileseg.engine.levels import View
    from napari_tileseg.engine.recipe import Recipe
    from napari_tileseg.job import Region
    from napari_tileseg.volume import Volume

__all__ = ["Estimate", "estimate"]

_LOOKED_AT = 1 << 28
"""Most values of an image that are read to find its background beforehand."""
_SAMPLES = 4
"""Most planes or frames that are looked at for that."""


@dataclass(frozen=True)
class Estimate:
    """What a run will need.

    Parameters
    ----------
    tiles : int
        Number of windows in all planes, frames or volumes; the most that there can be, with adaptive overlap.
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
    region: Region | Sequence[Region] | None = None,
    probe: bool = False,
) -> Estimate:
    """Say what a run will need; no pixel is read, unless background is to be skipped.

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
    recipe, regions = resolve_recipe(spec, options), regions_of(region)
    view, layouts = lay_parts(image, axis_map, spec, options, regions)
    plan = largest(layouts)
    more, counted = _counted(layouts, recipe, spec, options) if options.adaptive or options.skip_background else (0, None)
    scored = options.scores or bool(options.uncertainty)
    needs = estimate_memory(plan, spec, batch=options.batch or 1, scores=scored, counted=counted)
    notes = [note for note in [spacing_note(image, spec, rescale=options.rescale)] if note]
    labels = math.prod(axis_map.result_shape) * axis_map.result_dtype.itemsize
    scores = 4 * len(spec.score_names) * math.prod(axis_map.grid_shape) if options.scores else 0
    tiles = sum(len(layout.plan) for layout in layouts)
    if options.skip_background:
        tiles, note = _on_tissue(image, view, axis_map, layouts)
        notes.append(note)
    if more:
        tiles += more
        notes.append(f"Up to {more} of them only where tiles disagree.")
    before = None
    if spec.previous is not None:
        before = estimate(image, spec.previous.model, options=asked, channels=channels, region=seen(axis_map, layouts) if regions else None)
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
        notes=tuple(notes),
        seconds=None if seconds is None or (before and before.seconds is None) else seconds * tiles + _seconds(before),
    )


def _counted(layouts: list[Layout], recipe: Recipe, spec: ModelSpec, options: SegmentOptions) -> tuple[int, int]:
    """Return the most windows of a second pass, and how deep the slab is where windows are left out or added."""
    from napari_tileseg.engine.adaptive import Refinement  # with torch: too slow for those who only open a menu
    from napari_tileseg.engine.counted import counted_depth

    more = depth = 0
    for plan, count in Counter(layout.plan for layout in layouts).items():
        refinement = Refinement.of(plan, recipe, spec, options.threshold) if options.adaptive else None
        ends = refinement.ends() if refinement else [row.finished[1] for row in plan.rows()]
        more += count * (refinement.most if refinement else 0)
        depth = max(depth, counted_depth(plan, ends))
    return more, depth


def _on_tissue(image: Volume, view: View, axis_map: AxisMap, layouts: list[Layout]) -> tuple[int, str]:
    """Return how many tiles hold something, judged by some of the samples where there are many, and a sentence about the rest."""
    from napari_tileseg.engine.tissue import holding, tissue_mask

    total = sum(len(layout.plan) for layout in layouts)
    _, level = view.measured
    if math.prod(level.shape) > _LOOKED_AT:
        return total, "Tiles without tissue or cells are left out; how many is seen only when the run looks at the image."
    mapped = replace(axis_map, shape=level.shape)
    samples = [list(parts) for _, parts in groupby(layouts, key=lambda layout: layout.part.position)]
    chosen = sorted({index * (len(samples) - 1) // max(_SAMPLES - 1, 1) for index in range(_SAMPLES)})
    looked = kept = 0
    for parts in (samples[index] for index in chosen):
        tissue = tissue_mask(level, mapped, parts[0].part.position)
        for layout in parts:
            plan, turn = layout.plan, layout.turn
            wanted = holding(tissue, level, image, axis_map.spatial, layout.grid, layout.part)
            tiles = (tile for row in plan.rows() for tile in plan.tiles(row.index))
            kept += sum(wanted(Tile(turn.back(tile.kept.start), turn.back(tile.kept.stop))) for tile in tiles)
            looked += len(plan)
    kept = math.ceil(kept * total / looked)
    if kept == total:
        return kept, "Every tile holds tissue or cells; none is left out."
    return kept, f"{total - kept} of {total} tiles hold no tissue or cells and are left out."


def _seconds(before: Estimate | None) -> float:
    return before.seconds or 0.0 if before else 0.0


def _probed(model: str | Path, options: SegmentOptions) -> float:
    """Return seconds for one tile of a model that is loaded for that alone."""
    from napari_tileseg.engine.precision import probe
    from napari_tileseg.models.predictor import load_model

    return probe(load_model(str(model), device=options.device), options)
